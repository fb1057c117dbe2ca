"""An engine to the runner of its backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine import Engine
from .runner import Runner
from .tensorrt.cache import cache_path

if TYPE_CHECKING:
    from .tensorrt.runner import TensorRTRunner


def open_runner(engine: Engine, *, threads: int = 0) -> Runner:
    """Load an engine.

    Args:
        engine: from `read_engine` or `build_engine`.
        threads: for the `cpu` backend, threads of one `infer`; 0 leaves it to the backend (one per core).
    Raises:
        EngineError: the file is missing, is not the file that its sidecar describes, or the backend refuses it.
        MissingDependencyError: the backend's package is not installed.
    """
    if engine.info.backend == "tensorrt":
        return open_tensorrt(engine)
    from .ort_runner import OrtRunner

    return OrtRunner(engine.content(), engine.info, threads=threads)


def open_tensorrt(engine: Engine, *, slots: int = 2, decoder_bytes: int = 0, detector_bytes: int = 0) -> TensorRTRunner:
    """Load a TensorRT engine; see TensorRTRunner and `open_runner`."""
    from .tensorrt.runner import TensorRTRunner

    return TensorRTRunner(
        engine.content(),
        engine.info,
        slots=slots,
        decoder_bytes=decoder_bytes,
        detector_bytes=detector_bytes,
        cache=cache_path(engine.path),
    )
