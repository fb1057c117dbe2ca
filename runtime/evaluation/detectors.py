"""Detectors beside each other: how fast, how many faces, and how good the embeddings are that come out behind them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.intervals import wilson
from ..records import Status
from .evaluate import Evaluation

# What nobody would notice, however many photographs prove it.
_HARDLY_FEWER = 0.001
_HARDLY_WORSE = 0.0015
_RESEARCH_ONLY = re.compile(r"non-?commercial|\bresearch\b|\bNC\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Share:
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
    found: Share
    merit: Share
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


def _share(count: int, of: int) -> Share:
    return Share(count / of, wilson(count, of)[0]) if of else Share(0.0, 0.0)


def _merit(one: Evaluation) -> Share:
    if one.pairs is not None:
        right = one.pairs.folds.right
        return Share(one.pairs.folds.accuracy, wilson(int(right.sum()), len(right))[0])
    if one.retrieval is None:
        return Share(0.0, 0.0)
    first = one.retrieval.values[:, 0]
    # People drawn anew are never wrong where nobody was: Wilson's interval has a width there too.
    low = min(float(one.retrieval.intervals()[0, 0]), wilson(int(first.sum()), len(first))[0])
    return Share(float(first.mean()), low)


def recommend(found: Sequence[DetectorFigures]) -> str:
    """Which detector to take, and why, in words: the fastest of those that are about as good as the best.

    About as good is what lies in the 95 % interval of the best one, in faces and in merit: a difference that a few
    other photographs would turn round rules nobody out.

    Args:
        found: at least one.
    """
    good = [
        one
        for one in found
        if _about_as_good(one.found, [other.found for other in found], _HARDLY_FEWER)
        and _about_as_good(one.merit, [other.merit for other in found], _HARDLY_WORSE)
    ] or [max(found, key=lambda one: (one.found.value, one.merit.value))]
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
    return f"Take {chosen.label}: {why} ({faces}).{_of_licences(chosen, good)}"


def research_only(licence: str) -> bool:
    """Whether the words of a licence forbid other use than research."""
    return bool(_RESEARCH_ONLY.search(licence))


def _about_as_good(mine: Share, others: Sequence[Share], hardly: float) -> bool:
    best = max(others, key=lambda share: share.value)
    return mine.value >= min(best.low, best.value - hardly)


def _fastest(some: Sequence[DetectorFigures]) -> DetectorFigures:
    return max(some, key=lambda one: one.detect_images_per_s or 0.0)


def _listed(some: Sequence[DetectorFigures]) -> str:
    *first, last = [one.label for one in some]
    return f"{', '.join(first)} and {last}"


def _of_licences(chosen: DetectorFigures, good: Sequence[DetectorFigures]) -> str:
    """A word where the licence of the chosen one may stand in the way."""
    if not research_only(chosen.licence):
        return ""
    free = [one for one in good if one.licence and not research_only(one.licence)]
    instead = f"; about as good, and free of that: {_fastest(free).label} ({_fastest(free).licence})" if free else ""
    return f" But its licence is {chosen.licence!r}{instead}."
