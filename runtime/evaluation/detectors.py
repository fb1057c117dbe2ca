"""Compare detectors: speed, faces detected, and quality of the embeddings of these faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.intervals import wilson
from ..records import Status
from .evaluate import Evaluation

# Shares. Smaller differences do not matter, however many photos prove them.
_MIN_FOUND_DIFFERENCE = 0.001
_MIN_MERIT_DIFFERENCE = 0.0015


@dataclass(frozen=True, slots=True)
class BoundedShare:
    """A share, 0 to 1, and the lower end of its 95 % interval."""

    value: float
    low: float


@dataclass(frozen=True, slots=True)
class DetectorFigures:
    """Figures of one detector on a folder.

    Attributes:
        label: name of the detector.
        licence: licence that its model file states; empty if unknown.
        found: share of decoded photos with a detected face.
        merit: quality of the embeddings: accuracy on the pairs, or recall@1 without pairs.
        no_face, low_quality, multiple: photos with each outcome.
        images_per_s: rate of the whole run that made the file; None if unknown.
        detect_images_per_s: rate of the detection stage while it works, all threads together; None if unknown.
    """

    label: str
    licence: str
    found: BoundedShare
    merit: BoundedShare
    no_face: int
    low_quality: int
    multiple: int
    images_per_s: float | None
    detect_images_per_s: float | None


def figures_of(label: str, licence: str, evaluation: Evaluation) -> DetectorFigures:
    """Compute the figures of a detector from an evaluation that detected faces."""
    counts = np.bincount(evaluation.embedded.status, minlength=len(Status))
    decoded_statuses = (Status.EMBEDDED, Status.NO_FACE, Status.LOW_QUALITY, Status.MULTIPLE_FACES)
    decoded = int(sum(counts[status] for status in decoded_statuses))
    summary = evaluation.embedded.summary
    return DetectorFigures(
        label=label,
        licence=licence,
        found=_share(decoded - int(counts[Status.NO_FACE]), decoded),
        merit=_merit(evaluation),
        no_face=int(counts[Status.NO_FACE]),
        low_quality=int(counts[Status.LOW_QUALITY]),
        multiple=int(counts[Status.MULTIPLE_FACES]),
        images_per_s=(summary.images_per_s or None) if summary else None,
        detect_images_per_s=(summary.stages.get("detect", {}).get("images_per_s") or None) if summary else None,
    )


def _share(count: int, total: int) -> BoundedShare:
    return BoundedShare(count / total, wilson(count, total)[0]) if total else BoundedShare(0.0, 0.0)


def _merit(evaluation: Evaluation) -> BoundedShare:
    if evaluation.pairs is not None:
        right = evaluation.pairs.folds.right
        return BoundedShare(evaluation.pairs.folds.accuracy, wilson(int(right.sum()), len(right))[0])
    if evaluation.retrieval is None:
        return BoundedShare(0.0, 0.0)
    recall_at_1 = evaluation.retrieval.values[:, 0]
    # Without a single error, the bootstrap's interval has no width; Wilson's has.
    low = min(float(evaluation.retrieval.intervals()[0, 0]), wilson(int(recall_at_1.sum()), len(recall_at_1))[0])
    return BoundedShare(float(recall_at_1.mean()), low)


def recommend(detectors: Sequence[DetectorFigures]) -> str:
    """Recommend the fastest of the detectors that are about as good as the best: one sentence with the reason.

    A detector is about as good if it is within the 95 % interval of the best one, in faces and in merit. So a
    difference that a few other photos could reverse excludes no detector.

    Args:
        detectors: at least one.
    """
    good = [
        figures
        for figures in detectors
        if _about_as_good(figures.found, [each.found for each in detectors], _MIN_FOUND_DIFFERENCE)
        and _about_as_good(figures.merit, [each.merit for each in detectors], _MIN_MERIT_DIFFERENCE)
    ] or [max(detectors, key=lambda figures: (figures.found.value, figures.merit.value))]
    if len(good) == 1:
        (chosen,) = good
        reason = "the best of them"
    elif unmeasured := [figures.label for figures in good if not figures.detect_images_per_s]:
        return (
            f"{_join_labels(good)} are about equally good. The fastest is unknown, because no speed was measured for "
            f"{', '.join(unmeasured)}. --force embeds again and measures it."
        )
    else:
        chosen = _fastest(good)
        reason = f"the fastest of the {len(good)} that are about as good as the best"
    faces = f"faces in {100 * chosen.found.value:.2f} % of the photos"
    return f"Take {chosen.label}: {reason} ({faces})."


def _about_as_good(share: BoundedShare, shares: Sequence[BoundedShare], min_difference: float) -> bool:
    best = max(shares, key=lambda share: share.value)
    return share.value >= min(best.low, best.value - min_difference)


def _fastest(detectors: Sequence[DetectorFigures]) -> DetectorFigures:
    return max(detectors, key=lambda figures: figures.detect_images_per_s or 0.0)


def _join_labels(detectors: Sequence[DetectorFigures]) -> str:
    *first, last = [figures.label for figures in detectors]
    return f"{', '.join(first)} and {last}"
