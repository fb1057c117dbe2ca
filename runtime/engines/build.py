"""Build engines: a model to an engine file and its sidecar. An engine is stored after it passed the parity check."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cuda.device import find_gpu
from ..errors import ConfigError, EngineError, FacemillError, MissingDependencyError
from ..fetch import sha256_of
from ..modelspec import ModelSpec, load_spec
from ..outputs import refuse_inputs
from .backend import PRECISIONS, Backend, BuildJob, Profile
from .backends import BACKENDS, backend_of, find_fault
from .calibrate import CalibrationSet, side_of
from .engine import Engine, EngineInfo, lock_folder, read_engine, sidecar_path, write_engine
from .make import describe, make_engine
from .rate import measure_rates
from .weights import weights_for

logger = logging.getLogger(__name__)

_MIN_SPEEDUP_INT8 = 1.05  # INT8 is slightly less exact, so it must be this much faster
_BUILD_RESULTS = {  # facts that are known only after the build
    "engine_sha256", "parity_images", "parity_min", "parity_mean", "context_bytes", "refused",
    "calibration_method", "left_float",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The result of `build_engine`.

    Attributes:
        engine: the engine on disk.
        built: False if an existing engine was up to date.
        reason: why it was built or not, and why `auto` fell back, if it did.
    """

    engine: Engine
    built: bool
    reason: str

    @property
    def sidecar(self) -> Path:
        """The sidecar of the engine."""
        return sidecar_path(self.engine.path)

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        files = {"engine": str(self.engine), "sidecar": str(self.sidecar)}
        return {**files, "built": self.built, "reason": self.reason, **self.engine.info.to_dict()}


def build_engine(
    spec: ModelSpec,
    weights: Path,
    *,
    backend: str = "auto",
    precision: str = "auto",
    batch: Profile | None = None,
    output: Path,
    force: bool = False,
    compute_capability: str | None = None,
    calibration: CalibrationSet | None = None,
) -> BuildResult:
    """Build an engine, unless an existing one is up to date.

    Args:
        spec: the model file.
        weights: its ONNX file.
        backend: name of one of BACKENDS; "auto" takes the fastest that works on this machine.
        precision: one of PRECISIONS; "auto" takes fp32 on the CPU and fp16 on a GPU. With `calibration` it builds int8
            too, and takes the faster one.
        batch: minimum, optimum and maximum batch size; None: the defaults of the backend.
        output: folder of the engine; created if missing.
        force: build even if an existing engine is up to date.
        compute_capability: e.g. "SM75", for tensorrt: build for a GPU that this machine need not have.
        calibration: real crops, for int8 and auto.
    Raises:
        ConfigError: an option is wrong.
        ModelError: the weights are damaged or do not match the model file.
        MissingDependencyError, EngineError: the backend cannot build it, or the folder cannot be written.
        ParityError: the outputs of the engine differ from those of the model; nothing is stored.
    """
    _check_options(backend, precision, batch, compute_capability)
    _check_calibration(calibration, precision, spec, compute_capability)
    candidates, skipped = (
        _candidates(compute_capability, precision) if backend == "auto" else ([backend_of(backend)], [])
    )

    def build(candidate: Backend, kind: str) -> BuildResult:
        job = BuildJob(
            spec=spec,
            weights=weights,
            backend=candidate,
            precision=kind,
            profile=batch or candidate.profile(spec.task),
            compute_capability=compute_capability,
            calibration=calibration if kind == "int8" else None,
        )
        return _build_or_find(job, output, force)

    def attempt(candidate: Backend) -> BuildResult:
        usual, refusal = candidate.usual_precision, candidate.refusals.get("int8")
        if precision == "auto" and calibration is not None and refusal is None:
            result = _build_faster(lambda kind: build(candidate, kind), usual, side_of(spec))
        else:
            result = build(candidate, usual if precision == "auto" else precision)
        if calibration is not None and refusal is not None:
            result = replace(result, reason=f"{result.reason}; int8 was not tried: {refusal}")
        fallback = f"; auto fell back to {candidate.name} ({'; '.join(skipped)})" if skipped else ""
        return replace(result, reason=result.reason + fallback)

    *preferred, last = candidates
    for candidate in preferred:
        try:
            return attempt(candidate)
        except (EngineError, MissingDependencyError) as err:
            logger.warning("backend auto: %s does not work on this machine: %s", candidate.name, err.message)
            skipped.append(f"{candidate.name}: {err.message}")
    return attempt(last)


def rebuild_if_stale(engine: Engine) -> Engine:
    """Return the engine if this machine can run it; else rebuild it in the same folder.

    Args:
        engine: the engine. A TensorRT engine runs on one version and one kind of GPU; those of ONNX Runtime are never
            stale.
    Returns:
        The engine to use. It may be another file, because file names contain the target.
    Raises:
        EngineError: the engine is stale and cannot be rebuilt.
    """
    info = engine.info
    reason = backend_of(info.backend).why_stale(engine)
    if not reason:
        return engine
    logger.warning("the engine %s cannot be used: %s. Rebuilding it", engine, reason)
    try:
        if info.precision == "int8":
            raise EngineError("it was calibrated on photos, which only build-engine takes (--calibration)")
        spec = load_spec(info.model)
        result = build_engine(
            spec,
            weights_for(spec),
            backend=info.backend,
            precision=info.precision,
            batch=info.profile,
            output=engine.path.parent,
            force=True,
        )
    except FacemillError as err:
        raise EngineError(
            f"the engine {engine} cannot be used: {reason}; and it cannot be rebuilt: {err.message}. "
            f"Build one with: facemill build-engine --model {info.model} --backend {info.backend} "
            f"--precision {info.precision}" + (" --calibration PHOTOS" if info.precision == "int8" else "")
        ) from err
    return result.engine


def _check_options(backend: str, precision: str, batch: Profile | None, compute_capability: str | None) -> None:
    names = ("auto", *(backend.name for backend in BACKENDS))
    if backend not in names:
        raise ConfigError(f"unknown backend {backend!r}; expected: {', '.join(names)}")
    if precision not in ("auto", *PRECISIONS):
        raise ConfigError(f"unknown precision {precision!r}; expected: auto, {', '.join(PRECISIONS)}")
    if batch is not None and not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise ConfigError(f"batch sizes {batch} are out of order; expected: 1 <= MIN <= OPT <= MAX")
    if compute_capability is None:
        return
    if backend != "auto" and not backend_of(backend).names_targets:
        suitable = next(candidate.name for candidate in BACKENDS if candidate.names_targets)
        raise ConfigError(
            f"compute capability {compute_capability} was given with the backend {backend}, which builds only for "
            f"this machine. Use --backend {suitable}"
        )
    if compute_capability == "CURRENT":  # TensorRT-RTX's name
        raise ConfigError("compute capability CURRENT is that of this machine. Leave out --compute-capability for it")


def _build_faster(build: Callable[[str], BuildResult], usual: str, side: int) -> BuildResult:
    """Build the usual precision and INT8. Return INT8 if it passes the parity check and is faster here."""
    plain = build(usual)
    try:
        int8 = build("int8")
        usual_rate, int8_rate = measure_rates([plain.engine, int8.engine], side)
    except EngineError as err:  # a ParityError is one
        return replace(plain, reason=f"{plain.reason}; auto took {usual}, because int8 failed: {err.message}")
    result, kind = (int8, "int8") if int8_rate > _MIN_SPEEDUP_INT8 * usual_rate else (plain, usual)
    return replace(
        result,
        reason=f"{result.reason}; auto took {kind}: int8 {int8_rate:,.0f} images/s, {usual} {usual_rate:,.0f}",
    )


def _check_calibration(
    calibration: CalibrationSet | None, precision: str, spec: ModelSpec, compute_capability: str | None
) -> None:
    if precision not in ("int8", "auto") and calibration is not None:
        raise ConfigError(
            f"--calibration was given with the precision {precision}; only int8 and auto use it. Use --precision int8"
        )
    if precision == "auto" and calibration is not None and compute_capability is not None:
        raise ConfigError(
            f"precision auto compares speeds, and an engine for {compute_capability} cannot run here. Use "
            f"--precision int8 or fp16"
        )
    if precision == "int8" and calibration is None:
        raise ConfigError(
            "--precision int8 needs photos for calibration; expected: some hundreds of typical photos. "
            "Name them with --calibration PHOTOS"
        )
    expected = (side_of(spec), side_of(spec), 3)
    if calibration is not None and calibration.crops.shape[1:] != expected:
        raise ConfigError(
            f"the calibration crops are {calibration.crops.shape[1:]}; expected by {spec.name}: {expected}"
        )


def _candidates(compute_capability: str | None, precision: str) -> tuple[list[Backend], list[str]]:
    """The backends that `auto` tries, in order, and the reasons why it skips others.

    The last one is always tried, so that the user sees its own error.
    """
    if compute_capability is not None:
        return [backend for backend in BACKENDS if backend.names_targets], []
    if find_gpu() is None:
        return [backend for backend in BACKENDS if not backend.on_gpu], ["no NVIDIA GPU with a driver was found"]
    *preferred, last = BACKENDS
    usable, skipped = [], []
    for backend in preferred:
        fault = find_fault(backend)
        if precision in backend.refusals:
            skipped.append(f"{backend.name}: {backend.refusals[precision]}")
        elif fault is not None:
            skipped.append(f"{backend.name}: {fault.reason} ({fault.fix})")
        else:
            usable.append(backend)
    return [*usable, last], [] if usable else skipped


def _build_or_find(job: BuildJob, output: Path, force: bool) -> BuildResult:
    expected = describe(job)
    path = output / _file_name(expected, job.backend.suffix)
    refuse_inputs(path, [job.weights], other="another folder with --output")
    with lock_folder(output):
        reason = "forced" if force else _why_stale(path, expected)
        if not reason:
            return BuildResult(read_engine(path), False, "up to date")
        engine = write_engine(path, *make_engine(job, expected))
    logger.info("built %s: %s", path, reason)
    return BuildResult(engine, True, reason)


def _file_name(info: EngineInfo, suffix: str) -> str:
    """`w600k_mbf.cpu-fp32.onnx`, `w600k_mbf.tensorrt-fp16-sm75.plan`."""
    device = "" if info.device == info.backend else "-" + info.device.lower()
    return re.sub(r"[^\w.+-]+", "-", f"{info.model}.{info.backend}-{info.precision}{device}.{suffix}")


def _why_stale(path: Path, expected: EngineInfo) -> str:
    """Why an engine must be built; empty if it is up to date."""
    if not path.exists():
        return "there was no engine"
    try:
        info = read_engine(path).info
        sha256 = sha256_of(path)
    except (EngineError, OSError) as err:
        return f"the existing engine cannot be used: {err}"
    if sha256 != info.engine_sha256:
        return "the existing engine does not match its sidecar"
    before, now = info.to_dict(), expected.to_dict()
    for name in (name for name in now if name not in _BUILD_RESULTS):
        if before[name] != now[name]:
            return f"{name} was {before[name]} and is now {now[name]}"
    return ""
