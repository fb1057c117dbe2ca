"""Import optional packages when they are first needed, or raise an error with the command that installs them."""

from __future__ import annotations

import importlib
import importlib.util
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
    "tensorrt": "tensorrt-cu12",
}
# Packages for CUDA 13 need a driver 580 or newer. Without a driver that is unknown, and those for CUDA 12 run on both.
_ON_CUDA_13 = {"gpu": "gpu13", "rtx": "rtx13"}


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
        MissingDependencyError: the module is not installed, or cannot be imported.
        MachineError: too many files are open to import it.
        Interrupted, KeyboardInterrupt: a signal arrived during the import.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as err:
        if "Too many open files" in str(err):  # also as the text of the loader of shared libraries
            raise MachineError(
                f"the package '{module}' cannot be imported: too many files are open. Raise the limit: ulimit -n 4096"
            ) from err
        cause: BaseException | None = err
        while cause is not None:  # a compiled module turns a signal during its import into an ImportError
            if isinstance(cause, (Interrupted, KeyboardInterrupt)):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        command = pip_install(extra) if extra else f"pip install {module}"
        reason = f" ({purpose})" if purpose else ""
        raise MissingDependencyError(
            f"the package '{module}' is needed{reason} but cannot be imported: {err}. Install it with: {command}"
        ) from err


def available(module: str) -> bool:
    """Whether a module is installed. It is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
