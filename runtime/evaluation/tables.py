"""Format the figures as tables for people, one column per engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.curve import Curve, Point
from ..metrics.falsematch import MIN_FALSE_MATCHES, thresholds_for
from ..metrics.intervals import wilson
from ..metrics.retrieval import NAMES
from .compare import EngineComparison
from .detectors import DetectorFigures, recommend
from .evaluate import Evaluation

PAIR_FARS = (1e-2, 1e-3, 1e-4)
FOLDER_FARS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, slots=True)
class Table:
    """Title, column heads and rows; the first column names the figure."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(
    evaluations: Sequence[Evaluation],
    labels: Sequence[str],
    *,
    gallery: int | None,
    comparison: EngineComparison | None,
    detectors: Sequence[DetectorFigures] = (),
) -> list[Table]:
    """Make the tables of a report.

    Args:
        evaluations: all of one folder; all with pairs, or all without.
        labels: column head of each evaluation.
        gallery: size of the gallery to give thresholds for, in photos; None for none.
        comparison: the second of two evaluations against the first; None for none.
        detectors: figures of each detector, if the evaluations differ only in the detector.
    """
    tables = [_table("Evaluated", evaluations, labels, _origin)]
    if all(evaluation.pairs is not None for evaluation in evaluations):
        tables.append(_table("Pairs of the pairs file", evaluations, labels, _pairs))
    if any(evaluation.curve.impostors for evaluation in evaluations):
        tables.append(_table("All photos against each other", evaluations, labels, _all_pairs))
    if all(evaluation.retrieval is not None for evaluation in evaluations):
        title = "Each photo as a query for the other photos of its person"
        tables.append(_table(title, evaluations, labels, _retrieval))
    if gallery is not None:
        heads = [label if len(labels) > 1 else "threshold" for label in labels]
        title = f"Thresholds for a gallery of {gallery:,} photos"
        tables.append(_table(title, evaluations, heads, lambda evaluation: _thresholds(evaluation.curve, gallery)))
    if len(evaluations) == 1 and evaluations[0].lookalikes:
        rows = tuple((f"{pair.score:.4f}", pair.one, pair.other) for pair in evaluations[0].lookalikes)
        tables.append(Table("The most similar photos of two people", ("score", "photo", "photo"), rows))
    if len(detectors) > 1:
        tables.append(_detectors(detectors))
    if comparison is not None:
        tables.append(Table("The second engine against the first", ("", "change"), tuple(_changes(comparison).items())))
    return tables


def _detectors(detectors: Sequence[DetectorFigures]) -> Table:
    """Make the table of detectors, one column each; the title recommends one."""

    def row(name: str, value: Callable[[DetectorFigures], str]) -> tuple[str, ...]:
        return (name, *(value(figures) for figures in detectors))

    def speed(images_per_s: float | None) -> str:
        return f"{images_per_s:,.0f}" if images_per_s else "not measured"

    rows = [
        row("licence", lambda figures: figures.licence or "unknown"),
        row("photos with a face", lambda figures: f"{100 * figures.found.value:.2f} %"),
        row("no face", lambda figures: f"{figures.no_face:,}"),
        row("low quality", lambda figures: f"{figures.low_quality:,}"),
        row("several faces, refused", lambda figures: f"{figures.multiple:,}"),
        row("detection alone, photos/s", lambda figures: speed(figures.detect_images_per_s)),
        row("whole run, photos/s", lambda figures: speed(figures.images_per_s)),
    ]
    return Table(f"Detectors. {recommend(detectors)}", ("", *(figures.label for figures in detectors)), tuple(rows))


def _table(
    title: str,
    evaluations: Sequence[Evaluation],
    labels: Sequence[str],
    rows_of: Callable[[Evaluation], dict[str, str]],
) -> Table:
    columns = [rows_of(evaluation) for evaluation in evaluations]
    names = list(dict.fromkeys(name for column in columns for name in column))
    return Table(title, ("", *labels), tuple((name, *(column.get(name, "-") for column in columns)) for name in names))


def _origin(evaluation: Evaluation) -> dict[str, str]:
    facts, outcomes = evaluation.embedded.metadata, evaluation.embedded.outcomes
    return {
        "model": str(facts["model"]),
        "engine": f"{facts['precision']}, {facts['backend_version']}",
        "photos": f"{len(evaluation.embedded.paths):,}",
        **{name: f"{count:,}" for name, count in outcomes.items()},
        "people": f"{evaluation.people:,}",
        **({"WARNING": str(facts["warning"])} if "warning" in facts else {}),
    }


def _pairs(evaluation: Evaluation) -> dict[str, str]:
    assert evaluation.pairs is not None
    folds, curve, pairs = evaluation.pairs.folds, evaluation.pairs.curve, len(evaluation.pairs.folds.right)
    several = len(folds.accuracies) > 1
    low, high = wilson(int(folds.right.sum()), pairs)
    absent = f" ({evaluation.pairs.absent:,} photos are not in the folder)" if evaluation.pairs.absent else ""
    spread = f" (from {folds.thresholds.min():.4f} to {folds.thresholds.max():.4f})" if several else ""
    error = f" ± {100 * folds.standard_error:.2f}" if several else " (threshold chosen on the same pairs)"
    missing = (
        f"{evaluation.pairs.absent + evaluation.pairs.lost:,} of {evaluation.pairs.photographs:,} photos are missing"
    )
    return {
        **({"WARNING": missing} if evaluation.pairs.warning else {}),
        "pairs": f"{pairs:,} in {len(folds.accuracies)} folds" if several else f"{pairs:,}",
        "with a missing photo, counted as wrong": f"{evaluation.pairs.missing:,}{absent}",
        "accuracy": f"{100 * folds.accuracy:.2f} %{error}",
        "95 % interval": f"{100 * low:.2f} to {100 * high:.2f} %",
        "threshold": f"{folds.thresholds.mean():.4f}{spread}",
        **_rates(curve, PAIR_FARS),
        "area under the ROC": f"{curve.area:.5f}",
    }


def _all_pairs(evaluation: Evaluation) -> dict[str, str]:
    return {
        "genuine pairs": f"{evaluation.curve.genuine:,}",
        "impostor pairs": f"{evaluation.curve.impostors:,}{' (a seeded sample)' if evaluation.sampled else ''}",
        **_rates(evaluation.curve, FOLDER_FARS),
    }


def _rates(curve: Curve, fars: Sequence[float]) -> dict[str, str]:
    return {f"TAR at FAR {far:.0e}": _rate(curve.at_far(far), curve.impostors) for far in fars}


def _rate(point: Point | None, impostors: int) -> str:
    if point is None:
        return _too_few(impostors)
    return f"{_tar(point)} at {point.threshold:.4f}{_few_warning(point)}"


def _too_few(impostors: int) -> str:
    return f"needs more than {impostors:,} impostor pairs"


def _tar(point: Point) -> str:
    return "-" if point.tar is None else f"{100 * point.tar:.2f} %"


def _few_warning(point: Point) -> str:
    """Warn of a rate that rests on few pairs; empty otherwise."""
    return f" (only {point.false_accepts:,} false accepts)" if point.false_accepts < MIN_FALSE_MATCHES else ""


def _retrieval(evaluation: Evaluation) -> dict[str, str]:
    assert evaluation.retrieval is not None
    means, intervals = evaluation.retrieval.means, evaluation.retrieval.intervals()
    return {
        "queries": f"{len(evaluation.retrieval.values):,} of {len(np.unique(evaluation.retrieval.person)):,} people",
        "left out, only photo of their person": f"{evaluation.retrieval.alone:,}",
        **{
            name: f"{100 * mean:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
            for name, mean, (low, high) in zip(NAMES, means, intervals, strict=True)
        },
    }


def _thresholds(curve: Curve, gallery: int) -> dict[str, str]:
    rows = {}
    for threshold in thresholds_for(curve, gallery):
        point = threshold.point
        cell = _too_few(curve.impostors)
        if point is not None:
            cell = f"{point.threshold:.4f}, accepts {_tar(point)} of genuine pairs{_few_warning(point)}"
        rows[f"{threshold.expected:g} false hits per query"] = cell
    last = curve.above_all()
    bound = f"<{3 * gallery / curve.impostors:.2g}" if curve.impostors else "unknown"
    return {**rows, "no impostor pair scores as high": f"{last.threshold:.4f}, false hits per query {bound}"}


def _changes(comparison: EngineComparison) -> dict[str, str]:
    rows = {"cosine drift": "undefined: the engines are of two models, or embedded no photo in common"}
    drift, verdicts = comparison.drift, comparison.verdicts
    if drift is not None:
        rows = {
            "photos embedded by both": f"{drift.photographs:,}",
            "cosine, minimum": f"{drift.minimum:.6f}",
            "cosine, 1st percentile": f"{drift.percentile_1:.6f}",
            "cosine, mean": f"{drift.mean:.6f}",
        }
    if verdicts is not None:
        rows["accuracy"] = f"{100 * verdicts.accuracy:+.2f} points"
        rows["pairs judged differently"] = f"{verdicts.gained:,} now right, {verdicts.lost:,} now wrong"
    if comparison.retrieval is not None:
        rows |= {
            f"{name}": f"{100 * change:+.2f} points" for name, change in zip(NAMES, comparison.retrieval, strict=True)
        }
    return rows
