"""TensorRT as a backend. An engine is a plan for one version of TensorRT and one kind of GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...cuda.device import find_gpu
from ...errors import ConfigError, EngineError, OutOfMemoryError
from ...extras import pip_install
from ...graphs.qdq import WEIGHTED, Scheme
from ..backend import BuildJob, Fault, Profile, Prove
from ..engine import Engine, EngineInfo
from .api import import_tensorrt, named_target, version_of
from .build import CURRENT, Plan, build_plan, check_plan
from .cache import cache_path

if TYPE_CHECKING:
    import onnx

    from .runner import TensorRTRunner

logger = logging.getLogger(__name__)


class TensorRT:
    """TensorRT, through `tensorrt` or `tensorrt_rtx`; see `Backend`."""

    name = "tensorrt"
    title = "TensorRT"
    suffix = "plan"
    on_gpu = True
    keeps_photos = True
    names_targets = True
    requires: tuple[tuple[str, ...], ...] = (("tensorrt", "tensorrt_rtx"), ("cupy", "pycuda"))
    extra = "gpu"
    usual_precision = "fp16"
    refusals: Mapping[str, str] = {}
    # TensorRT has no zero points, takes biases in float, and fuses operators after a convolution unless a Q/DQ is in
    # between. The Add of a residual reads the Q/DQ that the next convolution needs on that tensor.
    scheme: Scheme | None = Scheme(WEIGHTED, symmetric=True, inputs_only=True, rest="fp16")

    def profile(self, task: str) -> Profile:
        return (1, 16, 32) if task == "detect" else (1, 256, 512)

    def find_fault(self) -> Fault | None:
        return None

    def version(self, compute_capability: str | None = None) -> str:
        return version_of(import_tensorrt(compute_capability))

    def device(self, compute_capability: str | None = None) -> str:
        gpu = find_gpu()
        return target_of(compute_capability, self.version(compute_capability)) or (gpu.name if gpu else "default set")

    def adapt(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        return graph

    def build(self, job: BuildJob, graph: onnx.ModelProto, info: EngineInfo, prove: Prove) -> tuple[bytes, EngineInfo]:
        """Build a plan. Prove its graph on the CPU, and the plan itself if this machine's GPU can run it."""
        target = target_of(job.compute_capability, info.backend_version)
        if job.precision == "int8" and info.backend_version.startswith("tensorrt_rtx") and not _runs_here(target):
            raise ConfigError(
                f"an int8 engine of TensorRT-RTX for {target or 'its default set'} is not built on a machine that "
                f"cannot run it: TensorRT-RTX may refuse INT8 only when it runs. Build it on a machine with that GPU, "
                f"or build another precision: --precision fp16"
            )
        content = graph.SerializeToString(deterministic=True)
        graph_info = prove(content, replace(info, backend="cpu"))
        logger.info(
            "parity of the graph on the CPU, over %d crops: cosine minimum %.6f, mean %.6f",
            graph_info.parity.images,
            graph_info.parity.minimum,
            graph_info.parity.mean,
        )
        from ..inputs import output_of, sides_of

        trt = import_tensorrt(job.compute_capability)

        def build(target: str | None) -> Plan:
            return build_plan(
                trt,
                content,
                profile=job.profile,
                sides=sides_of(job.spec),
                output=output_of(job.spec),
                compute_capability=target,
            )

        def prove_plan(plan: Plan) -> EngineInfo:
            loaded = replace(info, precision=plan.precision, context_bytes=check_plan(trt, plan.content))
            return prove(plan.content, loaded)

        plan, info = build_working_plan(target, info, build, prove_plan)
        return plan.content, info

    def open(self, content: bytes, info: EngineInfo, *, threads: int = 0, path: Path | None = None) -> TensorRTRunner:
        from .runner import TensorRTRunner

        return TensorRTRunner(content, info, cache=path and cache_path(path))

    def why_stale(self, engine: Engine) -> str:
        from .stale import why_stale

        return why_stale(engine)


def target_of(compute_capability: str | None, version: str) -> str | None:
    """The compute capability to pass to TensorRT, because the default set of tensorrt_rtx lacks older GPUs.

    Args:
        compute_capability: compute capability from the user, e.g. "SM75"; None: for this machine.
        version: package and version that build, e.g. "tensorrt_rtx 1.7.1.116".
    Returns:
        None to pass none: tensorrt builds for the GPU of this machine, and tensorrt_rtx, which has no name for some
        GPUs (Hopper), for its default set.
    """
    gpu = find_gpu()
    if compute_capability is None and gpu is not None and version.startswith("tensorrt_rtx"):
        return named_target(import_tensorrt(), gpu.compute_capability)
    return compute_capability


def _runs_here(target: str | None) -> bool:
    """Whether this machine has the GPU of a target, from `target_of`."""
    gpu = find_gpu()
    return gpu is not None and target in (None, gpu.compute_capability)


def build_working_plan(
    target: str | None,
    info: EngineInfo,
    build: Callable[[str | None], Plan],
    prove: Callable[[Plan], EngineInfo],
) -> tuple[Plan, EngineInfo]:
    """Build a plan, and run it on this machine's GPU if it is for that GPU.

    The default set of TensorRT-RTX should work on every GPU from compute capability 8.0 on, named or not. If it fails
    on this GPU, the plan is built again for this GPU only.

    Args:
        target: from `target_of`.
        info: facts of the engine.
        build: builds a plan for a target.
        prove: loads and runs a plan and returns its facts; raises EngineError if it does not run or is below the bar.
    Raises:
        EngineError: no plan can be built, or none runs on the GPU; the message has the error of each.
    """
    gpu = find_gpu()
    if gpu is None or not _runs_here(target):
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
    gpu_label = f"{gpu.name} ({gpu.compute_capability})"
    logger.warning("%s cannot run the engine of %s: %s. Trying %s", gpu_label, info.backend_version, refused, CURRENT)
    try:
        plan = build(CURRENT)
        proven_info = prove(plan)
    except EngineError as err:
        raise EngineError(
            f"{info.backend_version} cannot build an engine of {info.model} that {gpu_label} runs: {refused}; "
            f"{CURRENT}: {err.message}. "
            f"Install TensorRT itself, which is preferred: {pip_install('tensorrt')}; or use --backend cuda"
        ) from err
    logger.warning("%s: the engine for %s runs", gpu_label, CURRENT)
    return plan, replace(proven_info, refused=refused)
