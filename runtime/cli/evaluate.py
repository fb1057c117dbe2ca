"""`facemill evaluate`: how good is it?"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ..errors import Interrupted
from ..text import printable
from .common import handle_errors, setup_logging
from .engines import chosen_engine, engine_option, model_options
from .faces import detector_for, face_options, face_rules, is_path, licence_of


@click.command(name="evaluate")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--pairs", type=click.Path(path_type=Path), help="Pairs to judge, in the format of LFW's pairs.txt.")
@engine_option
@model_options
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="ENGINE ENGINE",
    help="Two engines: how far their embeddings are apart, and what that does to the figures.",
)
@click.option("--detectors", metavar="A,B...", help="Several detectors, beside each other, in place of --detector.")
@face_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="REPORT_FOLDER",
    help="Write report.md, report.json, roc.png and scores.png, and keep the embeddings for the next time.",
)
@click.option(
    "--gallery",
    type=click.IntRange(min=1),
    metavar="N",
    help="Thresholds for 0.01, 0.1 and 1 false hits a query in a gallery of N photographs.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="FILE.h5",
    help="Write the impostor scores into an embedding file of the same model: search shows the false hits to expect.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one line of JSON.")
@click.option("--force", is_flag=True, help="Embed anew, and replace what is in the report folder.")
@handle_errors
def main(
    folder: Path,
    pairs: Path | None,
    engine: Path | None,
    model: str | None,
    backend: str,
    compare: tuple[Path, Path] | None,
    output: Path | None,
    gallery: int | None,
    calibrate: Path | None,
    as_json: bool,
    force: bool,
    detectors: str | None,
    align: str,
    detector: str | None,
    **faces: Any,
) -> None:
    """Measure how well faces in FOLDER are recognised: one sub-folder a person, FOLDER/NAME/PHOTOGRAPH.

    The photographs go through the pipeline of facemill process. Reported are the true accept rates at low false
    accept rates, and recall@1, R-Precision and MAP@R; with --pairs, the ten-fold accuracy of the LFW protocol too
    (photographs at FOLDER/NAME/NAME_0001.jpg). A photograph that cannot be embedded counts as a failure.

    \b
    Examples:
      facemill evaluate people/ --model sface
      facemill evaluate lfw/ --pairs lfw/pairs.txt -o report
      facemill evaluate lfw/ --pairs lfw/pairs.txt --compare fp32.onnx int8.onnx
      facemill evaluate lfw/ --pairs lfw/pairs.txt --detectors facemill-det,yunet,scrfd-2.5g
      facemill evaluate people/ --gallery 1000000 --calibrate facial_embeddings.h5

    Exit codes: 0 measured, 1 failure, 2 usage.
    """
    named = [name for name, given in (("--engine", engine), ("--model", model), ("--compare", compare)) if given]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other: each says which engine to evaluate")
    if backend != "auto" and named and named != ["--model"]:
        raise click.UsageError(f"{named[0]} and --backend exclude each other: an engine is built for one backend")
    beside = _names_in(detectors)
    if beside and (compare or calibrate or align == "none"):
        raise click.UsageError("--detectors goes with neither --compare, --calibrate nor --align none")
    if compare and calibrate:
        raise click.UsageError("--compare and --calibrate exclude each other: a file is calibrated by one engine")
    setup_logging()
    rules = face_rules(align, **faces)
    from ..engines.engine import read_engine
    from ..evaluation.attach import attach_calibration, calibration_of, check_file
    from ..evaluation.compare import compare_evaluations as compare_evaluations
    from ..evaluation.detectors import figures_of
    from ..evaluation.embedded import check_folder
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report import Report, as_text, check_report_folder, labels_of, write_report
    from ..interrupt import SignalControl
    from ..metrics.pairs import read_pairs
    from ..pairs.checkpoint import checkpoint_plan_path
    from ..pipeline.plan import begun_with
    from ..pipeline.request import Request
    from ..progress import LiveLine
    from ..storage.contract import EmbeddingContract
    from ..storage.runfolder import utc_now

    judged = None if pairs is None else read_pairs(pairs)
    check_folder(folder, judged)
    if output is not None:
        check_report_folder(output, folder, force=force)
    kept = calibrate or (output and output / ("embeddings-1.h5" if compare else "embeddings.h5"))
    begun = begun_with(kept, force=force and calibrate is None) if kept and not beside else EmbeddingContract()
    engines = (
        tuple(map(read_engine, compare))
        if compare
        else (chosen_engine(engine, model, backend, begun=begun.model or ""),)
    )
    wanted: list[str | None] = [*beside] if beside else [detector]
    on, before = engines[0].info.backend, begun.detector or ""
    finders = [detector_for(name, align, on, begun=before) for name in wanted]
    engines = engines * len(finders)
    finders = finders if beside else finders * len(engines)
    with ExitStack() as stack:
        place = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facemill-evaluate-")))
        names = [_name_of(name) for name in beside] or (["-1", "-2"] if compare else [""])
        files = [place / f"embeddings{name}.h5" for name in names]
        requests = [
            Request((str(folder),), file, one, force=force, faces=rules, detector=finder)
            for file, one, finder in zip(files, engines, finders, strict=True)
        ]
        if calibrate is not None:
            check_file(calibrate, requests[0])
        try:
            with SignalControl() as control:
                evaluations = tuple(
                    evaluate(request, judged, listener=LiveLine(), control=control) for request in requests
                )
        except Interrupted as err:
            if output is not None:
                raise
            raise Interrupted("stopped; what was embedded is not kept without -o REPORT_FOLDER", err.signum) from err
        labels = tuple(beside) or labels_of([engine.path for engine in engines])
        report = Report(
            folder=str(folder),
            pairs=str(pairs or ""),
            labels=labels,
            evaluations=evaluations,
            gallery=gallery,
            comparison=compare_evaluations(*evaluations) if compare else None,
            made_utc=utc_now(),
            detectors=tuple(
                figures_of(name, licence_of(name), one) for name, one in zip(beside, evaluations, strict=bool(beside))
            ),
        )
    if output is not None:
        write_report(output, report)
    if calibrate is not None:
        attach_calibration(
            calibrate, calibration_of(evaluations[0], folder, report.made_utc), checkpoint_plan_path(calibrate)
        )
    if as_json:
        click.echo(json.dumps(report.facts()))
    else:
        for line in as_text(report.tables()):
            click.echo(printable(line))
    for label, one in zip(labels, evaluations, strict=True):
        which = f"{printable(label)}: " if len(labels) > 1 else ""
        for warning in (one.embedded.metadata.get("warning"), one.pairs and one.pairs.warning):
            if warning:
                click.echo(f"WARNING: {which}{warning}", err=True)


def _names_in(detectors: str | None) -> list[str]:
    """The detectors of `--detectors`, each once; none where it is not given."""
    if detectors is None:
        return []
    names = list(dict.fromkeys(name.strip() for name in detectors.split(",") if name.strip()))
    if not names:
        raise click.UsageError(
            f"--detectors is {detectors!r}; wanted: detectors with commas between them, such as facemill-det,yunet"
        )
    return names


def _name_of(detector: str) -> str:
    """What tells a detector's embedding file from the others', whatever their order and number."""
    if not is_path(detector):
        return f"-{detector}"
    place = hashlib.sha256(os.fsencode(os.path.abspath(detector))).hexdigest()[:8]  # names alone may be alike
    return f"-{Path(detector).stem}-{place}"
