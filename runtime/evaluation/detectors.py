"""Compare detectors: their speed, the faces that they find, and how good the embeddings of these faces are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.intervals import wilson
from ..records import Status
from .evaluate import Evaluation

# Differences too small to matter, however many photographs prove them.
_MIN_FOUND_DIFFERENCE = 0.001
_MIN_MERIT_DIFFERENCE = 0.0015


@dataclass(frozen=True, slots=True)
class BoundedShare:
    """A share from 0 to 1, and the lower end of its 95 % interval."""

    value: float
    low: float


@dataclass(frozen=True, slots=True)
class DetectorFigures:
    """What one detector did on a folder.

    Attributes:
        label: of the detector.
        licence: that its model file states; empty when it is not known.
        found: of the photographs that could be decoded, those in which a face was found.
        merit: what the embeddings behind it are judged by: the accuracy on the pairs; without pairs, recall@1.
        no_face, low_quality, multiple: photographs.
        images_per_s: of the whole run that made its file; None when nobody knows.
        detect_images_per_s: of the stage that detects, all its threads together, while it works; None as above.
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


def figures_of(label: str, licence: str, one: Evaluation) -> DetectorFigures:
    """Of an evaluation that looked for faces."""
    counts = np.bincount(one.embedded.status, minlength=len(Status))
    met = (Status.EMBEDDED, Status.NO_FACE, Status.LOW_QUALITY, Status.MULTIPLE_FACES)
    decoded = int(sum(counts[status] for status in met))
    summary = one.embedded.summary
    return DetectorFigures(
        label=label,
        licence=licence,
        found=_share(decoded - int(counts[Status.NO_FACE]), decoded),
        merit=_merit(one),
        no_face=int(counts[Status.NO_FACE]),
        low_quality=int(counts[Status.LOW_QUALITY]),
        multiple=int(counts[Status.MULTIPLE_FACES]),
        images_per_s=(summary.images_per_s or None) if summary else None,
        detect_images_per_s=(summary.stages.get("detect", {}).get("images_per_s") or None) if summary else None,
    )


def _share(count: int, of: int) -> BoundedShare:
    return BoundedShare(count / of, wilson(count, of)[0]) if of else BoundedShare(0.0, 0.0)


def _merit(one: Evaluation) -> BoundedShare:
    if one.pairs is not None:
        right = one.pairs.folds.right
        return BoundedShare(one.pairs.folds.accuracy, wilson(int(right.sum()), len(right))[0])
    if one.retrieval is None:
        return BoundedShare(0.0, 0.0)
    first = one.retrieval.values[:, 0]
    # People drawn anew are never wrong where nobody was: Wilson's interval has a width there too.
    low = min(float(one.retrieval.intervals()[0, 0]), wilson(int(first.sum()), len(first))[0])
    return BoundedShare(float(first.mean()), low)


def recommend(detectors: Sequence[DetectorFigures]) -> str:
    """Recommend a detector, in a sentence with the reason: the fastest of those that are about as good as the best.

    A detector is about as good if it lies in the 95 % interval of the best one, in faces and in merit: a difference
    that a few other photographs could reverse excludes no detector.

    Args:
        detectors: at least one.
    """
    good = [
        one
        for one in detectors
        if _about_as_good(one.found, [other.found for other in detectors], _MIN_FOUND_DIFFERENCE)
        and _about_as_good(one.merit, [other.merit for other in detectors], _MIN_MERIT_DIFFERENCE)
    ] or [max(detectors, key=lambda one: (one.found.value, one.merit.value))]
    if len(good) == 1:
        (chosen,) = good
        why = "the best of them"
    elif unknown := [one.label for one in good if not one.detect_images_per_s]:
        return (
            f"{_listed(good)} are about as good as each other, and which is the fastest is not known: nothing was "
            f"measured of {', '.join(unknown)}. --force embeds anew and measures."
        )
    else:
        chosen = _fastest(good)
        why = f"the fastest of the {len(good)} that are about as good as the best"
    faces = f"faces in {100 * chosen.found.value:.2f} % of the photographs"
    return f"Take {chosen.label}: {why} ({faces})."


def _about_as_good(share: BoundedShare, shares: Sequence[BoundedShare], min_difference: float) -> bool:
    best = max(shares, key=lambda other: other.value)
    return share.value >= min(best.low, best.value - min_difference)


def _fastest(detectors: Sequence[DetectorFigures]) -> DetectorFigures:
    return max(detectors, key=lambda one: one.detect_images_per_s or 0.0)


def _listed(detectors: Sequence[DetectorFigures]) -> str:
    *first, last = [one.label for one in detectors]
    return f"{', '.join(first)} and {last}"
