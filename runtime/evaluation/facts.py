"""Convert the figures to plain data, for report.json and --json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..metrics.curve import Curve, Point
from ..metrics.falsematch import thresholds_for
from ..metrics.intervals import wilson
from ..metrics.retrieval import NAMES
from ..storage.contract import Guard
from .evaluate import Evaluation
from .tables import FOLDER_FARS, PAIR_FARS


def facts_of(evaluation: Evaluation, gallery: int | None) -> dict[str, Any]:
    """Return all figures of an evaluation. Rates are shares, 0 to 1, and None if unknown.

    Args:
        evaluation: the measured figures.
        gallery: size of the gallery to give thresholds for, in photos; None for none.
    """
    metadata = evaluation.embedded.metadata
    return {
        **{key: metadata[key] for key in ("model", "backend", "backend_version", "engine", "engine_sha256", "trained")},
        "warning": metadata.get("warning", ""),
        "contract": evaluation.embedded.contract.select(Guard.SCORES),
        "photographs": len(evaluation.embedded.paths),
        "images_per_s": (evaluation.embedded.summary.images_per_s or None) if evaluation.embedded.summary else None,
        "stages": evaluation.embedded.summary.stages if evaluation.embedded.summary else {},
        "outcomes": evaluation.embedded.outcomes,
        "people": evaluation.people,
        "pairs": _pairs(evaluation),
        "all_pairs": {**_curve(evaluation.curve, FOLDER_FARS), "sampled": evaluation.sampled},
        "lookalikes": [asdict(pair) for pair in evaluation.lookalikes],
        "retrieval": _retrieval(evaluation),
        "gallery": None if gallery is None else _gallery(evaluation.curve, gallery),
    }


def _pairs(evaluation: Evaluation) -> dict[str, Any] | None:
    if evaluation.pairs is None:
        return None
    folds = evaluation.pairs.folds
    return {
        "pairs": len(folds.right),
        "missing": evaluation.pairs.missing,
        "photographs": evaluation.pairs.photographs,
        "absent_photographs": evaluation.pairs.absent,
        "lost_photographs": evaluation.pairs.lost,
        "warning": evaluation.pairs.warning,
        "accuracy": folds.accuracy,
        "accuracy_interval": wilson(int(folds.right.sum()), len(folds.right)),
        "standard_deviation": folds.deviation,
        "standard_error": folds.standard_error,
        "threshold": float(folds.thresholds.mean()),
        "fold_accuracies": folds.accuracies.tolist(),
        "fold_thresholds": folds.thresholds.tolist(),
        **_curve(evaluation.pairs.curve, PAIR_FARS),
    }


def _curve(curve: Curve, fars: Sequence[float]) -> dict[str, Any]:
    has_both = curve.genuine and curve.impostors
    return {
        "genuine": curve.genuine,
        "impostors": curve.impostors,
        "area": curve.area if has_both else None,
        "tar_at_far": [{"far": far, **(_point(curve.at_far(far)) or {"tar": None})} for far in fars],
        "roc": curve.roc(),
    }


def _point(point: Point | None) -> dict[str, Any] | None:
    return None if point is None else {**asdict(point), "tar": point.tar}


def _retrieval(evaluation: Evaluation) -> dict[str, Any] | None:
    if evaluation.retrieval is None:
        return None
    means, intervals = evaluation.retrieval.means, evaluation.retrieval.intervals()
    return {
        "queries": len(evaluation.retrieval.values),
        "people": len(np.unique(evaluation.retrieval.person)),
        "left_out": evaluation.retrieval.alone,
        **{
            name: {"value": float(mean), "interval": interval.tolist()}
            for name, mean, interval in zip(NAMES, means, intervals, strict=True)
        },
    }


def _gallery(curve: Curve, photos: int) -> dict[str, Any]:
    last = curve.above_all()
    return {
        "photographs": photos,
        "thresholds": [
            {"expected_false_hits": threshold.expected, **(_point(threshold.point) or {"threshold": None})}
            for threshold in thresholds_for(curve, photos)
        ],
        "above_all_impostors": last.threshold,
        "expected_false_hits_above_at_most": 3 * photos / curve.impostors if curve.impostors else None,
    }
