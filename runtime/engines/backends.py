"""The backends, fastest first, and loading an engine."""

from __future__ import annotations

from ..errors import EngineError
from ..extras import available, pip_install
from .backend import Backend, Fault
from .engine import Engine
from .onnxruntime.backend import OnnxRuntimeCpu, OnnxRuntimeCuda
from .runner import Runner
from .tensorrt.backend import TensorRT

BACKENDS: tuple[Backend, ...] = (TensorRT(), OnnxRuntimeCuda(), OnnxRuntimeCpu())


def backend_of(name: str) -> Backend:
    """The backend with a name.

    Raises:
        EngineError: the name is unknown; an engine of another version of facemill may have it.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise EngineError(
        f"unknown backend {name!r}; expected one of {', '.join(backend.name for backend in BACKENDS)}. "
        f"Rebuild the engine with: facemill build-engine --model NAME"
    )


def find_fault(backend: Backend) -> Fault | None:
    """Why the packages of a backend cannot be used on this machine; None if they can. Does not check for a GPU."""
    for group in backend.requires:
        if not any(map(available, group)):
            fix = pip_install(backend.extra) if backend.extra else f"pip install {group[0]}"
            return Fault(f"{' or '.join(group)} is not installed", fix)
    return backend.find_fault()


def open_runner(engine: Engine, *, threads: int = 0) -> Runner:
    """Load an engine.

    Args:
        engine: from `read_engine` or `build_engine`.
        threads: threads of one `infer` for the `cpu` backend; 0: one per core.
    Raises:
        EngineError: the file is missing, does not match its sidecar, or the backend cannot load it.
        MissingDependencyError: the backend's package is not installed.
    """
    return backend_of(engine.info.backend).open(engine.content(), engine.info, threads=threads, path=engine.path)
