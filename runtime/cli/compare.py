"""`facemill compare`: do two photographs show one person?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import printable
from . import options
from .answers import face_json, utf8
from .common import handle_errors, setup_logging
from .engines import chosen_engine, engine_option, given_engine, model_options
from .faces import detector_for, detector_options

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..search.compare import Comparison
    from ..search.embedder import QueryRules

_VERDICTS = {"same": "one person", "different": "two people", "unknown": "no verdict"}


@click.command(name="compare")
@click.argument("photographs", nargs=2, metavar="A B")
@click.option("--file", type=click.Path(path_type=Path), help="Embed as the rows of this file; use its calibration.")
@engine_option
@model_options
@detector_options
@click.option(
    "--threshold", type=float, callback=options.cosine, help="Score from which they show one person (-1 to 1)."
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Also write a page with both photographs.")
@click.option("--force", is_flag=True, help="Replace an existing page.")
@click.pass_context
@handle_errors
def main(
    ctx: click.Context,
    photographs: tuple[str, str],
    file: Path | None,
    engine: Path | None,
    model: str | None,
    backend: str,
    align: str,
    detector: str | None,
    threshold: float | None,
    as_json: bool,
    page: Path | None,
    force: bool,
) -> None:
    """Say whether photographs A and B show one person: score, threshold, verdict, and the false match rate.

    The score is the cosine of two embeddings. They are made as the rows of an embedding file (--file), or by a model,
    the one that `facemill process` takes if none is named. Of several faces the main one is taken: large, and near the
    middle.

    The threshold is that of --threshold; else, where the file carries a calibration, the lowest that 0.1 % of the pairs
    of two people reach; else the one that the model file states. Where there is none, there is no verdict.

    \b
    Examples:
      facemill compare passport.jpg gate.jpg
      facemill compare a.jpg b.jpg --file people.h5 --json
      facemill compare a.jpg b.jpg --model sface --threshold 0.4 --html pair.html

    Exit codes: 0 compared, whatever the verdict; 1 failure (or no face found), 2 usage.
    """
    _check_usage(ctx, file, engine, model, backend)
    setup_logging()
    from ..pages.compare_page import write_comparison
    from ..pages.page import check_page_path
    from ..search.compare import compare
    from ..search.embedder import rules_of
    from ..storage.calibration import find_calibration
    from ..storage.file import EmbeddingFile

    if page is not None:
        check_page_path(page, force=force)
    calibration = None
    if file is None:
        rules = _rules(chosen_engine(engine, model, backend), align, detector)
    else:
        with EmbeddingFile(file) as gallery:
            rules, calibration = rules_of(gallery, given_engine(engine)), find_calibration(gallery)
    found = compare(photographs, rules, threshold=threshold, calibration=calibration)
    if found.warning:
        click.echo(f"WARNING: {found.warning}", err=True)
    if as_json:
        click.echo(json.dumps(_json(found)))
    elif found.score is not None:
        for line in _lines(found):
            click.echo(line)
    failed = [photograph for photograph in found.photographs if photograph.error]
    for photograph in failed:
        click.echo(f"error: {printable(photograph.query)}: {printable(photograph.error)}", err=True)
    if failed:
        raise SystemExit(1)
    if page is not None:
        write_comparison(page, found, rules.limits, file, force=force)


def _check_usage(ctx: click.Context, file: Path | None, engine: Path | None, model: str | None, backend: str) -> None:
    """What the options exclude."""
    if engine is not None and (model is not None or backend != "auto"):
        raise click.UsageError("--engine excludes --model and --backend: an engine is built from one model, for one")
    if file is None:
        return
    for name in ("model", "backend", "align", "detector"):
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--file and --{name} exclude each other: photographs become what FILE's rows are")


def _rules(engine: Engine, align: str, detector: str | None) -> QueryRules:
    """As `process` embeds, but no face is too poor to ask about."""
    from ..engines.build import rebuild_if_stale
    from ..faces.rules import FaceRules
    from ..search.embedder import QueryRules

    engine = rebuild_if_stale(engine)
    finder = detector_for(detector, align, engine.info.backend)
    return QueryRules(engine, finder, FaceRules(align, min_iod=0.0))


def _json(found: Comparison) -> dict[str, Any]:
    photographs = []
    for one in found.photographs:
        line: dict[str, Any] = {"path": utf8(one.query), **({"error": utf8(one.error)} if one.error else {})}
        if one.faces is not None:
            line |= {"faces": one.faces, **face_json(one.face)}
        photographs.append(line)
    rate = found.false_match_rate
    chance = {} if rate is None else {"false_match_rate": float(f"{rate.hits:.6g}"), "at_most": rate.at_most}
    return {
        "photographs": photographs,
        "score": None if found.score is None else round(found.score, 6),
        "threshold": found.threshold.value,
        "threshold_origin": found.threshold.origin,
        "verdict": found.verdict,
        **chance,
        "model": found.model,
        "model_sha256": found.model_sha256,
        **({"warning": found.warning} if found.warning else {}),
    }


def _lines(found: Comparison) -> Iterator[str]:
    for photograph in found.photographs:
        yield printable(photograph.query) + (f"  ({photograph.choice})" if photograph.choice else "")
    rate, threshold = found.false_match_rate, found.threshold
    yield f"  {'verdict':<16}  {_VERDICTS[found.verdict]}"
    yield f"  {'score':<16}  {found.score:.4f}"
    yield f"  {'threshold':<16}  " + ("unknown" if threshold.value is None else f"{threshold.value:.4f}")
    yield f"  {'false match rate':<16}  {'unknown: no calibration' if rate is None else rate}"
    yield f"threshold: {printable(threshold.origin)}"
    if rate is not None:
        yield f"false match rate: {printable(found.explain_rate())}"
    yield f"model: {printable(found.made_by())}"
