"""The report: report.md and report.json, and the curves where matplotlib is installed."""

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
- **Accuracy**: the threshold of each fold is the best one of the other folds (Huang et al. 2007, view 2). Its standard
  error is over the folds, its 95 % interval Wilson's, of all pairs.
- **TAR at FAR**: genuine pairs accepted at the lowest threshold that accepts no larger share of impostor pairs. Tied
  scores are accepted together or not at all.
- **A photograph that could not be embedded** is not left out: its pairs are judged wrongly and never accepted, it finds
  nobody as a query, and its person's other photographs miss it.
- **All photographs against each other**: thresholds lie 0.0001 apart. A person with many photographs counts often.
- **recall@1, R-Precision, MAP@R**: Musgrave et al. 2020, arXiv:2003.08505. Intervals are 95 %, by a bootstrap over
  people.
- **The most alike photographs of two people**: look at them. A person under two names is here, and makes thresholds
  for large galleries higher than they need be.
- **False hits**: photographs of other people that a query brings up on average at the threshold or above, as the
  impostor pairs of this folder have it. A bound behind < is three by the number of pairs (rule of three), which holds
  for independent pairs; these share photographs, so take it for an order of magnitude.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to report.

    Attributes:
        folder: of the photographs, as it was named.
        pairs: the pairs file, as it was named; empty for none.
        labels: of the evaluations.
        evaluations: of one folder, all with the pairs or all without.
        gallery: photographs of the gallery that thresholds are wanted for; None for none.
        comparison: of two evaluations; None for none.
        made_utc: ISO 8601.
        detectors: of the evaluations, where they differ in the detector alone.
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
        """The report for JSON."""
        return {
            "facemill_evaluation": FORMAT,
            "tool_version": __version__,
            "made_utc": self.made_utc,
            "folder": self.folder,
            "pairs_file": self.pairs,
            "evaluations": [
                {"label": label, **facts_of(one, self.gallery)}
                for label, one in zip(self.labels, self.evaluations, strict=True)
            ],
            "comparison": None if self.comparison is None else asdict(self.comparison),
            "detectors": [asdict(one) for one in self.detectors],
            "recommendation": recommend(self.detectors) if len(self.detectors) > 1 else None,
        }

    def tables(self) -> list[Table]:
        """For a person."""
        return tables_of(
            self.evaluations, self.labels, gallery=self.gallery, comparison=self.comparison, detectors=self.detectors
        )


def labels_of(engines: Sequence[Path]) -> tuple[str, ...]:
    """Names of engine files to tell them apart; with their folders where the names alone do not."""
    names = tuple(engine.name for engine in engines)
    return names if len(set(names)) == len(names) else tuple(map(str, engines))


def as_text(tables: Sequence[Table]) -> Iterator[str]:
    """Lines for a terminal."""
    for table in tables:
        yield table.title
        rows = [table.heads, *table.rows] if len(table.heads) > 2 else table.rows
        widths = [max(len(row[column]) for row in rows) for column in range(len(table.heads))]
        for row in rows:
            yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        yield ""


def check_report_folder(folder: Path, photographs: Path, *, force: bool) -> None:
    """Make the folder, or say before the work that its files would be in the way.

    Args:
        folder: for the report.
        photographs: the folder to evaluate.
        force: replace files that no evaluation made.
    Raises:
        ConfigError: it is among the photographs, where its pictures would be taken for some.
        OutputExistsError: it holds files of these names that no evaluation made, or is itself a file.
        StorageError: it cannot be made.
    """
    if folder.resolve().is_relative_to(photographs.resolve()):
        raise ConfigError(
            f"-o is {folder}, in the folder of the photographs; wanted: another place, since its pictures would be "
            f"taken for photographs. Name one outside {photographs}"
        )
    if not folder.is_dir() and folder.exists():
        raise OutputExistsError(f"-o is {folder}, a file; wanted: a folder for the report. Name another one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise storage_error(err, "the folder of the report", folder) from err
    strange = [name for name in _FILES if (folder / name).exists()]
    if strange and not force and not _is_ours(folder / "report.json"):
        raise OutputExistsError(
            f"{folder} holds {strange[0]}, and no report.json of an evaluation beside it; wanted: an empty folder, or "
            f"one of an earlier evaluation. Name another one with -o, or replace the file with --force"
        )


def _is_ours(path: Path) -> bool:
    try:
        return "facemill_evaluation" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError):
        return False


def write_report(folder: Path, report: Report) -> None:
    """Write all files, each whole or not at all; a picture that cannot be drawn is told and left out.

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
            (folder / name).unlink(missing_ok=True)  # of an earlier evaluation: not these figures
        logger.warning("roc.png and scores.png are not drawn: %s", err.message)
    text = "\n".join(_markdown(report, pictures))
    write_durable(folder / "report.md", text.encode("utf-8", "backslashreplace"), "the report")


def _markdown(report: Report, pictures: Sequence[str]) -> Iterator[str]:
    yield "# Evaluation\n"
    pairs = f", judged by `{printable(report.pairs)}`" if report.pairs else ""
    yield f"Photographs of `{printable(report.folder)}`{pairs}. facemill {__version__}, {report.made_utc}.\n"
    for warning in dict.fromkeys(one.pairs.warning for one in report.evaluations if one.pairs and one.pairs.warning):
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
    """Names from outside neither end a cell nor are markup."""
    return "| " + " | ".join(html.escape(printable(cell), quote=False).replace("|", "&#124;") for cell in cells) + " |"
