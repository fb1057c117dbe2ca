"""The figures as tables for a person: one column an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.curve import Curve, Point
from ..metrics.falsematch import FEW, thresholds_for
from ..metrics.intervals import wilson
from ..metrics.retrieval import NAMES
from .compare import EngineComparison
from .detectors import DetectorFigures, recommend
from .evaluate import Evaluation

PAIR_FARS = (1e-2, 1e-3, 1e-4)
FOLDER_FARS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the heads of the columns, and the rows; the first column names the figure."""

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
    """All that was measured.

    Args:
        evaluations: of one folder, all with pairs or all without.
        labels: the head of each one's column.
        gallery: photographs of the gallery to find thresholds for; None for none.
        comparison: of two evaluations; None for none.
        detectors: of the evaluations, where they differ in the detector alone.
    """
    found = [_table("What was evaluated", evaluations, labels, _origin)]
    if all(evaluation.pairs is not None for evaluation in evaluations):
        found.append(_table("Pairs of the pairs file", evaluations, labels, _pairs))
    if any(evaluation.curve.impostors for evaluation in evaluations):
        found.append(_table("All photographs against each other", evaluations, labels, _everybody))
    if all(evaluation.retrieval is not None for evaluation in evaluations):
        found.append(_table("Each photograph as a query for the others of its person", evaluations, labels, _retrieval))
    if gallery is not None:
        heads = [label if len(labels) > 1 else "threshold" for label in labels]
        title = f"Thresholds for a gallery of {gallery:,} photographs"
        found.append(_table(title, evaluations, heads, lambda one: _thresholds(one.curve, gallery)))
    if len(evaluations) == 1 and evaluations[0].lookalikes:
        rows = tuple((f"{pair.score:.4f}", pair.one, pair.other) for pair in evaluations[0].lookalikes)
        found.append(Table("The most alike photographs of two people", ("score", "photograph", "photograph"), rows))
    if len(detectors) > 1:
        found.append(_detectors(detectors))
    if comparison is not None:
        found.append(Table("The second engine against the first", ("", "change"), tuple(_changes(comparison).items())))
    return found


def _detectors(found: Sequence[DetectorFigures]) -> Table:
    """One column a detector, and what to take."""

    def row(name: str, value: Callable[[DetectorFigures], str]) -> tuple[str, ...]:
        return (name, *(value(one) for one in found))

    def speed(images_per_s: float | None) -> str:
        return f"{images_per_s:,.0f}" if images_per_s else "not measured"

    rows = [
        row("licence", lambda one: one.licence or "not known"),
        row("photographs with a face", lambda one: f"{100 * one.found.value:.2f} %"),
        row("no face", lambda one: f"{one.no_face:,}"),
        row("low quality", lambda one: f"{one.low_quality:,}"),
        row("several faces, refused", lambda one: f"{one.multiple:,}"),
        row("detection alone, photographs/s", lambda one: speed(one.detect_images_per_s)),
        row("the whole run, photographs/s", lambda one: speed(one.images_per_s)),
    ]
    return Table(f"Detectors. {recommend(found)}", ("", *(one.label for one in found)), tuple(rows))


def _table(
    title: str,
    evaluations: Sequence[Evaluation],
    labels: Sequence[str],
    rows_of: Callable[[Evaluation], dict[str, str]],
) -> Table:
    columns = [rows_of(evaluation) for evaluation in evaluations]
    names = list(dict.fromkeys(name for column in columns for name in column))
    return Table(title, ("", *labels), tuple((name, *(column.get(name, "-") for column in columns)) for name in names))


def _origin(one: Evaluation) -> dict[str, str]:
    facts, outcomes = one.embedded.metadata, one.embedded.outcomes
    return {
        "model": str(facts["model"]),
        "engine": f"{facts['precision']}, {facts['backend_version']}",
        "photographs": f"{len(one.embedded.paths):,}",
        **{name: f"{count:,}" for name, count in outcomes.items()},
        "people": f"{one.people:,}",
        **({"WARNING": str(facts["warning"])} if "warning" in facts else {}),
    }


def _pairs(one: Evaluation) -> dict[str, str]:
    assert one.pairs is not None
    folds, curve, pairs = one.pairs.folds, one.pairs.curve, len(one.pairs.folds.right)
    several = len(folds.accuracies) > 1
    low, high = wilson(int(folds.right.sum()), pairs)
    absent = f" ({one.pairs.absent:,} photographs are not in the folder)" if one.pairs.absent else ""
    spread = f" (from {folds.thresholds.min():.4f} to {folds.thresholds.max():.4f})" if several else ""
    error = f" ± {100 * folds.standard_error:.2f}" if several else " (its threshold chosen on the same pairs)"
    missing = f"{one.pairs.absent + one.pairs.lost:,} of {one.pairs.photographs:,} photographs are missing"
    return {
        **({"WARNING": missing} if one.pairs.warning else {}),
        "pairs": f"{pairs:,} in {len(folds.accuracies)} folds" if several else f"{pairs:,}",
        "with a missing photograph, counted as wrong": f"{one.pairs.missing:,}{absent}",
        "accuracy": f"{100 * folds.accuracy:.2f} %{error}",
        "95 % interval": f"{100 * low:.2f} to {100 * high:.2f} %",
        "threshold": f"{folds.thresholds.mean():.4f}{spread}",
        **_rates(curve, PAIR_FARS),
        "area under the ROC": f"{curve.area:.5f}",
    }


def _everybody(one: Evaluation) -> dict[str, str]:
    return {
        "genuine pairs": f"{one.curve.genuine:,}",
        "impostor pairs": f"{one.curve.impostors:,}{' (a seeded draw)' if one.sampled else ''}",
        **_rates(one.curve, FOLDER_FARS),
    }


def _rates(curve: Curve, fars: Sequence[float]) -> dict[str, str]:
    return {f"TAR at FAR {far:.0e}": _rate(curve.at_far(far), curve.impostors) for far in fars}


def _rate(point: Point | None, impostors: int) -> str:
    if point is None:
        return f"beyond what {impostors:,} impostor pairs can show"
    return f"{_share(point)} at {point.threshold:.4f}{_few(point)}"


def _share(point: Point) -> str:
    return "-" if point.tar is None else f"{100 * point.tar:.2f} %"


def _few(point: Point) -> str:
    """A warning that a rate stands on few pairs."""
    return f" (only {point.false_accepts:,} false accepts)" if point.false_accepts < FEW else ""


def _retrieval(one: Evaluation) -> dict[str, str]:
    assert one.retrieval is not None
    means, intervals = one.retrieval.means, one.retrieval.intervals()
    return {
        "queries": f"{len(one.retrieval.values):,} of {len(np.unique(one.retrieval.person)):,} people",
        "left out, the only one of their person": f"{one.retrieval.alone:,}",
        **{
            name: f"{100 * mean:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
            for name, mean, (low, high) in zip(NAMES, means, intervals, strict=True)
        },
    }


def _thresholds(curve: Curve, gallery: int) -> dict[str, str]:
    rows = {}
    for wanted in thresholds_for(curve, gallery):
        point = wanted.point
        words = f"beyond what {curve.impostors:,} impostor pairs can show"
        if point is not None:
            words = f"{point.threshold:.4f}, accepts {_share(point)} of genuine pairs{_few(point)}"
        rows[f"{wanted.expected:g} false hits a query"] = words
    last = curve.above_all()
    bound = f"<{3 * gallery / curve.impostors:.2g}" if curve.impostors else "unknown"
    return {**rows, "no impostor pair scores as high": f"{last.threshold:.4f}, false hits a query {bound}"}


def _changes(comparison: EngineComparison) -> dict[str, str]:
    rows = {"cosine drift": "not defined: the engines are of two models, or embedded no photograph in common"}
    drift, verdicts = comparison.drift, comparison.verdicts
    if drift is not None:
        rows = {
            "photographs embedded by both": f"{drift.photographs:,}",
            "cosine, minimum": f"{drift.minimum:.6f}",
            "cosine, 1st percentile": f"{drift.percentile_1:.6f}",
            "cosine, mean": f"{drift.mean:.6f}",
        }
    if verdicts is not None:
        rows["accuracy"] = f"{100 * verdicts.accuracy:+.2f} points"
        rows["pairs judged otherwise"] = f"{verdicts.gained:,} now right, {verdicts.lost:,} now wrong"
    if comparison.retrieval is not None:
        rows |= {f"{name}": f"{100 * by:+.2f} points" for name, by in zip(NAMES, comparison.retrieval, strict=True)}
    return rows
