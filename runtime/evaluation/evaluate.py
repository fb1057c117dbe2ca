"""One engine on one folder: its figures."""

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

_FEW = 0.01  # of the photographs of the pairs: if more are missing, the figures are of them as much as of the engine


@dataclass(frozen=True, slots=True)
class PairFigures:
    """What the pairs of a pairs file give.

    Attributes:
        folds: accuracy, fold by fold. A pair of which a photograph is missing is judged wrongly.
        curve: of the scores; a missing photograph is never accepted.
        missing: pairs with a photograph that could not be embedded or is not in the folder.
        photographs: that the pairs file names.
        absent: of them, not in the folder.
        lost: of them, in the folder, and not embedded.
    """

    folds: Folds
    curve: Curve
    missing: int
    photographs: int
    absent: int
    lost: int

    @property
    def warning(self) -> str:
        """What a reader must know before the figures; empty where few photographs are missing."""
        if self.absent + self.lost <= _FEW * self.photographs:
            return ""
        return (
            f"of the {self.photographs:,} photographs of the pairs {self.absent:,} are not in the folder and "
            f"{self.lost:,} could not be embedded; {self.missing:,} of {len(self.folds.right):,} pairs count as judged "
            f"wrongly for that, whatever the engine"
        )


@dataclass(frozen=True, slots=True)
class Lookalikes:
    """Two photographs below the folder, of two people as it has them, and their score."""

    score: float
    one: str
    other: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one engine on one folder.

    Attributes:
        embedded: what the pipeline made of the folder.
        pairs: None without a pairs file.
        curve: of all photographs against each other, on the grid of 0.0001.
        sampled: whether a draw of the impostor pairs had to do.
        retrieval: None when nobody has two photographs.
        people: with a photograph that was embedded.
        lookalikes: the most alike photographs of two people, best first; a wrong name shows here.
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
        request: its input is one folder with a sub-folder for each person; its output is kept, and found whole again.
        pairs: to judge; None for none.
        listener, control: see `pipeline.run.process`.
    Raises:
        ConfigError: there is nothing to measure.
        FacemillError: as `pipeline.run.process` says.
    """
    return measure(embed_folder(request, listener=listener, control=control), pairs)


def measure(
    embedded: EmbeddedFolder, pairs: LabelledPairs | None = None, *, most: int = allpairs.MOST_PAIRS
) -> Evaluation:
    """The figures of photographs that are embedded.

    Args:
        embedded: the photographs.
        pairs: to judge; None for none.
        most: impostor pairs to look at; of more, a seeded draw.
    Raises:
        ConfigError: no two of them, or no pair, can be compared.
    """
    here = embedded.here
    person, lost = embedded.person[here], embedded.person[~here]
    logger.info("comparing %d photographs with each other", len(person))
    genuine = allpairs.genuine_counts(embedded.vectors, person)
    impostors = allpairs.impostor_scores(embedded.vectors, person, most=most)
    if not genuine.any() and not impostors.counts.any():
        raise ConfigError(
            f"nothing to compare: {len(person):,} of {len(here):,} photographs could be embedded, no two of them in "
            f"sub-folders; wanted: two. See /outcomes in the embedding file, which -o keeps, for why"
        )
    unscored = _pairs_within(embedded.person) - int(genuine.sum())
    known = int((person >= 0).sum())
    return Evaluation(
        embedded,
        None if pairs is None else _judge(embedded, pairs),
        curve_of_counts(genuine, impostors.counts, unscored=unscored),
        known * (known - 1) // 2 > most,
        retrieve(embedded.vectors, person, lost),
        len(np.unique(person[person >= 0])),
        _lookalikes(embedded, impostors),
    )


def _judge(embedded: EmbeddedFolder, pairs: LabelledPairs) -> PairFigures:
    names = (*pairs.left, *pairs.right)
    scanned = embedded.rows(names)  # (2 P,)
    row = np.full(len(embedded.paths) + 1, -1)  # of the vectors, by scan row; the last is for those not in the folder
    row[:-1][embedded.here] = np.arange(len(embedded.vectors))
    left, right = row[scanned].reshape(2, -1)  # (P,) each
    there = (left >= 0) & (right >= 0)
    scores = np.full(len(left), np.nan, np.float32)
    scores[there] = np.einsum("pd,pd->p", embedded.vectors[left[there]], embedded.vectors[right[there]])
    each = np.array(list(dict(zip(names, scanned.tolist(), strict=True)).values()))  # scan rows, each photograph once
    return PairFigures(
        cross_validate(scores, pairs.same, pairs.fold),
        curve_of_scores(scores, pairs.same),
        int((~there).sum()),
        len(each),
        int((each < 0).sum()),
        int(((each >= 0) & (row[each] < 0)).sum()),
    )


def _lookalikes(embedded: EmbeddedFolder, impostors: allpairs.Impostors) -> tuple[Lookalikes, ...]:
    scanned = np.flatnonzero(embedded.here)[impostors.rows]  # (k, 2)
    return tuple(
        Lookalikes(score, *(os.fsdecode(embedded.paths[row]) for row in pair))
        for score, pair in zip(impostors.scores.tolist(), scanned.tolist(), strict=True)
    )


def _pairs_within(person: NDArray[np.int64]) -> int:
    """Pairs of photographs of one person."""
    counts = np.unique(person[person >= 0], return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())
