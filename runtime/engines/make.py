"""Describe, build and prove one engine of one backend."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import ConfigError, EngineError, ModelError
from ..fetch import sha256_of
from ..graphs.prepare import BODY, prepare_graph
from ..modelspec import ModelSpec
from ..modelstore import mistaken_for
from .backend import BuildJob
from .backends import backend_of
from .engine import EngineInfo, Quantisation
from .parity import BARS, check_parity, measure_parity, reading_of
from .quantise import quantise

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

# Above the bar of the parity check, because that uses other crops, and the engine will see others again.
_TARGET = BARS["int8"].mean + 0.002


def describe(job: BuildJob) -> EngineInfo:
    """The facts of an engine before its build, without its hash and parity.

    Raises:
        ModelError: the weights do not match the model file.
        ConfigError: the backend does not build this precision.
        MissingDependencyError, EngineError: the backend cannot build on this machine.
    """
    spec, backend = job.spec, job.backend
    if job.precision in backend.refusals:
        raise ConfigError(
            f"the backend {backend.name} does not build {job.precision}: {backend.refusals[job.precision]}"
        )
    return EngineInfo(
        model=spec.name,
        model_sha256=_checked_sha256(spec, job.weights),
        trained=spec.trained,
        dimension=spec.dimension,
        size=spec.size,
        channel_order=spec.channel_order,
        backend=backend.name,
        backend_version=backend.version(job.compute_capability),
        precision=job.precision,
        profile=job.profile,
        device=backend.device(job.compute_capability),
        engine_sha256="",
        tool_version=__version__,
        recipe=f"{spec.input_name!r} = (x - {list(spec.mean)}) / {list(spec.std)}; {spec.output_name!r}",
        int8=Quantisation(calibration=str(job.calibration or "")),
        task=spec.task,
        decode=spec.decode,
    )


def make_engine(job: BuildJob, info: EngineInfo) -> tuple[bytes, EngineInfo]:
    """Build an engine and prove it.

    Args:
        job: the engine to build.
        info: from `describe`.
    Returns:
        The content of the engine file, and its facts.
    Raises:
        ModelError: the weights are damaged or do not match the model file.
        MissingDependencyError, EngineError: the backend cannot build it.
        ParityError: the outputs of the engine differ from those of the model.
    """

    def prove(content: bytes, info: EngineInfo) -> EngineInfo:
        return _prove(job, content, info)

    graph, info = _graph(job, info)
    engine, info = job.backend.build(job, graph, info, prove)
    if info.precision != job.precision:
        raise EngineError(f"the engine of {info.model} was built as {info.precision}; expected: {job.precision}")
    return engine, replace(info, engine_sha256=hashlib.sha256(engine).hexdigest())


def _graph(job: BuildJob, info: EngineInfo) -> tuple[onnx.ModelProto, EngineInfo]:
    """Prepare the graph, and add the facts of its quantisation."""
    scheme = job.backend.scheme if job.precision == "int8" else None
    graph = prepare_graph(job.weights, job.spec, scheme.rest if scheme else job.precision)
    graph = job.backend.adapt(graph)
    if scheme is None:
        return graph, info
    assert job.calibration is not None
    calibration, choice, _ = job.calibration.parts()
    try:
        quantised = quantise(graph, scheme, calibration, choice, _TARGET, reading_of(job.spec))
    except EngineError as err:
        raise EngineError(
            f"{job.spec.name} has no int8 engine for {job.backend.name}: {err.message.removesuffix('.')}. Build "
            f"another precision: facemill build-engine --model {job.spec.name} --backend {job.backend.name} "
            f"--precision {job.backend.usual_precision}"
        ) from err
    left = tuple(name.removeprefix(BODY) for name in quantised.left_float)
    return quantised.model, replace(info, int8=replace(info.int8, method=quantised.method, left_float=left))


def _checked_sha256(spec: ModelSpec, weights: Path) -> str:
    try:
        sha256 = sha256_of(weights)
    except OSError as err:
        raise ModelError(f"the ONNX file {weights} cannot be read: {err.strerror or err}") from err
    if spec.sha256 not in (None, sha256):
        raise ModelError(
            f"{weights} is {mistaken_for(weights)}not the file of the model file {spec.name}: expected sha256 "
            f"{spec.sha256}, got {sha256}. "
            f"Fetch it again with: facemill models fetch {spec.name}"
        )
    return sha256


def _prove(job: BuildJob, engine: bytes, info: EngineInfo) -> EngineInfo:
    """Check the parity of an engine and add it to the facts.

    Raises:
        ParityError: the parity is below the bar.
    """
    crops = job.calibration.parts()[2] if job.calibration else None
    with backend_of(info.backend).open(engine, info) as runner:
        parity = measure_parity(runner, job.spec, job.weights, crops)
    check_parity(parity, job.precision, f"the {info.backend} engine of {info.model}")
    return replace(info, parity=parity)
