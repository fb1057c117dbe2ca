"""Optional packages: imported when first needed, or an error with the command that installs them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from .errors import MissingDependencyError


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
        target = f"'facemill[{extra}]'" if extra else "facemill"
        what = f" ({purpose})" if purpose else ""
        raise MissingDependencyError(
            f"the package '{module}' is needed{what} and does not import: {err}. Install it with: pip install {target}"
        ) from err


def available(module: str) -> bool:
    """Whether `module` is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
