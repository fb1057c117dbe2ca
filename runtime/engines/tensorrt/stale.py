"""Detect stale plans. A plan runs on one version of TensorRT and one kind of GPU."""

from __future__ import annotations

from ...cuda.device import find_gpu
from ...extras import available, require
from ..engine import Engine
from ..weights import changed_weights
from .api import version_of
from .build import invalid_here


def why_stale(engine: Engine) -> str:
    """Why this machine's GPU cannot run an existing engine; empty if it can, or if that is unknown."""
    gpu, info = find_gpu(), engine.info
    if gpu is None:
        return ""
    module = info.backend_version.split(" ")[0]
    if not available(module):
        installed = "tensorrt" if module == "tensorrt_rtx" else "tensorrt_rtx"
        return f"it was built by {module}, and {installed} is installed" if available(installed) else ""
    trt = require(module)
    if version_of(trt) != info.backend_version:
        return f"it was built by {info.backend_version}, and {version_of(trt)} is installed"
    is_capability = info.device.startswith("SM")
    if info.device != "default set" and info.device != (gpu.compute_capability if is_capability else gpu.name):
        return f"it was built for {info.device}, and the GPU is {gpu.name} ({gpu.compute_capability})"
    reason = changed_weights(info)
    if reason:
        return reason
    invalid = invalid_here(trt, engine.content())
    return f"TensorRT-RTX reports it as invalid on this machine: {invalid}" if invalid else ""
