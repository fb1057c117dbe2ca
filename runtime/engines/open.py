"""An engine file to the runner of its backend."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EngineError
from .runner import Runner
from .sidecar import EngineInfo, read_sidecar
from .tensorrt.cache import cache_path

if TYPE_CHECKING:
    from .tensorrt.runner import TensorRTRunner


def open_runner(path: Path, *, threads: int = 0) -> Runner:
    """Load an engine that build-engine wrote.

    Args:
        path: the engine file; its sidecar lies beside it.
        threads: for the `cpu` backend, threads of one `infer`; 0 leaves it to the backend (one a core).
    Raises:
        EngineError: the file is missing, is not the one that its sidecar describes, or the backend refuses it.
        MissingDependencyError: the backend's package is not installed.
    """
    if read_sidecar(path).backend == "tensorrt":
        return open_tensorrt(path)
    from .ort_runner import OrtRunner

    return OrtRunner(*_read(path), threads=threads)


def open_tensorrt(path: Path, *, slots: int = 2, decoder_bytes: int = 0, detector_bytes: int = 0) -> TensorRTRunner:
    """Load a TensorRT engine that build-engine wrote; see TensorRTRunner and `open_runner`."""
    from .tensorrt.runner import TensorRTRunner

    return TensorRTRunner(
        *_read(path), slots=slots, decoder_bytes=decoder_bytes, detector_bytes=detector_bytes, cache=cache_path(path)
    )


def _read(path: Path) -> tuple[bytes, EngineInfo]:
    """Content and sidecar of an engine, which belong together."""
    info = read_sidecar(path)
    try:
        engine = path.read_bytes()
    except OSError as err:
        raise EngineError(
            f"the engine {path} cannot be read: {err.strerror}. "
            f"Build it with: facemill build-engine --model {info.model} --backend {info.backend}"
        ) from err
    found = hashlib.sha256(engine).hexdigest()
    if found != info.engine_sha256:
        raise EngineError(
            f"the engine {path} is not the file that its sidecar describes: its sha256 is {found}, wanted "
            f"{info.engine_sha256}. Build it again with: facemill build-engine --model {info.model} "
            f"--backend {info.backend} --force"
        )
    return engine, info
