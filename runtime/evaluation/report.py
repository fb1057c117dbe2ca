"""Write the report: report.md, report.json, and the curves if matplotlib is installed."""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import ConfigError, MissingDependencyError, OutputExistsError
from ..files import storage_error, write_durable
from ..outputs import check_parent, refuse_inputs
from ..regular import NOTE_BYTES, read_regular
from ..text import printable
from .compare import EngineComparison
from .detectors import DetectorFigures, recommend
from .evaluate import Evaluation
from .facts import facts_of
from .plots import draw_roc, draw_scores
from .tables import Table, tables_of

logger = logging.getLogger(__name__)

FORMAT = 1
_FILES = ("report.json", "report.md", "roc.png", "scores.png")
_NOTES = """\
- **Accuracy**: each fold uses the best threshold of the other folds (Huang et al. 2007, view 2). The standard error is
  over the folds. The 95 % interval is Wilson's, over all pairs.
- **TAR at FAR**: the share of genuine pairs accepted at the lowest threshold that keeps to this false accept rate. Tied
  scores are accepted together or not at all.
- **A photo that could not be embedded** still counts: its pairs are judged wrong and never accepted, it finds no match
  as a query, and the other photos of its person miss it.
- **All photos against each other**: thresholds are 0.0001 apart. A person with many photos counts often.
- **recall@1, R-Precision, MAP@R**: Musgrave et al. 2020, arXiv:2003.08505. Intervals are 95 %, by a bootstrap over
  people.
- **The most similar photos of two people**: check them. A person enrolled under two names appears here, and raises the
  thresholds for large galleries needlessly.
- **False hits**: photos of other people that a query returns on average at the threshold or above, estimated from the
  impostor pairs of this folder. A bound after < is three divided by the number of pairs (rule of three). It holds for
  independent pairs; these share photos, so it is an order of magnitude.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one or more evaluations of a folder.

    Attributes:
        folder: the folder of photos, as the user typed it.
        pairs: the pairs file, as the user typed it; empty for none.
        labels: one label per evaluation.
        evaluations: all of one folder; all with pairs, or all without.
        gallery: size of the gallery to give thresholds for, in photos; None for none.
        comparison: the second of two evaluations against the first; None for none.
        made_utc: ISO 8601.
        detectors: figures of each detector, if the evaluations differ only in the detector.
    """

    folder: str
    pairs: str
    labels: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    gallery: int | None
    comparison: EngineComparison | None
    made_utc: str
    detectors: tuple[DetectorFigures, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {
            "facemill_evaluation": FORMAT,
            "tool_version": __version__,
            "made_utc": self.made_utc,
            "folder": self.folder,
            "pairs_file": self.pairs,
            "evaluations": [
                {"label": label, **facts_of(evaluation, self.gallery)}
                for label, evaluation in zip(self.labels, self.evaluations, strict=True)
            ],
            "comparison": None if self.comparison is None else asdict(self.comparison),
            "detectors": [asdict(figures) for figures in self.detectors],
            "recommendation": recommend(self.detectors) if len(self.detectors) > 1 else None,
        }

    def tables(self) -> list[Table]:
        """Return the report as tables for people to read."""
        return tables_of(
            self.evaluations, self.labels, gallery=self.gallery, comparison=self.comparison, detectors=self.detectors
        )


def labels_of(engines: Sequence[Path]) -> tuple[str, ...]:
    """Label engines by file name, or by whole path if names repeat."""
    names = tuple(engine.name for engine in engines)
    return names if len(set(names)) == len(names) else tuple(map(str, engines))


def as_text(tables: Sequence[Table]) -> Iterator[str]:
    """Format tables as lines for a terminal."""
    for table in tables:
        yield table.title
        rows = [table.heads, *table.rows] if len(table.heads) > 2 else table.rows
        widths = [max(len(row[column]) for row in rows) for column in range(len(table.heads))]
        for row in rows:
            yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        yield ""


def check_report_folder(folder: Path, photos: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Create the report folder, and check before any work that the report may be written there.

    Args:
        folder: report folder.
        photos: the folder to evaluate.
        force: replace files that no evaluation made.
        inputs: further files that the evaluation reads.
    Raises:
        ConfigError: the report folder is inside the folder of photos, so its pictures would be read as photos; or an
            input has the name of a file of the report.
        OutputExistsError: the folder holds files of the report's names that no evaluation made, or is itself a file.
        StorageError: the folder cannot be created.
    """
    if folder.resolve().is_relative_to(photos.resolve()):
        raise ConfigError(
            f"-o is {folder}, inside the folder of photos, so its pictures would be read as photos; expected: a folder "
            f"outside {photos}. Name another one with -o"
        )
    if not folder.is_dir() and folder.exists():
        raise OutputExistsError(f"-o is {folder}, a file; expected: a folder for the report. Name another one with -o")
    check_parent(folder, "the report", other="another folder with -o")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as err:
        raise storage_error(err, "the report folder", folder) from err
    for name in _FILES:
        refuse_inputs(folder / name, inputs, other="another folder with -o")
    foreign = [name for name in _FILES if (folder / name).exists()]
    if foreign and not force and not _is_ours(folder / "report.json"):
        raise OutputExistsError(
            f"{folder} holds {foreign[0]} but no report.json of an evaluation; expected: an empty folder, or the "
            f"report folder of an earlier evaluation. Name another one with -o, or replace the file with --force"
        )


def _is_ours(path: Path) -> bool:
    try:
        return "facemill_evaluation" in json.loads(read_regular(path, NOTE_BYTES))
    except (OSError, TypeError, ValueError):
        return False


def write_report(folder: Path, report: Report) -> None:
    """Write all files of the report, each atomically. Without matplotlib, log a warning and leave the pictures out.

    Raises:
        DiskFullError, StorageError: a file cannot be written.
    """
    write_durable(folder / "report.json", (json.dumps(report.to_dict(), indent=2) + "\n").encode(), "the report")
    pictures: list[str] = []
    try:
        for name, draw in (("roc.png", draw_roc), ("scores.png", draw_scores)):
            write_durable(folder / name, draw(report.evaluations, report.labels), "the picture")
            pictures.append(name)
    except MissingDependencyError as err:
        for name in _FILES[2:]:
            (folder / name).unlink(missing_ok=True)  # an earlier evaluation drew it from other figures
        logger.warning("roc.png and scores.png are not drawn: %s", err.message)
    text = "\n".join(_markdown(report, pictures))
    write_durable(folder / "report.md", text.encode("utf-8", "backslashreplace"), "the report")


def _markdown(report: Report, pictures: Sequence[str]) -> Iterator[str]:
    yield "# Evaluation\n"
    pairs = f", judged by `{printable(report.pairs)}`" if report.pairs else ""
    yield f"Photos of `{printable(report.folder)}`{pairs}. facemill {__version__}, {report.made_utc}.\n"
    warnings = (evaluation.pairs.warning for evaluation in report.evaluations if evaluation.pairs)
    for warning in filter(None, dict.fromkeys(warnings)):
        yield f"**WARNING**: {warning}.\n"
    for table in report.tables():
        yield f"## {table.title}\n"
        heads = table.heads if len(table.heads) > 2 else ("", "")
        yield _line(heads)
        yield "|" + "---|" * len(heads)
        yield from map(_line, table.rows)
        yield ""
    for name in pictures:
        yield f"![{name.removesuffix('.png')}]({name})\n"
    yield f"## How to read it\n\n{_NOTES}"


def _line(cells: Sequence[str]) -> str:
    """Escape the cells: names from outside must neither end a cell nor act as markup."""
    return "| " + " | ".join(html.escape(printable(cell), quote=False).replace("|", "&#124;") for cell in cells) + " |"
