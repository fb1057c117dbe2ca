"""The backends, fastest first, and the way from an engine to its runner."""

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
    """The backend of a name.

    Raises:
        EngineError: there is none, which an engine of another version of facemill may name.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise EngineError(
        f"no backend is named {name!r}; expected one of {', '.join(backend.name for backend in BACKENDS)}. "
        f"Build the engine again with: facemill build-engine --model NAME"
    )


def find_fault(backend: Backend) -> Fault | None:
    """Why a backend's packages cannot be used on this machine; None where they can. Looks for no GPU."""
    for group in backend.requires:
        if not any(map(available, group)):
            fix = pip_install(backend.extra) if backend.extra else f"pip install {group[0]}"
            return Fault(f"{' or '.join(group)} is not installed", fix)
    return backend.find_fault()


def open_runner(engine: Engine, *, threads: int = 0) -> Runner:
    """Load an engine.

    Args:
        engine: from `read_engine` or `build_engine`.
        threads: for the `cpu` backend, threads of one `infer`; 0 leaves it to the backend (one per core).
    Raises:
        EngineError: the file is missing, is not the file that its sidecar describes, or the backend refuses it.
        MissingDependencyError: the backend's package is not installed.
    """
    return backend_of(engine.info.backend).open(engine.content(), engine.info, threads=threads, path=engine.path)
