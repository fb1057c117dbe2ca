"""Measure one engine on one folder."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..interrupt import Control
from ..metrics import allpairs
from ..metrics.curve import Curve, curve_of_counts, curve_of_scores
from ..metrics.folds import Folds, cross_validate
from ..metrics.pairs import LabelledPairs
from ..metrics.retrieval import Retrieval, retrieve
from ..pipeline.request import Request
from ..progress import Listener
from .embedded import EmbeddedFolder, embed_folder

logger = logging.getLogger(__name__)

_MAX_MISSING_SHARE = 0.01  # of the photos in pairs; beyond it, missing photos shape the figures as much as the engine


@dataclass(frozen=True, slots=True)
class PairFigures:
    """Figures on the pairs of a pairs file.

    Attributes:
        folds: accuracy, fold by fold. A pair with a missing photo counts as wrong.
        curve: rates over the scores; a missing photo is never accepted.
        missing: pairs with a photo that could not be embedded or is not in the folder.
        photographs: photos that the pairs file names.
        absent: those that are not in the folder.
        lost: those that are in the folder but could not be embedded.
    """

    folds: Folds
    curve: Curve
    missing: int
    photographs: int
    absent: int
    lost: int

    @property
    def warning(self) -> str:
        """Warning to show before the figures; empty if few photos are missing."""
        if self.absent + self.lost <= _MAX_MISSING_SHARE * self.photographs:
            return ""
        return (
            f"of {self.photographs:,} photos in the pairs, {self.absent:,} are not in the folder and {self.lost:,} "
            f"could not be embedded; for that reason {self.missing:,} of {len(self.folds.right):,} pairs count as "
            f"wrong, whatever the engine"
        )


@dataclass(frozen=True, slots=True)
class Lookalikes:
    """Two photos, by path below the folder, in the sub-folders of two people, and their score."""

    score: float
    one: str
    other: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one engine on one folder.

    Attributes:
        embedded: the embedded folder.
        pairs: None without a pairs file.
        curve: rates of all photos against each other, on a grid of 0.0001.
        sampled: whether the impostor pairs are a sample.
        retrieval: None if no person has two photos.
        people: number of people with an embedded photo.
        lookalikes: the most similar photos of two people, best first; a wrong name shows here.
    """

    embedded: EmbeddedFolder
    pairs: PairFigures | None
    curve: Curve
    sampled: bool
    retrieval: Retrieval | None
    people: int
    lookalikes: tuple[Lookalikes, ...]


def evaluate(
    request: Request,
    pairs: LabelledPairs | None = None,
    *,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Evaluation:
    """Embed a folder as `process` does, and measure. For several requests, call it for each.

    Args:
        request: one input folder with a sub-folder per person. The output is kept and reused by a later evaluation.
        pairs: pairs to judge; None for none.
        listener, control: see `pipeline.run.process`.
    Raises:
        ConfigError: there is nothing to measure.
        FacemillError: embedding failed, see `pipeline.run.process`.
    """
    return measure(embed_folder(request, listener=listener, control=control), pairs)


def measure(
    embedded: EmbeddedFolder, pairs: LabelledPairs | None = None, *, max_pairs: int = allpairs.MAX_PAIRS
) -> Evaluation:
    """Measure a folder that is embedded already.

    Args:
        embedded: the embedded folder.
        pairs: pairs to judge; None for none.
        max_pairs: compare at most this many impostor pairs, a seeded sample if there are more.
    Raises:
        ConfigError: no two photos, or no pair, can be compared.
    """
    has_vector = embedded.has_vector  # (M,) bool
    person, lost = embedded.person[has_vector], embedded.person[~has_vector]
    logger.info("comparing %d photos with each other", len(person))
    genuine = allpairs.genuine_counts(embedded.vectors, person)
    impostors = allpairs.impostor_scores(embedded.vectors, person, max_pairs=max_pairs)
    if not genuine.any() and not impostors.counts.any():
        raise ConfigError(
            f"nothing to compare: {len(person):,} of {len(has_vector):,} photos could be embedded, no two of them in "
            f"sub-folders; expected: two. Keep the embedding file with -o; its /outcomes give the reasons"
        )
    unscored = _count_genuine_pairs(embedded.person) - int(genuine.sum())
    labelled = int((person >= 0).sum())
    return Evaluation(
        embedded,
        None if pairs is None else _judge(embedded, pairs),
        curve_of_counts(genuine, impostors.counts, unscored=unscored),
        labelled * (labelled - 1) // 2 > max_pairs,
        retrieve(embedded.vectors, person, lost),
        len(np.unique(person[person >= 0])),
        _lookalikes(embedded, impostors),
    )


def _judge(embedded: EmbeddedFolder, pairs: LabelledPairs) -> PairFigures:
    names = (*pairs.left, *pairs.right)
    scan_rows = embedded.rows(names)  # (2 P,)
    # Row of the vectors by scan row; the last element, -1, is for photos that are not in the folder.
    vector_row = np.full(len(embedded.paths) + 1, -1)
    vector_row[:-1][embedded.has_vector] = np.arange(len(embedded.vectors))
    left, right = vector_row[scan_rows].reshape(2, -1)  # (P,) each
    scored = (left >= 0) & (right >= 0)
    scores = np.full(len(left), np.nan, np.float32)
    scores[scored] = np.einsum("pd,pd->p", embedded.vectors[left[scored]], embedded.vectors[right[scored]])
    unique = np.array(list(dict(zip(names, scan_rows.tolist(), strict=True)).values()))  # scan rows, each photo once
    return PairFigures(
        cross_validate(scores, pairs.same, pairs.fold),
        curve_of_scores(scores, pairs.same),
        int((~scored).sum()),
        len(unique),
        int((unique < 0).sum()),
        int(((unique >= 0) & (vector_row[unique] < 0)).sum()),
    )


def _lookalikes(embedded: EmbeddedFolder, impostors: allpairs.Impostors) -> tuple[Lookalikes, ...]:
    scan_rows = np.flatnonzero(embedded.has_vector)[impostors.rows]  # (k, 2)
    return tuple(
        Lookalikes(score, *(os.fsdecode(embedded.paths[row]) for row in pair))
        for score, pair in zip(impostors.scores.tolist(), scan_rows.tolist(), strict=True)
    )


def _count_genuine_pairs(person: NDArray[np.int64]) -> int:
    """Count the pairs of photos of one person."""
    counts = np.unique(person[person >= 0], return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())
