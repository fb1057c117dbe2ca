"""`facemill build-engine`: compile a model into an engine file for this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .. import defaults
from . import groups, options
from .common import handle_errors, print_summary, setup_logging

if TYPE_CHECKING:
    from ..engines.build import BuildResult


def _batch(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int, int] | None:
    """`MIN,OPT,MAX`: three whole numbers from 1, in order."""
    if value is None:
        return None
    try:
        low, best, high = (int(part) for part in value.split(","))
    except ValueError as err:
        raise click.BadParameter(f"{value!r} is not three whole numbers with commas, such as 1,256,512") from err
    if not 1 <= low <= best <= high < 2**31:
        raise click.BadParameter(f"{value!r} is out of order; expected: 1 <= MIN <= OPT <= MAX < 2**31")
    return low, best, high


@click.command(name="build-engine")
@groups.model_option
@groups.backend_option
@groups.precision_option
@click.option("--calibration", multiple=True, metavar="PHOTOS", help="Folder, file or @list to calibrate int8 on.")
@click.option(
    "--calibration-count",
    type=options.Count(64),
    default=defaults.CALIBRATION_COUNT,
    show_default=True,
    help="Number of photos to calibrate on.",
)
@options.seed_option(2**32 - 1, "Random seed of the sample.", "--calibration-seed")
@groups.detector_options
@click.option("--batch", callback=_batch, metavar="MIN,OPT,MAX", help="Batch sizes.  [1,8,256 or, on a GPU, 1,256,512]")
@click.option("--compute-capability", metavar="SMxx", help="Build for another GPU, such as SM75. Needs the extra rtx.")
@click.option("--output", default=defaults.ENGINES, show_default=True, type=options.PATH, help="Folder for the engine.")
@options.force_option("Build even if the engine is up to date.")
@options.json_option
@handle_errors
def main(detection: groups.DetectorOptions, as_json: bool, **given: Any) -> None:
    """Build an engine: the model compiled for this machine, in one file, and a JSON file that describes it.

    The engine is compared with the FP32 graph of the model before it is kept. The same command a second time finds it
    up to date and writes nothing.

    An int8 engine is calibrated on your photos: half of the sample gives the ranges, a quarter decides on the method
    and on the layers that stay in float, and the engine is compared on the last quarter. The crops of the sample are
    made as process makes them, by --align, --detector and --landmarks. A detector sees the photos whole, a landmark
    network the squares of faces.

    \b
    Examples:
      facemill build-engine
      facemill build-engine --model sface --backend cpu --output engines
      facemill build-engine --calibration photos/                            # int8, if it is faster here
      facemill build-engine --precision int8 --calibration photos/
      facemill build-engine --model scrfd-2.5g --calibration photos/         # a detector, for process --detector
      facemill build-engine --backend tensorrt --batch 1,256,512
      facemill build-engine --backend tensorrt --compute-capability SM75     # for an RTX 2060, built anywhere

    Exit codes: 0 built or up to date, 1 failure, 2 usage.
    """
    setup_logging()
    from ..api.engines import build_engine

    result = build_engine(**detection.values(), **given)
    report = json.dumps(result.to_dict()) if as_json else "\n".join(_report(result))
    print_summary(report, f"the engine {result.engine.path} is built")


def _report(result: BuildResult) -> Iterator[str]:
    info = result.engine.info
    yield f"engine:  {result.engine}"
    yield f"sidecar: {result.sidecar}"
    yield f"built:   {result.reason}" if result.built else result.reason
    yield f"what:    {info.model}, {info.precision}, {info.backend_version}, batch {','.join(map(str, info.profile))}"
    if info.int8.calibration:
        left = ", ".join(info.int8.left_float) or "no layer"
        yield f"int8:    calibrated on {info.int8.calibration}, by {info.int8.method}; in float: {left}"
    if info.parity.images:
        cosines = f"minimum {info.parity.minimum:.6f}, mean {info.parity.mean:.6f}"
        yield f"parity:  cosine to the FP32 graph over {info.parity.images} crops: {cosines}"
    else:
        yield f"parity:  not run: this machine has no GPU for {info.device}; its graph was compared on the CPU"
    if not info.trained:
        yield "WARNING: random weights: these embeddings identify nobody"
