"""A plan is for one version of TensorRT and one kind of GPU: tell a stale plan from a usable one."""

from __future__ import annotations

from ...cuda.device import find_gpu
from ...extras import available, require
from ..engine import Engine
from ..weights import changed_weights
from .api import version_of
from .build import invalid_here


def why_stale(engine: Engine) -> str:
    """Why this machine's GPU cannot run an engine that was built earlier; empty when it can, or when nothing tells."""
    gpu, info = find_gpu(), engine.info
    if gpu is None:
        return ""
    module = info.backend_version.split(" ")[0]
    if not available(module):
        other = "tensorrt" if module == "tensorrt_rtx" else "tensorrt_rtx"
        return f"it was built by {module}, and {other} is installed" if available(other) else ""
    trt = require(module)
    if version_of(trt) != info.backend_version:
        return f"it was built by {info.backend_version}, and {version_of(trt)} is installed"
    named_sm = info.device.startswith("SM")
    if info.device != "default set" and info.device != (gpu.compute_capability if named_sm else gpu.name):
        return f"it was built for {info.device}, and the GPU is {gpu.name} ({gpu.compute_capability})"
    reason = changed_weights(info)
    if reason:
        return reason
    invalid = invalid_here(trt, engine.content())
    return f"TensorRT-RTX calls it invalid here: {invalid}" if invalid else ""
