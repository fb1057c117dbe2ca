"""Import one of TensorRT's two packages, and log its messages."""

from __future__ import annotations

import collections
import functools
import logging
import re
from types import ModuleType
from typing import Any

from ...errors import MissingDependencyError
from ...extras import pip_install, require

logger = logging.getLogger(__name__)

_NAMES = re.compile(r"\S*[\d/:_]\S*")  # of layers and tensors


def import_tensorrt(compute_capability: str | None = None) -> ModuleType:
    """Import `tensorrt`, or else `tensorrt_rtx`. With a compute capability import `tensorrt_rtx`.

    Raises:
        MissingDependencyError: neither can be imported.
        MachineError: the machine cannot read them now.
    """
    if compute_capability is not None:
        return require("tensorrt_rtx", extra="rtx", purpose="only it builds for a given compute capability")
    try:
        return require("tensorrt", extra="tensorrt")
    except MissingDependencyError as err:
        try:
            return require("tensorrt_rtx", extra="rtx")
        except MissingDependencyError as rtx_err:
            raise MissingDependencyError(
                f"the backend tensorrt needs 'tensorrt' ({err.__cause__}) or 'tensorrt_rtx' ({rtx_err.__cause__}). "
                f"Install one with: {pip_install('rtx')}, or {pip_install('tensorrt')}"
            ) from rtx_err


def version_of(trt: ModuleType) -> str:
    """Name and version, e.g. "tensorrt_rtx 1.7.1.116"."""
    return f"{trt.__name__} {trt.__version__}"


def named_target(trt: ModuleType, compute_capability: str) -> str | None:
    """The compute capability, if this TensorRT has a name for it; else None.

    TensorRT-RTX only names GPUs that its default engines do not support or are slower on. Hopper has no name.
    """
    names = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    return compute_capability if compute_capability in names else None


class TensorRTLog:
    """Logs TensorRT's messages, and collects its errors for an exception.

    Attributes:
        logger: the logger for TensorRT's constructors.
    """

    def __init__(self, trt: ModuleType) -> None:
        errors = self._errors = collections.deque[str](maxlen=20)
        logged: set[str] = set()
        severity = trt.ILogger.Severity
        levels = {severity.WARNING: logging.WARNING, severity.INFO: logging.DEBUG}

        class Logger(trt.ILogger):  # type: ignore[name-defined,misc]
            def log(self, kind: Any, message: str) -> None:
                if kind in (severity.ERROR, severity.INTERNAL_ERROR):
                    errors.append(message.strip())  # part of an exception later, so not logged twice
                level = levels.get(kind, logging.DEBUG)
                if level == logging.WARNING:
                    kind_of_warning = _NAMES.sub("*", message)  # log each kind once, not for each layer
                    level = logging.DEBUG if kind_of_warning in logged else level
                    logged.add(kind_of_warning)
                logger.log(level, "TensorRT: %s", message)

        self.logger = Logger()

    def take_errors(self) -> str:
        """Return the errors since the last call, after a colon; empty without errors."""
        errors = "; ".join(self._errors)
        self._errors.clear()
        return f": {errors}" if errors else ""


@functools.cache
def tensorrt_log(trt: ModuleType) -> TensorRTLog:
    """The log of this process. TensorRT ignores further loggers while an object with the first one exists."""
    return TensorRTLog(trt)
