"""Detectors beside each other: how fast, how many faces, and how good the embeddings are that come out behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..records import Status
from .evaluate import Evaluation

# The recommended one finds hardly fewer faces than the best, and is hardly less accurate.
_FEWER_FACES = 0.001
_LESS_ACCURATE = 0.0015


@dataclass(frozen=True, slots=True)
class DetectorFigures:
    """What one detector did on a folder.

    Attributes:
        label: of the detector.
        found: share of the photographs that could be decoded in which a face was found.
        no_face, low_quality, multiple: photographs.
        images_per_s: of the whole run; 0 when its file was there already.
        detect_images_per_s: of the stage that detects, all its threads together, while it works.
        accuracy: ten-fold, of the pairs; None without pairs.
        recall: recall@1; None when nobody has two photographs.
    """

    label: str
    found: float
    no_face: int
    low_quality: int
    multiple: int
    images_per_s: float
    detect_images_per_s: float
    accuracy: float | None
    recall: float | None


def figures_of(label: str, one: Evaluation) -> DetectorFigures:
    """Of an evaluation that looked for faces."""
    counts = np.bincount(one.embedded.status, minlength=len(Status))
    met = (Status.EMBEDDED, Status.NO_FACE, Status.LOW_QUALITY, Status.MULTIPLE_FACES)
    decoded = int(sum(counts[status] for status in met))
    summary = one.embedded.summary
    return DetectorFigures(
        label=label,
        found=1 - counts[Status.NO_FACE] / decoded if decoded else 0.0,
        no_face=int(counts[Status.NO_FACE]),
        low_quality=int(counts[Status.LOW_QUALITY]),
        multiple=int(counts[Status.MULTIPLE_FACES]),
        images_per_s=summary.images_per_s if summary else 0.0,
        detect_images_per_s=summary.stages.get("detect", {}).get("images_per_s", 0.0) if summary else 0.0,
        accuracy=one.pairs.folds.accuracy if one.pairs else None,
        recall=float(one.retrieval.means[0]) if one.retrieval else None,
    )


def recommend(found: Sequence[DetectorFigures]) -> str:
    """Which detector to take, and why, in a sentence: the fastest of those that are about as good as the best.

    Args:
        found: at least one.
    """
    best_found = max(one.found for one in found)
    merits = [merit(one) for one in found]
    best = max(merits)
    good = [
        one
        for one, mine in zip(found, merits, strict=True)
        if one.found >= best_found - _FEWER_FACES and mine >= best - _LESS_ACCURATE
    ] or [max(found, key=lambda one: (one.found, merit(one)))]
    chosen = max(good, key=lambda one: one.detect_images_per_s)
    others = len(good) - 1
    why = f"the fastest of the {len(good)} that are about as good as the best" if others else "the best of them"
    return f"Take {chosen.label}: {why} (faces in {100 * chosen.found:.2f} % of the photographs)."


def merit(one: DetectorFigures) -> float:
    """What the embeddings behind a detector are judged by."""
    return one.accuracy if one.accuracy is not None else one.recall or 0.0
