"""One engine of one backend: what it will be, and the making and proving of it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..cuda.device import find_gpu
from ..errors import ConfigError, EngineError, ModelError
from ..extras import require
from ..graphs.graph import simplify
from ..graphs.half import precision_of
from ..graphs.prelu import without_prelu
from ..graphs.prepare import BODY, prepare_graph
from ..graphs.qdq import CPU, TENSORRT
from ..modelspec import ModelSpec
from ..modelstore import sha256_of
from .calibrate import CalibrationSet
from .engine import EngineInfo
from .ort_runner import OrtRunner
from .parity import BARS, check_parity, measure_parity, weighted
from .quantise import quantise
from .tensorrt.api import import_tensorrt, version_of
from .tensorrt.build import Plan, build_plan, check_plan
from .tensorrt.runner import TensorRTRunner
from .tensorrt.targets import plan_that_runs, target_of

if TYPE_CHECKING:
    import onnx


logger = logging.getLogger(__name__)

# Above the bar that the engine meets next: it is judged by other crops, and used on others again.
_TARGET = BARS["int8"].mean + 0.002


@dataclass(frozen=True, slots=True)
class Job:
    """An engine to make.

    Attributes:
        spec, weights: the model.
        backend: "cpu", "cuda" or "tensorrt".
        precision: "fp32", "fp16" or "int8".
        profile: (min, opt, max) batch sizes.
        compute_capability: e.g. "SM75": for a GPU that need not be here; None: for this machine.
        calibration: crops for int8; None for the others.
    """

    spec: ModelSpec
    weights: Path
    backend: str
    precision: str
    profile: tuple[int, int, int]
    compute_capability: str | None
    calibration: CalibrationSet | None = None


def describe(job: Job) -> EngineInfo:
    """The sidecar of the engine to be, without what only the making finds out: its hash and its parity.

    Raises:
        ModelError: the weights are not those that the model file states.
        ConfigError: the backend does not do this precision.
        MissingDependencyError, EngineError: the backend cannot build here.
    """
    _check_precision(job)
    spec = job.spec
    version = _version(job)
    return EngineInfo(
        model=spec.name,
        model_sha256=_checked_sha256(spec, job.weights),
        trained=spec.trained,
        dimension=spec.dimension,
        size=spec.size,
        channel_order=spec.channel_order,
        backend=job.backend,
        backend_version=version,
        precision=job.precision,
        profile=job.profile,
        device=_device(job, version),
        engine_sha256="",
        parity_images=0,
        parity_min=0.0,
        parity_mean=0.0,
        tool_version=__version__,
        recipe=f"{spec.input_name!r} = (x - {list(spec.mean)}) / {list(spec.std)}; {spec.output_name!r}",
        calibration=str(job.calibration or ""),
        detector=spec.detector,
    )


def make_engine(job: Job, info: EngineInfo) -> tuple[bytes, EngineInfo]:
    """Build an engine and prove it.

    Args:
        job: what to make.
        info: from `describe`.
    Returns:
        The engine file's content, and its sidecar.
    Raises:
        ModelError: the weights are damaged or not what the model file says.
        MissingDependencyError, EngineError: the backend cannot build it.
        ParityError: the engine does not answer like the model.
    """
    graph, info = _graph(job, info)
    if job.backend == "tensorrt":
        engine, info = _make_tensorrt(job, graph, info)
    else:
        engine, info = _make_onnx(job, graph, info)
    if info.precision != job.precision:
        raise EngineError(f"the engine of {info.model} came out as {info.precision}; wanted: {job.precision}")
    return engine, replace(info, engine_sha256=hashlib.sha256(engine).hexdigest())


def _check_precision(job: Job) -> None:
    if job.backend == "cpu" and job.precision == "fp16":
        raise ConfigError(
            "the backend cpu does not build fp16: ONNX Runtime computes in fp32 there, so it would only be slower and "
            "less exact. Use --precision fp32"
        )
    if job.backend == "cuda" and job.precision == "int8":
        raise ConfigError(
            "the backend cuda does not build int8: ONNX Runtime has no INT8 convolutions on a GPU. "
            "Use --backend tensorrt or cpu"
        )


def _graph(job: Job, info: EngineInfo) -> tuple[onnx.ModelProto, EngineInfo]:
    """The graph to build from, and the sidecar with what quantising it found out."""
    scheme, rest = (TENSORRT, "fp16") if job.backend == "tensorrt" else (CPU, "fp32")
    graph = prepare_graph(job.weights, job.spec, rest if job.precision == "int8" else job.precision)
    if job.backend == "cpu":
        graph = without_prelu(graph)
    if job.precision != "int8":
        return graph, info
    assert job.calibration is not None
    calibration, choice, _ = job.calibration.parts()
    done = quantise(graph, scheme, calibration, choice, _TARGET, weighted if job.spec.detector else None)
    left = tuple(name.removeprefix(BODY) for name in done.left_float)
    return done.model, replace(info, calibration_method=done.method, left_float=left)


def _version(job: Job) -> str:
    """E.g. "onnxruntime 1.32.0"."""
    if job.backend == "tensorrt":
        return version_of(import_tensorrt(job.compute_capability))
    return f"onnxruntime {require('onnxruntime').__version__}"


def _device(job: Job, version: str) -> str:
    """What the engine is for: a compute capability, this machine's GPU, or what the backend builds for by default."""
    if job.backend != "tensorrt":
        return job.backend
    gpu = find_gpu()
    return target_of(job.compute_capability, version) or (gpu.name if gpu else "default set")


def _checked_sha256(spec: ModelSpec, weights: Path) -> str:
    try:
        found = sha256_of(weights)
    except OSError as err:
        raise ModelError(f"the ONNX file {weights} cannot be read: {err.strerror or err}") from err
    if spec.sha256 not in (None, found):
        raise ModelError(
            f"{weights} is not the file that the model file {spec.name} states: its sha256 is {found}, wanted "
            f"{spec.sha256}. Fetch it again with: facemill models fetch {spec.name}"
        )
    return found


def _make_onnx(job: Job, graph: onnx.ModelProto, info: EngineInfo) -> tuple[bytes, EngineInfo]:
    if job.backend == "cpu" and job.precision != "int8":
        # Not for cuda: ONNX Runtime fuses for the provider that it optimises with, and does the rest when it loads.
        # Not for int8: what it makes of Q/DQ depends on the processor.
        graph = simplify(graph, f"the graph made from {job.weights}", extended=True)
    engine = graph.SerializeToString(deterministic=True)
    return engine, _proven(job, engine, replace(info, precision=precision_of(graph)))


def _make_tensorrt(job: Job, graph: onnx.ModelProto, info: EngineInfo) -> tuple[bytes, EngineInfo]:
    """A plan: its graph is proven on the CPU, and the plan itself where a GPU can run it."""
    content = graph.SerializeToString(deterministic=True)
    graph_info = _proven(job, content, replace(info, backend="cpu"))
    logger.info(
        "its graph on the CPU, over %d crops: cosine minimum %.6f, mean %.6f",
        graph_info.parity_images,
        graph_info.parity_min,
        graph_info.parity_mean,
    )
    trt = import_tensorrt(job.compute_capability)

    def build(target: str | None) -> Plan:
        return build_plan(
            trt,
            content,
            profile=job.profile,
            size=job.spec.size,
            detector=bool(job.spec.detector),
            compute_capability=target,
        )

    def prove(plan: Plan) -> EngineInfo:
        loaded = replace(info, precision=plan.precision, context_bytes=check_plan(trt, plan.content))
        return _proven(job, plan.content, loaded)

    plan, info = plan_that_runs(target_of(job.compute_capability, info.backend_version), info, build, prove)
    return plan.content, info


def _proven(job: Job, engine: bytes, info: EngineInfo) -> EngineInfo:
    """The sidecar with the engine's parity, which is above the bar.

    Raises:
        ParityError: it is not.
    """
    runner = TensorRTRunner if info.backend == "tensorrt" else OrtRunner
    crops = job.calibration.parts()[2] if job.calibration else None
    with runner(engine, info) as opened:
        parity = measure_parity(opened, job.spec, job.weights, crops)
    check_parity(parity, job.precision, f"the {info.backend} engine of {info.model}")
    return replace(info, parity_images=parity.images, parity_min=parity.minimum, parity_mean=parity.mean)
