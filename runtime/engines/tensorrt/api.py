"""TensorRT's two packages under one roof: which is installed, and its messages in our log."""

from __future__ import annotations

import collections
import functools
import importlib
import logging
import re
from types import ModuleType
from typing import Any

from ...errors import MissingDependencyError
from ...extras import pip_install, require

logger = logging.getLogger(__name__)

_NAMES = re.compile(r"\S*[\d/:_]\S*")  # of layers and tensors


def import_tensorrt(compute_capability: str | None = None) -> ModuleType:
    """`tensorrt`, or `tensorrt_rtx` where that is not installed; the latter if a compute capability is asked for.

    Raises:
        MissingDependencyError: neither imports.
    """
    if compute_capability is not None:
        return require("tensorrt_rtx", extra="rtx", purpose="only it builds for a compute capability that is named")
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as err:
        try:
            return importlib.import_module("tensorrt_rtx")
        except (ImportError, OSError) as rtx_err:
            raise MissingDependencyError(
                f"the backend tensorrt needs 'tensorrt' ({err}) or 'tensorrt_rtx' ({rtx_err}). "
                f"Install one with: {pip_install('rtx')}, or {pip_install('tensorrt')}"
            ) from rtx_err


def version_of(trt: ModuleType) -> str:
    """E.g. "tensorrt_rtx 1.7.1.116"."""
    return f"{trt.__name__} {trt.__version__}"


def named_target(trt: ModuleType, compute_capability: str) -> str | None:
    """The compute capability if this TensorRT builds for it by name.

    TensorRT-RTX has names for those GPUs alone that its default engines leave out or are slower on; Hopper has none.
    """
    names = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    return compute_capability if compute_capability in names else None


class TensorRTLog:
    """TensorRT's messages: into our log, and its errors kept for an exception.

    Attributes:
        logger: for TensorRT's constructors.
    """

    def __init__(self, trt: ModuleType) -> None:
        errors = self._errors = collections.deque[str](maxlen=20)
        said: set[str] = set()
        severity = trt.ILogger.Severity
        levels = {severity.WARNING: logging.WARNING, severity.INFO: logging.DEBUG}

        class Logger(trt.ILogger):  # type: ignore[name-defined,misc]
            def log(self, kind: Any, message: str) -> None:
                if kind in (severity.ERROR, severity.INTERNAL_ERROR):
                    errors.append(message.strip())  # raised with an exception: not said twice
                level = levels.get(kind, logging.DEBUG)
                if level == logging.WARNING:
                    form = _NAMES.sub("*", message)  # once for each kind of warning, not for each layer
                    level = logging.DEBUG if form in said else level
                    said.add(form)
                logger.log(level, "TensorRT: %s", message)

        self.logger = Logger()

    def words(self) -> str:
        """The errors since the last call, after a colon; or nothing."""
        words = "; ".join(self._errors)
        self._errors.clear()
        return f": {words}" if words else ""


@functools.cache
def tensorrt_log(trt: ModuleType) -> TensorRTLog:
    """The one of this process: TensorRT ignores every further one while an object made with the first lives."""
    return TensorRTLog(trt)
