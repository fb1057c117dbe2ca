"""`facemill evaluate`: measure how well people are recognised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..text import printable
from . import groups, options
from .common import handle_errors, print_summary, setup_logging, terminal

_NO_IDENTITIES = "its labels say nothing about who is who"
_ONE_ENGINE = "each says which engine to evaluate"


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The detectors of `--detectors`, each once; none if it is not given."""
    names = dict.fromkeys(name.strip() for name in (value or "").split(",") if name.strip())
    if value is not None and not names:
        raise click.BadParameter(f"{value!r} names no detector; expected: names such as facemill-det,yunet", ctx, param)
    return tuple(names)


@click.command(name="evaluate")
@click.argument("folder", type=options.PATH)
@click.option("--pairs", type=options.PATH, help="File with pairs to judge, in the format of LFW's pairs.txt.")
@groups.engine_options
@click.option("--compare", nargs=2, type=options.PATH, metavar="ENGINE ENGINE", help="Two engine files to compare.")
@click.option("--detectors", metavar="A,B...", callback=_names, help="Detectors to compare, separated by commas.")
@groups.face_options
@click.option("-o", "--output", type=options.PATH, metavar="FOLDER", help="Folder for the report and the embeddings.")
@click.option("--gallery", type=options.Count(), help="Report thresholds for a gallery of this number of photos.")
@click.option(
    "--calibrate",
    type=options.PATH,
    metavar="FILE.h5",
    help="Write the impostor scores into this embedding file of the same model: search then shows false hits to "
    "expect.",
)
@click.option("--attributes", "labels", type=options.PATH, metavar="CSV", help="Measure age and gender instead.")
@options.json_option
@options.force_option("Embed again, and replace what is in the report folder.")
@options.excludes("--compare", "--engine", "--model", why=_ONE_ENGINE)
@options.excludes("--compare", "--backend", "--calibrate", why="an engine is built for one backend and one model")
@options.excludes("--detectors", "--compare", "--calibrate", "--detector", why="each detector is evaluated by itself")
@options.excludes("--attributes", "--pairs", "--compare", "--detectors", "--gallery", "--calibrate", why=_NO_IDENTITIES)
@handle_errors
def main(folder: Path, engine: groups.EngineOptions, faces: groups.FaceOptions, as_json: bool, **given: Any) -> None:
    """Measure how well faces in FOLDER are recognised: one sub-folder per person, FOLDER/NAME/PHOTO.

    The photos go through the pipeline of facemill process. The report has true accept rates at low false accept rates,
    recall@1, R-Precision and MAP@R; with --pairs, also the ten-fold accuracy of the LFW protocol (photos at
    FOLDER/NAME/NAME_0001.jpg). A photo that cannot be embedded counts as a failure. --gallery adds the thresholds for
    0.01, 0.1 and 1 false hits per query. --attributes measures age and gender against a CSV with the columns path,
    age and gender (docs/attributes.md).

    \b
    Examples:
      facemill evaluate people/ --model sface
      facemill evaluate lfw/ --pairs lfw/pairs.txt -o report
      facemill evaluate lfw/ --pairs lfw/pairs.txt --compare fp32.onnx int8.onnx
      facemill evaluate lfw/ --pairs lfw/pairs.txt --detectors facemill-det,yunet,scrfd-2.5g
      facemill evaluate people/ --gallery 1000000 --calibrate facial_embeddings.h5
      facemill evaluate photos/ --attributes labels.csv

    Exit codes: 0 measured, 1 failure, 2 usage.
    """
    if given["detectors"] and faces.align == "none":
        raise click.UsageError("--detectors and --align none exclude each other: no detector would be used")
    setup_logging()
    from ..api.evaluation import evaluate, evaluate_attributes
    from ..evaluation.report import Report, as_text

    given = {name: value for name, value in given.items() if value} | engine.values()
    given |= {"detector": faces.detector, "faces": faces.rules()}
    with terminal() as job:
        report = (evaluate_attributes if "labels" in given else evaluate)(folder, **job, **given)
    text = json.dumps(report.to_dict()) if as_json else "\n".join(map(printable, as_text(report.tables())))
    print_summary(text, "the evaluation is finished and its files are written")
    for label, evaluation in zip(report.labels, report.evaluations, strict=True) if isinstance(report, Report) else ():
        name = f"{printable(label)}: " if len(report.labels) > 1 else ""
        for warning in (evaluation.embedded.metadata.get("warning"), evaluation.pairs and evaluation.pairs.warning):
            if warning:
                click.echo(f"WARNING: {name}{warning}", err=True)
