"""TensorRT plans are for one version and one kind of GPU: a stale one is built again before it is used."""

from __future__ import annotations

import logging

from ..cuda.device import find_gpu
from ..errors import EngineError, FacemillError
from ..extras import available, require
from ..modelspec import load_spec
from ..modelstore import find_weights, sha256_of
from .build import build_engine
from .engine import Engine, EngineInfo
from .tensorrt.api import version_of
from .tensorrt.build import invalid_here
from .weights import weights_for

logger = logging.getLogger(__name__)


def rebuild_if_stale(engine: Engine) -> Engine:
    """The engine if this machine can run it, else the same one built again in the same folder.

    Args:
        engine: the engine; engines of other backends than TensorRT are never stale.
    Returns:
        The engine to use. Its name says what it is for, so it may be another file.
    Raises:
        EngineError: it is stale and cannot be built again; the reasons are in the message.
    """
    info = engine.info
    reason = why_stale(engine)
    if not reason:
        return engine
    logger.warning("the engine %s cannot be used: %s. Building it again", engine, reason)
    try:
        if info.precision == "int8":
            raise EngineError("it was calibrated on photographs, which build-engine alone is given (--calibration)")
        spec = load_spec(info.model)
        result = build_engine(
            spec,
            weights_for(spec),
            backend="tensorrt",
            precision=info.precision,
            batch=info.profile,
            output=engine.path.parent,
            force=True,
        )
    except FacemillError as err:
        raise EngineError(
            f"the engine {engine} cannot be used: {reason}; and it cannot be built again: {err.message}. "
            f"Build one with: facemill build-engine --model {info.model} --backend tensorrt "
            f"--precision {info.precision}" + (" --calibration PHOTOS" if info.precision == "int8" else "")
        ) from err
    return result.engine


def why_stale(engine: Engine) -> str:
    """Why a TensorRT engine cannot be used on this machine's GPU; empty when it can, or when nothing tells."""
    info = engine.info
    gpu = find_gpu()
    if info.backend != "tensorrt" or gpu is None:
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
    reason = _other_weights(info)
    if reason:
        return reason
    invalid = invalid_here(trt, engine.content())
    return f"TensorRT-RTX calls it invalid here: {invalid}" if invalid else ""


def _other_weights(info: EngineInfo) -> str:
    """Whether the model's ONNX file is another one than the engine was built from, where it is on this machine."""
    try:
        weights = find_weights(load_spec(info.model))
    except FacemillError:
        return ""  # a model file of the user's own, not registered
    if weights is None or sha256_of(weights) == info.model_sha256:
        return ""
    return f"it was built from another ONNX file than {weights}"
