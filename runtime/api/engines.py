"""Engines built from models, INT8 ones calibrated on photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import defaults
from ..engines import build as building
from ..engines.build import BuildResult
from ..engines.choose import choose_detector
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
        calibration_seed: of the draw.
        align, detector: how the crops of the calibration are made, as for `process`.
    Raises:
        OptionError: options do not go together.
        ModelError, EngineError, MissingDependencyError: the engine cannot be built.
        ParityError: the engine does not answer like the model; nothing was kept.
    """
    if calibration and precision not in ("int8", "auto"):
        raise OptionError(f"--calibration is for int8 and auto; got: --precision {precision}")
    if precision == "int8" and not calibration:
        raise OptionError("--precision int8 needs some hundreds of photos to calibrate on. Add --calibration PHOTOS")
    spec = load_spec(model or default_model())
    crops = None
    if calibration:
        if spec.detects and detector is not None:
            raise OptionError(
                f"--detector is for the calibration of an embedding model; {spec.name} is a detector, which sees "
                f"photos whole. Leave --detector out"
            )
        crops = gather_calibration(
            calibration,
            spec,
            count=calibration_count,
            seed=calibration_seed,
            align=align,
            detector=None if spec.detects else choose_detector(detector, align=align, backend="cpu"),
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
