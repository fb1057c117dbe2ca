"""build-engine: a model to an engine file and its sidecar, proven equal before it is kept."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..cuda.device import find_gpu
from ..errors import ConfigError, EngineError, MissingDependencyError
from ..extras import available, pip_install, require
from ..modelspec import ModelSpec
from .calibrate import CalibrationSet, side_of
from .engine import Engine, EngineInfo, locked, read_engine, sidecar_path, write_engine
from .make import Job, describe, make_engine
from .rate import measure_rates
from .tensorrt.build import CURRENT

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "cpu", "cuda", "tensorrt")
PRECISIONS = ("auto", "fp32", "fp16", "int8")
_CPU_PROFILE, _GPU_PROFILE, _DETECTOR_PROFILE = (1, 8, 256), (1, 256, 512), (1, 16, 32)
_CLEARLY = 1.05  # INT8 is a little less exact: it has to be worth it
_FOUND_OUT = {  # by the making of an engine
    "engine_sha256", "parity_images", "parity_min", "parity_mean", "context_bytes", "refused",
    "calibration_method", "left_float",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What build_engine did.

    Attributes:
        engine: the engine, on disk.
        built: False when the engine was there and up to date.
        reason: why it was built or not, and why `auto` fell back if it did.
    """

    engine: Engine
    built: bool
    reason: str

    @property
    def sidecar(self) -> Path:
        """The file that describes the engine."""
        return sidecar_path(self.engine.path)

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        files = {"engine": str(self.engine), "sidecar": str(self.sidecar)}
        return {**files, "built": self.built, "reason": self.reason, **asdict(self.engine.info)}


def build_engine(
    spec: ModelSpec,
    weights: Path,
    *,
    backend: str = "auto",
    precision: str = "auto",
    batch: tuple[int, int, int] | None = None,
    output: Path,
    force: bool = False,
    compute_capability: str | None = None,
    calibration: CalibrationSet | None = None,
) -> BuildResult:
    """Build an engine, or find it up to date.

    Args:
        spec: the model file.
        weights: its ONNX file.
        backend: "cpu", "cuda", "tensorrt"; "auto" takes the fastest that this machine runs, and says why it fell back.
        precision: "fp32", "fp16", "int8"; "auto" is fp32 on the CPU and fp16 on a GPU; with `calibration` int8 is built
            too, and the one taken that this machine runs faster.
        batch: (min, opt, max) batch sizes; None: 1, 8, 256 on the CPU and 1, 256, 512 on a GPU.
        output: folder for the engine, created.
        force: build although an engine from the same inputs is there.
        compute_capability: e.g. "SM75", for tensorrt: build for a GPU that need not be here.
        calibration: real crops, for int8 and auto.
    Raises:
        ConfigError: an option is wrong.
        ModelError: the weights are damaged or not the ones that the model file states.
        MissingDependencyError, EngineError: the backend cannot build it, or the folder cannot be written.
        ParityError: the engine does not answer like the model; nothing was kept.
    """
    _check_options(backend, precision, batch, compute_capability)
    _check_calibration(calibration, precision, spec, compute_capability)
    candidates, skipped = _candidates(compute_capability, precision) if backend == "auto" else ([backend], [])

    def made(candidate: str, kind: str) -> BuildResult:
        on_cpu = candidate == "cpu"
        job = Job(
            spec=spec,
            weights=weights,
            backend=candidate,
            precision=kind,
            profile=batch or (_CPU_PROFILE if on_cpu else _DETECTOR_PROFILE if spec.detector else _GPU_PROFILE),
            compute_capability=compute_capability,
            calibration=calibration if kind == "int8" else None,
        )
        return _build_or_find(job, output, force)

    def attempt(candidate: str) -> BuildResult:
        usual = "fp32" if candidate == "cpu" else "fp16"
        if precision == "auto" and calibration is not None and candidate != "cuda":
            result = _faster(lambda kind: made(candidate, kind), usual, side_of(spec))
        else:
            result = made(candidate, usual if precision == "auto" else precision)
        if candidate == "cuda" and calibration is not None:
            result = replace(result, reason=f"{result.reason}; int8 was not tried: ONNX Runtime has none on a GPU")
        why = f"; auto fell back to {candidate} ({'; '.join(skipped)})" if skipped else ""
        return replace(result, reason=result.reason + why)

    *preferred, last = candidates
    for candidate in preferred:
        try:
            return attempt(candidate)
        except (EngineError, MissingDependencyError) as err:
            logger.warning("backend auto: %s does not work here: %s", candidate, err.message)
            skipped.append(f"{candidate}: {err.message}")
    return attempt(last)


def _check_options(
    backend: str, precision: str, batch: tuple[int, int, int] | None, compute_capability: str | None
) -> None:
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}; wanted: {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; wanted: {', '.join(PRECISIONS)}")
    if batch is not None and not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise ConfigError(f"batch sizes {batch} are out of order; wanted: 1 <= MIN <= OPT <= MAX")
    if compute_capability is not None and backend not in ("auto", "tensorrt"):
        raise ConfigError(
            f"compute capability {compute_capability} was given with the backend {backend}; it means something to "
            f"tensorrt alone. Use --backend tensorrt"
        )
    if compute_capability == CURRENT:
        raise ConfigError(f"compute capability {CURRENT} is this machine's own. Leave --compute-capability out for it")


def _faster(made: Callable[[str], BuildResult], usual: str, side: int) -> BuildResult:
    """INT8 if it answers like the model and is faster on this machine, else the usual precision."""
    plain = made(usual)
    try:
        int8 = made("int8")
        before, after = measure_rates([plain.engine, int8.engine], side)
    except EngineError as err:  # a ParityError is one
        return replace(plain, reason=f"{plain.reason}; auto took {usual}, for int8 does not do here: {err.message}")
    result, kind = (int8, "int8") if after > _CLEARLY * before else (plain, usual)
    return replace(
        result, reason=f"{result.reason}; auto took {kind}: int8 {after:,.0f} images/s, {usual} {before:,.0f}"
    )


def _check_calibration(
    calibration: CalibrationSet | None, precision: str, spec: ModelSpec, compute_capability: str | None
) -> None:
    if precision not in ("int8", "auto") and calibration is not None:
        raise ConfigError(
            f"photographs to calibrate on were given with the precision {precision}; they mean something to int8 and "
            f"auto alone. Use --precision int8"
        )
    if precision == "auto" and calibration is not None and compute_capability is not None:
        raise ConfigError(
            f"precision auto takes what is faster, and an engine for {compute_capability} cannot be timed here. Use "
            f"--precision int8 or fp16"
        )
    if precision == "int8" and calibration is None:
        raise ConfigError(
            "int8 was asked for without photographs to calibrate on; wanted: some hundreds like those to come. "
            "Name them with --calibration PHOTOS"
        )
    wanted = (side_of(spec), side_of(spec), 3)
    if calibration is not None and calibration.crops.shape[1:] != wanted:
        raise ConfigError(f"the calibration crops are {calibration.crops.shape[1:]}; wanted by {spec.name}: {wanted}")


def _candidates(compute_capability: str | None, precision: str) -> tuple[list[str], list[str]]:
    """The backends that `auto` tries, in order, and why it leaves others out."""
    if compute_capability is not None:
        return ["tensorrt"], []
    if find_gpu() is None:
        return ["cpu"], ["no NVIDIA GPU with a driver was found"]
    found, skipped = [], []
    if available("tensorrt") or available("tensorrt_rtx"):
        found.append("tensorrt")
    else:
        skipped.append(f"tensorrt: not installed ({pip_install('gpu')})")
    if precision == "int8":
        skipped.append("cuda: ONNX Runtime has no INT8 convolutions on a GPU")
    elif "CUDAExecutionProvider" in require("onnxruntime").get_available_providers():
        found.append("cuda")
    else:
        skipped.append("cuda: the installed onnxruntime has no CUDAExecutionProvider (pip install onnxruntime-gpu)")
    return [*found, "cpu"], [] if found else skipped


def _build_or_find(job: Job, output: Path, force: bool) -> BuildResult:
    wanted = describe(job)
    path = output / _file_name(wanted)
    with locked(output):
        reason = "forced" if force else _stale(path, wanted)
        if not reason:
            return BuildResult(read_engine(path), False, "up to date")
        engine = write_engine(path, *make_engine(job, wanted))
    logger.info("built %s: %s", path, reason)
    return BuildResult(engine, True, reason)


def _file_name(info: EngineInfo) -> str:
    """`w600k_mbf.cpu-fp32.onnx`, `w600k_mbf.tensorrt-fp16-sm75.plan`."""
    device = "" if info.device == info.backend else "-" + info.device.lower()
    suffix = "plan" if info.backend == "tensorrt" else "onnx"
    return re.sub(r"[^\w.+-]+", "-", f"{info.model}.{info.backend}-{info.precision}{device}.{suffix}")


def _stale(path: Path, wanted: EngineInfo) -> str:
    """Why the engine has to be built; empty when it is up to date."""
    if not path.exists():
        return "there was no engine"
    try:
        info = read_engine(path).info
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except (EngineError, OSError) as err:
        return f"the engine there cannot be used: {err}"
    if sha256 != info.engine_sha256:
        return "the engine there is not the one that its sidecar describes"
    for name in (field.name for field in fields(EngineInfo) if field.name not in _FOUND_OUT):
        found, want = getattr(info, name), getattr(wanted, name)
        if found != want:
            return f"{name} was {found} and is now {want}"
    return ""
