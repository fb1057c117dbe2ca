"""Build engines from models, and calibrate INT8 engines on photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import defaults
from ..engines import build as building
from ..engines.build import BuildResult
from ..engines.choose import choose_detector, choose_landmarks
from ..engines.weights import weights_for
from ..errors import OptionError
from ..modelspec import load_spec
from ..modelstore import default_model
from .calibration import gather_calibration


def build_engine(
    model: str | None = None,
    *,
    backend: str = "auto",
    precision: str = "auto",
    calibration: Sequence[str] = (),
    calibration_count: int = defaults.CALIBRATION_COUNT,
    calibration_seed: int = 0,
    align: str = defaults.ALIGN,
    detector: str | None = None,
    landmarks: str | None = None,
    batch: tuple[int, int, int] | None = None,
    compute_capability: str | None = None,
    output: Path = Path(defaults.ENGINES),
    force: bool = False,
) -> BuildResult:
    """Build an engine, or find it up to date.

    Args:
        model: a registered name or a model file (`PATH.toml`); None for the default of this machine.
        backend, precision, batch, compute_capability, output, force: see `engines.build.build_engine`.
        calibration: folders, files and @lists to calibrate INT8 on; empty for none.
        calibration_count: photos of the calibration.
        calibration_seed: random seed of the sample.
        align, detector, landmarks: options that make the crops of the calibration, as for `process`.
    Raises:
        OptionError: options exclude each other.
        ModelError, EngineError, MissingDependencyError: the engine cannot be built.
        ParityError: the outputs of the engine differ from the model's; no engine was written.
    """
    if calibration and precision not in ("int8", "auto"):
        raise OptionError(f"--calibration is for int8 and auto; got: --precision {precision}")
    if precision == "int8" and not calibration:
        raise OptionError("--precision int8 needs some hundreds of photos for calibration. Add --calibration PHOTOS")
    spec = load_spec(model or default_model())
    crops = None
    if calibration:
        if spec.detects and detector is not None:
            raise OptionError(
                f"--detector is for the calibration of an embedding model; {spec.name} is a detector, which gets whole "
                f"photos. Leave --detector out"
            )
        crops = gather_calibration(
            calibration,
            spec,
            count=calibration_count,
            seed=calibration_seed,
            align=align,
            detector=None if spec.detects else choose_detector(detector, align=align, backend="cpu"),
            landmarks=choose_landmarks(landmarks, align=align, backend="cpu") if spec.task == "embed" else None,
        )
    return building.build_engine(
        spec,
        weights_for(spec),
        backend=backend,
        precision=precision,
        batch=batch,
        output=output,
        force=force,
        compute_capability=compute_capability,
        calibration=crops,
    )
