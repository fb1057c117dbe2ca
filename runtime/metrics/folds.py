"""Accuracy over folds: the threshold of each is the best one of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class Folds:
    """What cross_validate found.

    Attributes:
        accuracies: (F,) float64, by fold.
        thresholds: (F,) float64, by fold.
        right: (P,) bool, whether a pair was judged rightly.
    """

    accuracies: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    right: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """Mean over the folds."""
        return float(self.accuracies.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation over the folds; 0 for a single one."""
        return float(self.accuracies.std(ddof=1)) if len(self.accuracies) > 1 else 0.0

    @property
    def standard_error(self) -> float:
        """Of the accuracy, as the protocol reports it: deviation / sqrt(F)."""
        return self.deviation / math.sqrt(len(self.accuracies))


def cross_validate(scores: NDArray[np.float32], same: NDArray[np.bool_], fold: NDArray[np.int64]) -> Folds:
    """Judge each fold with the threshold that judges the other folds best; `score >= threshold` is one person.

    A pair without a score is wrong at any threshold. A single fold has no others: its threshold is the best one of its
    own pairs, which flatters it.

    Args:
        scores: (P,) float32; NaN where a photograph could not be embedded.
        same: (P,) bool.
        fold: (P,) int64, 0 to F - 1, each of them there.
    Raises:
        ConfigError: there is no score at all outside some fold.
    Source: Huang et al. 2007, Labeled Faces in the Wild, view 2.
    """
    folds = int(fold.max()) + 1
    accuracies, thresholds = np.empty(folds), np.empty(folds)
    right = np.zeros(len(scores), np.bool_)
    for number in range(folds):
        test = fold == number
        learn = (~test if folds > 1 else test) & ~np.isnan(scores)
        if not learn.any():
            raise ConfigError(
                f"no pair to choose a threshold for fold {number + 1} from: none has both photographs embedded. "
                f"Look at /outcomes in the embedding file for the reasons"
            )
        thresholds[number] = best_threshold(scores[learn], same[learn])
        right[test] = ~np.isnan(scores[test]) & ((scores[test] >= thresholds[number]) == same[test])
        accuracies[number] = right[test].mean()
    return Folds(accuracies, thresholds, right)


def best_threshold(scores: NDArray[np.float32], same: NDArray[np.bool_]) -> float:
    """The threshold that judges most pairs rightly; of several, the middle one, which favours neither error.

    Candidates are the middles between neighbouring scores, and one beyond either end.

    Args:
        scores: (P,) float32, finite, P >= 1.
        same: (P,) bool.
    """
    values = np.unique(scores.astype(np.float64))
    candidates = np.concatenate([values[:1] - 1, (values[1:] + values[:-1]) / 2, values[-1:] + 1])  # (C,) ascending
    accepted = same.sum() - np.searchsorted(np.sort(scores[same]), candidates)
    rejected = np.searchsorted(np.sort(scores[~same]), candidates)
    best = np.flatnonzero(accepted + rejected == (accepted + rejected).max())
    return float(candidates[best[len(best) // 2]])
