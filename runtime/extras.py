"""Optional packages: imported when first needed, or an error with the command that installs them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from .errors import MissingDependencyError

# The distributions of each extra in pyproject.toml, so that a message can name a command that works anywhere.
EXTRAS = {
    "cpu": "faiss-cpu",
    "gpu": "'cupy-cuda12x[ctk]' faiss-gpu nvidia-dali-cuda120 tensorrt-rtx-cu12",
    "gpu13": "'cupy-cuda13x[ctk]' faiss-gpu nvidia-dali-cuda130 tensorrt-rtx-cu13",
    "map": "plotly scikit-learn",
    "pycuda": "pycuda",
    "report": "matplotlib",
    "rtx": "tensorrt-rtx",
    "tensorrt": "tensorrt-cu12",
}


def pip_install(extra: str) -> str:
    """The command that installs what an extra stands for."""
    index = "--extra-index-url https://pypi.nvidia.com " if extra == "tensorrt" else ""  # PyPI has no libraries of it
    return f"pip install {index}{EXTRAS[extra]}"


def require(module: str, *, extra: str = "", purpose: str = "") -> ModuleType:
    """Import `module`, or say how to get it.

    Args:
        module: import name, e.g. "tensorrt_rtx".
        extra: the extra of this package that brings it; empty for a base dependency.
        purpose: what cannot be done without it, for the message.
    Raises:
        MissingDependencyError: it is not installed, or does not import.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as err:
        command = pip_install(extra) if extra else f"pip install {module}"
        what = f" ({purpose})" if purpose else ""
        raise MissingDependencyError(
            f"the package '{module}' is needed{what} and does not import: {err}. Install it with: {command}"
        ) from err


def available(module: str) -> bool:
    """Whether `module` is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
