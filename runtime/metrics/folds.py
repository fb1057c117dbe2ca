"""Compute accuracy over folds: each fold uses the best threshold of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class Folds:
    """Results of `cross_validate`: F folds, P pairs.

    Attributes:
        accuracies: (F,) float64, by fold.
        thresholds: (F,) float64, by fold.
        right: (P,) bool, whether a pair was judged correctly.
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
    """Judge each fold with the threshold that is best for the other folds; `score >= threshold` is one person.

    A pair without a score is wrong at any threshold. A single fold uses the best threshold of its own pairs, which is
    optimistic.

    Args:
        scores: (P,) float32; NaN if a photo could not be embedded.
        same: (P,) bool, whether a pair shows one person.
        fold: (P,) int64, 0 to F - 1, none missing.
    Raises:
        ConfigError: the other folds of some fold hold no score.
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
                f"no threshold for fold {number + 1}: no pair of the other folds has both photos embedded. "
                f"/outcomes in the embedding file gives the reasons"
            )
        thresholds[number] = best_threshold(scores[learn], same[learn])
        right[test] = ~np.isnan(scores[test]) & ((scores[test] >= thresholds[number]) == same[test])
        accuracies[number] = right[test].mean()
    return Folds(accuracies, thresholds, right)


def best_threshold(scores: NDArray[np.float32], same: NDArray[np.bool_]) -> float:
    """Return the threshold that judges most pairs correctly; of several, the middle one, which favours neither error.

    Candidates are the midpoints between neighbouring scores, and one beyond either end.

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
