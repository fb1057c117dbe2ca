"""What a TensorRT plan is built for, and the second try where this machine's GPU does not take the first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from ...cuda.device import find_gpu
from ...errors import EngineError, OutOfMemoryError
from ...extras import pip_install
from ..engine import EngineInfo
from .api import import_tensorrt, named_target
from .build import CURRENT, Plan

logger = logging.getLogger(__name__)


def target_of(compute_capability: str | None, version: str) -> str | None:
    """The compute capability to name to TensorRT; tensorrt_rtx's default set leaves older GPUs out.

    Args:
        compute_capability: that the user named, e.g. "SM75"; None: for this machine.
        version: of the TensorRT that builds, e.g. "tensorrt_rtx 1.7.1.116".
    Returns:
        None where there is nothing to name: plain TensorRT builds for this machine's GPU, and tensorrt_rtx, which has
        no name for some of them (Hopper), for its default set.
    """
    gpu = find_gpu()
    if compute_capability is None and gpu is not None and version.startswith("tensorrt_rtx"):
        return named_target(import_tensorrt(), gpu.compute_capability)
    return compute_capability


def plan_that_runs(
    target: str | None,
    info: EngineInfo,
    build: Callable[[str | None], Plan],
    prove: Callable[[Plan], EngineInfo],
) -> tuple[Plan, EngineInfo]:
    """A plan that was run on this machine's GPU, if that is what it is for.

    TensorRT-RTX's default set is said to be for every GPU from compute capability 8.0 on, also for those that it has no
    name for. Where it is not true of this one, the plan is built once more, for this GPU alone.

    Args:
        target: from `target_of`.
        info: of the engine to be.
        build: makes a plan for a target.
        prove: loads a plan, runs it and returns its sidecar; raises EngineError where it does not run or is not equal.
    Raises:
        EngineError: there is no plan, or the GPU takes none; what became of each is in the message.
    """
    gpu = find_gpu()
    if gpu is None or target not in (None, gpu.compute_capability):
        plan = build(target)
        return plan, replace(info, precision=plan.precision)
    default_set = target is None and info.backend_version.startswith("tensorrt_rtx")
    try:
        plan = build(target)
        return plan, prove(plan)
    except EngineError as err:
        if not default_set or isinstance(err, OutOfMemoryError):
            raise
        refused = f"default set: {err.message}"
    here = f"{gpu.name} ({gpu.compute_capability})"
    logger.warning("%s does not take what %s builds: %s. Trying %s", here, info.backend_version, refused, CURRENT)
    try:
        plan = build(CURRENT)
        proven = prove(plan)
    except EngineError as err:
        raise EngineError(
            f"{info.backend_version} builds no engine of {info.model} that {here} takes: {refused}; "
            f"{CURRENT}: {err.message}. "
            f"Install TensorRT itself, which is used where both are: {pip_install('tensorrt')}; or use --backend cuda"
        ) from err
    logger.warning("%s: what is built for %s runs", here, CURRENT)
    return plan, replace(proven, refused=refused)
