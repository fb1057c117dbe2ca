"""Import optional packages when they are first needed, or raise an error with the command that installs them."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import shlex
import shutil
import sys
from types import ModuleType

from .errors import Interrupted, MachineError, MissingDependencyError
from .libcuda import driver_cuda

# The distributions of each extra in pyproject.toml, for commands in messages that work everywhere.
EXTRAS = {
    "cluster": "scipy",
    "cpu": "faiss-cpu",
    "gpu": "'cupy-cuda12x[ctk]' faiss-gpu nvidia-dali-cuda120 tensorrt-rtx-cu12",
    "gpu13": "'cupy-cuda13x[ctk]' faiss-gpu nvidia-dali-cuda130 tensorrt-rtx-cu13",
    "map": "plotly scikit-learn",
    "parquet": "pyarrow",
    "pycuda": "pycuda",
    "qdrant": "qdrant-client",
    "report": "matplotlib",
    "rtx": "tensorrt-rtx-cu12",
    "rtx13": "tensorrt-rtx-cu13",
    "server": "fastapi prometheus-client python-multipart uvicorn",
    "tensorrt": "tensorrt-cu12",
    "window": "pywebview",
}
# Packages for CUDA 13 need a driver 580 or newer. Without a driver that is unknown, and those for CUDA 12 run on both.
_ON_CUDA_13 = {"gpu": "gpu13", "rtx": "rtx13"}
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
# What the system answers if it cannot read or load a file that is there.
_FAULTS = frozenset({
    errno.EIO, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT,
    errno.ENOTCONN, errno.EREMOTEIO,
})  # fmt: skip


def pip_install(extra: str) -> str:
    """The command that installs the packages of an extra, for the CUDA version of this machine's driver."""
    if (driver_cuda() or (12, 0)) >= (13, 0):
        extra = _ON_CUDA_13.get(extra, extra)
    index = "--extra-index-url https://pypi.nvidia.com " if extra == "tensorrt" else ""  # PyPI lacks its libraries
    return f"pip install {index}{EXTRAS[extra]}"


def require(module: str, *, extra: str = "", purpose: str = "") -> ModuleType:
    """Import a module, or raise an error that says how to install it.

    Args:
        module: import name, e.g. "tensorrt_rtx".
        extra: the extra that installs it; empty for a base dependency.
        purpose: its purpose, for the message.
    Raises:
        MissingDependencyError: the module is not installed, or its installation is broken.
        MachineError: the machine cannot read it now: a disk, its memory, too many open files.
        Interrupted, KeyboardInterrupt: a signal arrived during the import.
    """
    try:
        return _import(module)
    except ModuleNotFoundError:
        importlib.invalidate_caches()  # after a failed look at a folder Python remembers that it is none
    except Exception as err:
        raise _import_error_of(module, err, extra, purpose) from err
    try:
        return _import(module)
    except Exception as err:
        raise _import_error_of(module, err, extra, purpose) from err


def _import(module: str) -> ModuleType:
    """Import a module without telemetry: ONNX Runtime 1.32 reports to its makers, from a cache in the home folder.

    Its switch is read once, while it is imported; the environment is then as before. Whoever has set it decides.
    """
    if module.split(".")[0] != "onnxruntime" or "onnxruntime" in sys.modules or _NO_TELEMETRY in os.environ:
        return importlib.import_module(module)
    os.environ[_NO_TELEMETRY] = "1"
    try:
        return importlib.import_module(module)
    finally:
        os.environ.pop(_NO_TELEMETRY, None)


def _import_error_of(module: str, err: Exception, extra: str, purpose: str) -> BaseException:
    if not extra:
        return import_error(module, err, _of_this_python(f"pip install {module}"), purpose)
    # The command names distributions, because it has to work without an index that has facemill.
    purposes = "; ".join(filter(None, (purpose, f"in facemill[{extra}]")))
    return import_error(module, err, _of_this_python(pip_install(extra)), purposes)


def _of_this_python(command: str) -> str:
    """A command of pip that installs for the Python that runs: its environment may not be the active one."""
    pip = shutil.which("pip")
    if pip is not None and os.path.dirname(pip) == os.path.dirname(sys.executable):
        return command
    return f"{shlex.quote(sys.executable)} -m {command}"


def import_error(module: str, err: Exception, install: str = "", purpose: str = "") -> BaseException:
    """The error to raise for a module that cannot be imported: only a module that is nowhere is not installed.

    Args:
        module: import name.
        err: what its import raised.
        install: the command that installs it; empty to name the command that lists what is missing.
        purpose: its purpose, for the message.
    """
    cause: BaseException | None = err
    while cause is not None:  # a compiled module turns a signal during its import into an ImportError
        if isinstance(cause, (Interrupted, KeyboardInterrupt)):
            return cause
        cause = cause.__cause__ or cause.__context__
    top = module.split(".")[0]
    is_missing = isinstance(err, ModuleNotFoundError) and (err.name or "").split(".")[0] == top
    fault = _unreadable_place(top) if is_missing else err
    name = f"the package '{module}'" + (f" ({purpose})" if purpose else "")
    if fault is not None and is_machine_fault(fault):
        remedy = "Raise the limit: ulimit -n 4096" if "open files" in str(fault) else "Fix that"
        return MachineError(
            f"{name} cannot be imported: {str(fault) or 'no memory'}. That is a fault of the machine, not of the "
            f"package. {remedy}, and run the same command again"
        )
    if is_missing:
        remedy = f"Install it with: {install}" if install else "List all missing packages with: facemill doctor"
        return MissingDependencyError(f"{name} is needed and not installed. {remedy}")
    remedy = f"Install it again: {install} --force-reinstall" if install else "List what is wrong with: facemill doctor"
    return MissingDependencyError(f"{name} is installed and cannot be imported: {type(err).__name__}: {err}. {remedy}")


def is_machine_fault(err: BaseException | str) -> bool:
    """Whether a failed import says something about the machine: the loader of shared libraries has only a text."""
    number = getattr(err, "errno", None)
    return isinstance(err, MemoryError) or number in _FAULTS or any(os.strerror(code) in str(err) for code in _FAULTS)


def _unreadable_place(top: str) -> OSError | None:
    """Why nobody can tell whether a module is installed: a folder where it may be cannot be looked at."""
    for folder in sys.path:
        try:
            os.stat(os.path.join(folder or ".", top))
        except OSError as err:
            if is_machine_fault(err):
                return err
    return None


def available(module: str) -> bool:
    """Whether a module is installed. It is not imported, and may be broken."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False
    except ImportError:  # of the package around it
        return True
