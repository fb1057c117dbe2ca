"""`facemill build-engine`: a model to an engine file for this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import handle_errors, setup_logging
from .engines import model_options
from .faces import detector_for, detector_options

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
    if not 1 <= low <= best <= high:
        raise click.BadParameter(f"{value!r} is out of order; wanted 1 <= MIN <= OPT <= MAX")
    return low, best, high


@click.command(name="build-engine")
@model_options
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="auto: fp32 on the CPU, fp16 on a GPU; with --calibration int8, if that is faster here. int8 wants "
    "--calibration.",
)
@click.option(
    "--calibration",
    multiple=True,
    metavar="PHOTOS",
    help="Calibrate int8, for --precision int8 or auto, on a sample of these: a folder, a file or @list.txt. May be "
    "given several times.",
)
@click.option(
    "--calibration-count", type=click.IntRange(min=64), default=512, show_default=True, help="Size of the sample."
)
@click.option(
    "--calibration-seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=0,
    show_default=True,
    help="Another one draws another sample.",
)
@detector_options
@click.option(
    "--batch", callback=_batch, metavar="MIN,OPT,MAX", help="Batch sizes. [1,8,256 on the CPU, 1,256,512 on a GPU]"
)
@click.option(
    "--compute-capability",
    metavar="SMxx",
    help="Build a TensorRT engine for another GPU: SM75 for an RTX 2060, say. Needs the extra rtx.",
)
@click.option(
    "--output", default="engines", show_default=True, type=click.Path(path_type=Path), help="Folder for the engine."
)
@click.option("--force", is_flag=True, help="Build although the engine is up to date.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON on stdout.")
@handle_errors
def main(
    model: str | None,
    backend: str,
    precision: str,
    calibration: tuple[str, ...],
    calibration_count: int,
    calibration_seed: int,
    align: str,
    detector: str | None,
    batch: tuple[int, int, int] | None,
    compute_capability: str | None,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Build an engine: the model made ready for this machine, in one file with a sidecar that describes it.

    The engine is compared with the model's own FP32 graph before it is kept. The same command a second time finds
    it up to date and writes nothing.

    An int8 engine is calibrated on photographs of yours: half of the sample gives the ranges, a quarter decides on the
    method and on the layers that stay in float, and the engine is compared on the last quarter. The crops of the sample
    are made as process makes them: --align and --detector are for that. A detector sees the photographs whole.

    \b
    Examples:
      facemill build-engine
      facemill build-engine --model sface --backend cpu --output engines
      facemill build-engine --calibration photos/                            # int8, if it is faster here
      facemill build-engine --precision int8 --calibration photos/
      facemill build-engine --model scrfd-2.5g --calibration photos/         # a detector, for process --detector
      facemill build-engine --backend tensorrt --batch 1,256,512
      facemill build-engine --backend tensorrt --compute-capability SM75     # for an RTX 2060, built anywhere
      facemill build-engine --model my_model.toml --json

    Exit codes: 0 built or up to date, 1 failure, 2 usage.
    """
    if calibration and precision not in ("int8", "auto"):
        raise click.UsageError(
            f"--calibration means something to int8 and auto alone; --precision is {precision}, wanted: one of those"
        )
    if precision == "int8" and not calibration:
        raise click.UsageError(
            "--precision int8 wants photographs to calibrate on, some hundreds like those to come; wanted beside it: "
            "--calibration PHOTOS"
        )
    setup_logging()
    from ..engines.build import build_engine
    from ..engines.engine import sidecar_path
    from ..engines.weights import weights_for
    from ..modelspec import load_spec
    from ..modelstore import default_model

    spec = load_spec(model or default_model())
    crops = None
    if calibration:
        from ..pipeline.calibration import gather_calibration

        if spec.detects and detector is not None:
            raise click.UsageError(
                f"--detector looks for the faces that an embedding model is calibrated on; {spec.name} is a detector "
                f"and sees photographs whole. Leave --detector out"
            )
        crops = gather_calibration(
            calibration,
            spec,
            count=calibration_count,
            seed=calibration_seed,
            align=align,
            detector=None if spec.detects else detector_for(detector, align, "cpu"),
        )
    result = build_engine(
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
    if as_json:
        answer = {"engine": str(result.engine), "sidecar": str(sidecar_path(result.engine.path)), "built": result.built}
        click.echo(json.dumps({**answer, "reason": result.reason, **result.engine.info.to_dict()}))
        return
    click.echo(f"engine:  {result.engine}\nsidecar: {sidecar_path(result.engine.path)}")
    click.echo(_report(result))


def _report(result: BuildResult) -> str:
    """What was done and how equal it proved, for a person."""
    info = result.engine.info
    if info.parity.images:
        parity = (
            f"cosine to the FP32 graph over {info.parity.images} crops: minimum {info.parity.minimum:.6f}, "
            f"mean {info.parity.mean:.6f}"
        )
    else:
        parity = f"not run: this machine has no GPU for {info.device}; its graph was compared on the CPU"
    lines = [
        f"built:   {result.reason}" if result.built else result.reason,
        f"what:    {info.model}, {info.precision}, {info.backend_version}, batch {','.join(map(str, info.profile))}",
        f"parity:  {parity}",
    ]
    if info.int8.calibration:
        left = ", ".join(info.int8.left_float) or "no layer"
        lines.insert(2, f"int8:    calibrated on {info.int8.calibration}, by {info.int8.method}; in float: {left}")
    if not info.trained:
        lines.append("WARNING: random weights: these embeddings identify nobody")
    return "\n".join(lines)
