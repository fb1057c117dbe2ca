"""Error rates at every threshold: from scores one by one, or from counts on a grid when there are too many to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

# Thresholds of the grid lie 0.0001 apart from -1 to 1: a count at one of them is exact, and it reads well.
STEPS = 10_000
BINS = 2 * STEPS + 1


@dataclass(frozen=True, slots=True)
class Point:
    """What happens at one threshold.

    Attributes:
        far: the false accept rate that was asked for.
        threshold: the lowest one that keeps to it; a score that equals it is accepted.
        false_accepts: impostor pairs accepted there, of `impostors`.
        accepted: genuine pairs accepted there, of `genuine`.
    """

    far: float
    threshold: float
    false_accepts: int
    impostors: int
    accepted: int
    genuine: int

    @property
    def tar(self) -> float | None:
        """True accept rate; None where there is no genuine pair."""
        return self.accepted / self.genuine if self.genuine else None


@dataclass(frozen=True, slots=True)
class Curve:
    """What is accepted at each of T thresholds, ascending; at the last one, nothing.

    Attributes:
        thresholds: (T,) float64; `score >= threshold` is accepted.
        accepted: (T,) int64, genuine pairs.
        false_accepts: (T,) int64, impostor pairs.
        genuine: all genuine pairs; those without a score are never accepted.
        impostors: impostor pairs with a score.
    """

    thresholds: NDArray[np.float64]
    accepted: NDArray[np.int64]
    false_accepts: NDArray[np.int64]
    genuine: int
    impostors: int

    def at_far(self, far: float) -> Point | None:
        """The point whose false accept rate is the highest that does not exceed `far`.

        Tied scores are accepted together or not at all, so the rate may stay below `far`.

        Returns:
            None where not even one false accept would be allowed: fewer impostor pairs than 1 / far cannot show it.
        """
        allowed = int(far * self.impostors + 1e-6)  # 1e-3 * 3000 must not become 2
        if allowed < 1:
            return None
        return self._point(far, int(np.argmax(self.false_accepts <= allowed)))

    def above_all(self) -> Point:
        """The point of the lowest threshold that no impostor pair reaches."""
        return self._point(0.0, int(np.argmax(self.false_accepts == 0)))

    def _point(self, far: float, where: int) -> Point:
        return Point(
            far,
            float(self.thresholds[where]),
            int(self.false_accepts[where]),
            self.impostors,
            int(self.accepted[where]),
            self.genuine,
        )

    @property
    def area(self) -> float:
        """Area under the ROC: how often a genuine pair scores higher than an impostor pair, ties counting half."""
        far = np.concatenate([self.false_accepts / max(1, self.impostors), [0.0]])
        tar = np.concatenate([self.accepted / max(1, self.genuine), [0.0]])
        return float(((far[:-1] - far[1:]) * (tar[:-1] + tar[1:]) / 2).sum())

    def roc(self, points: int = 200) -> dict[str, list[float]]:
        """`far`, `tar` and `threshold` at up to `points` false accept rates, ascending, evenly in their logarithm."""
        if not self.impostors or not self.genuine:
            return {"far": [], "tar": [], "threshold": []}
        rates = np.geomspace(1 / self.impostors, 1, points)
        where = np.unique([int(np.argmax(self.false_accepts <= rate * self.impostors + 1e-6)) for rate in rates])[::-1]
        return {
            "far": (self.false_accepts[where] / self.impostors).tolist(),
            "tar": (self.accepted[where] / self.genuine).tolist(),
            "threshold": self.thresholds[where].tolist(),
        }


def curve_of_scores(scores: NDArray[np.float32], same: NDArray[np.bool_]) -> Curve:
    """Every score is a threshold.

    Args:
        scores: (P,) float32; NaN for a pair of which a photograph could not be embedded. A genuine one is never
            accepted; an impostor one is left out, so that failing on photographs cannot lower the false accept rate.
        same: (P,) bool.
    Raises:
        ConfigError: no pair has a score.
    """
    there = ~np.isnan(scores)
    if not there.any():
        raise ConfigError(
            "no pair has both photographs embedded; wanted: one at least. See /outcomes in the embedding file for why"
        )
    values = np.unique(scores[there]).astype(np.float64)
    thresholds = np.append(values, np.nextafter(values[-1], np.inf))  # above the highest, nothing is accepted
    genuine, impostors = np.sort(scores[there & same]), np.sort(scores[there & ~same])
    return Curve(
        thresholds,
        len(genuine) - np.searchsorted(genuine, thresholds),
        len(impostors) - np.searchsorted(impostors, thresholds),
        int(same.sum()),
        len(impostors),
    )


def count_scores(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """(BINS,) int64: how many of the cosines lie from one threshold of the grid to the next.

    Args:
        scores: of any shape, finite; those that rounding took beyond -1 or 1 count as -1 or 1.
    """
    # In float64 the product of a float32 and 10,000 is exact, so a score on the grid lands on its own side of it.
    bins = np.floor(scores.astype(np.float64) * STEPS).astype(np.int64)
    return np.bincount(np.clip(bins, -STEPS, STEPS).ravel() + STEPS, minlength=BINS).astype(np.int64)


def curve_of_counts(genuine: NDArray[np.int64], impostors: NDArray[np.int64], *, unscored: int = 0) -> Curve:
    """Every threshold of the grid.

    Args:
        genuine, impostors: (BINS,) int64, from `count_scores`.
        unscored: genuine pairs of which a photograph could not be embedded: never accepted.
    """
    thresholds = np.arange(-STEPS, STEPS + 2) / STEPS  # one more: above 1, nothing is accepted

    def at_least(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.append(counts[::-1].cumsum()[::-1], 0)

    return Curve(
        thresholds, at_least(genuine), at_least(impostors), int(genuine.sum()) + unscored, int(impostors.sum())
    )
