"""The figures as plain data, for report.json and --json."""

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


def facts_of(one: Evaluation, gallery: int | None) -> dict[str, Any]:
    """All figures of an evaluation; rates are shares from 0 to 1, and null where they cannot be known.

    Args:
        one: what was measured.
        gallery: photographs of the gallery to find thresholds for; None for none.
    """
    metadata = one.embedded.metadata
    return {
        **{key: metadata[key] for key in ("model", "backend", "backend_version", "engine", "engine_sha256", "trained")},
        "warning": metadata.get("warning", ""),
        "contract": one.embedded.contract.select(Guard.SCORES),
        "photographs": len(one.embedded.paths),
        "images_per_s": (one.embedded.summary.images_per_s or None) if one.embedded.summary else None,
        "stages": one.embedded.summary.stages if one.embedded.summary else {},
        "outcomes": one.embedded.outcomes,
        "people": one.people,
        "pairs": _pairs(one),
        "all_pairs": {**_curve(one.curve, FOLDER_FARS), "sampled": one.sampled},
        "lookalikes": [asdict(pair) for pair in one.lookalikes],
        "retrieval": _retrieval(one),
        "gallery": None if gallery is None else _gallery(one.curve, gallery),
    }


def _pairs(one: Evaluation) -> dict[str, Any] | None:
    if one.pairs is None:
        return None
    folds = one.pairs.folds
    return {
        "pairs": len(folds.right),
        "missing": one.pairs.missing,
        "photographs": one.pairs.photographs,
        "absent_photographs": one.pairs.absent,
        "lost_photographs": one.pairs.lost,
        "warning": one.pairs.warning,
        "accuracy": folds.accuracy,
        "accuracy_interval": wilson(int(folds.right.sum()), len(folds.right)),
        "standard_deviation": folds.deviation,
        "standard_error": folds.standard_error,
        "threshold": float(folds.thresholds.mean()),
        "fold_accuracies": folds.accuracies.tolist(),
        "fold_thresholds": folds.thresholds.tolist(),
        **_curve(one.pairs.curve, PAIR_FARS),
    }


def _curve(curve: Curve, fars: Sequence[float]) -> dict[str, Any]:
    known = curve.genuine and curve.impostors
    return {
        "genuine": curve.genuine,
        "impostors": curve.impostors,
        "area": curve.area if known else None,
        "tar_at_far": [{"far": far, **(_point(curve.at_far(far)) or {"tar": None})} for far in fars],
        "roc": curve.roc(),
    }


def _point(point: Point | None) -> dict[str, Any] | None:
    return None if point is None else {**asdict(point), "tar": point.tar}


def _retrieval(one: Evaluation) -> dict[str, Any] | None:
    if one.retrieval is None:
        return None
    means, intervals = one.retrieval.means, one.retrieval.intervals()
    return {
        "queries": len(one.retrieval.values),
        "people": len(np.unique(one.retrieval.person)),
        "left_out": one.retrieval.alone,
        **{
            name: {"value": float(mean), "interval": interval.tolist()}
            for name, mean, interval in zip(NAMES, means, intervals, strict=True)
        },
    }


def _gallery(curve: Curve, photographs: int) -> dict[str, Any]:
    last = curve.above_all()
    return {
        "photographs": photographs,
        "thresholds": [
            {"expected_false_hits": wanted.expected, **(_point(wanted.point) or {"threshold": None})}
            for wanted in thresholds_for(curve, photographs)
        ],
        "above_all_impostors": last.threshold,
        "expected_false_hits_above_at_most": 3 * photographs / curve.impostors if curve.impostors else None,
    }
