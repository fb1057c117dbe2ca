"""Compute error rates at every threshold, from single scores or, if they are too many, from counts on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

# Grid thresholds are 0.0001 apart, from -1 to 1. Counts at them are exact, and they are easy to read.
STEPS = 10_000  # per unit of score
BINS = 2 * STEPS + 1


@dataclass(frozen=True, slots=True)
class Point:
    """Counts at one threshold.

    Attributes:
        far: the requested false accept rate.
        threshold: the lowest threshold that keeps to it; a score equal to it is accepted.
        false_accepts: accepted impostor pairs, of `impostors`.
        accepted: accepted genuine pairs, of `genuine`.
    """

    far: float
    threshold: float
    false_accepts: int
    impostors: int
    accepted: int
    genuine: int

    @property
    def tar(self) -> float | None:
        """True accept rate, 0 to 1; None without a genuine pair."""
        return self.accepted / self.genuine if self.genuine else None


@dataclass(frozen=True, slots=True)
class Curve:
    """Accepted pairs at each of T ascending thresholds; the last threshold accepts none.

    Attributes:
        thresholds: (T,) float64; `score >= threshold` is accepted.
        accepted: (T,) int64, accepted genuine pairs.
        false_accepts: (T,) int64, accepted impostor pairs.
        genuine: number of genuine pairs; those without a score are never accepted.
        impostors: number of impostor pairs with a score.
    """

    thresholds: NDArray[np.float64]
    accepted: NDArray[np.int64]
    false_accepts: NDArray[np.int64]
    genuine: int
    impostors: int

    def at_far(self, far: float) -> Point | None:
        """Return the point with the highest false accept rate that does not exceed `far`.

        Tied scores are accepted together or not at all, so the rate may stay below `far`.

        Returns:
            None with fewer than 1 / far impostor pairs: they cannot show such a rate.
        """
        allowed = int(far * self.impostors + 1e-6)  # 1e-3 * 3000 must not become 2
        if allowed < 1:
            return None
        return self._point(far, int(np.argmax(self.false_accepts <= allowed)))

    def above_all(self) -> Point:
        """Return the point of the lowest threshold that no impostor pair reaches."""
        return self._point(0.0, int(np.argmax(self.false_accepts == 0)))

    def _point(self, far: float, index: int) -> Point:
        return Point(
            far,
            float(self.thresholds[index]),
            int(self.false_accepts[index]),
            self.impostors,
            int(self.accepted[index]),
            self.genuine,
        )

    @property
    def area(self) -> float:
        """Area under the ROC: how often a genuine pair scores higher than an impostor pair; ties count half."""
        far = np.concatenate([self.false_accepts / max(1, self.impostors), [0.0]])
        tar = np.concatenate([self.accepted / max(1, self.genuine), [0.0]])
        return float(((far[:-1] - far[1:]) * (tar[:-1] + tar[1:]) / 2).sum())

    def roc(self, points: int = 200) -> dict[str, list[float]]:
        """Return `far`, `tar` and `threshold` at up to `points` rates, ascending, evenly spaced in logarithm."""
        if not self.impostors or not self.genuine:
            return {"far": [], "tar": [], "threshold": []}
        rates = np.geomspace(1 / self.impostors, 1, points)
        indices = np.unique([int(np.argmax(self.false_accepts <= rate * self.impostors + 1e-6)) for rate in rates])[
            ::-1
        ]
        return {
            "far": (self.false_accepts[indices] / self.impostors).tolist(),
            "tar": (self.accepted[indices] / self.genuine).tolist(),
            "threshold": self.thresholds[indices].tolist(),
        }


def curve_of_scores(scores: NDArray[np.float32], same: NDArray[np.bool_]) -> Curve:
    """Make a curve with every score as a threshold.

    Args:
        scores: (P,) float32; NaN for a pair with a photo that could not be embedded. Such a genuine pair is never
            accepted. Such an impostor pair is left out, so that failing on photos cannot lower the false accept rate.
        same: (P,) bool, whether a pair shows one person.
    Raises:
        ConfigError: no pair has a score.
    """
    scored = ~np.isnan(scores)
    if not scored.any():
        raise ConfigError(
            "no pair has both photos embedded; expected: at least one. /outcomes in the embedding file says why"
        )
    values = np.unique(scores[scored]).astype(np.float64)
    thresholds = np.append(values, np.nextafter(values[-1], np.inf))  # above the highest score, no pair is accepted
    genuine, impostors = np.sort(scores[scored & same]), np.sort(scores[scored & ~same])
    return Curve(
        thresholds,
        len(genuine) - np.searchsorted(genuine, thresholds),
        len(impostors) - np.searchsorted(impostors, thresholds),
        int(same.sum()),
        len(impostors),
    )


def count_scores(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count the cosines from each threshold of the grid to the next.

    Args:
        scores: any shape, finite; scores that rounding took beyond -1 or 1 count as -1 or 1.
    Returns:
        (BINS,) int64.
    """
    # In float64 the product of a float32 and 10,000 is exact, so a score on a grid threshold falls into its own bin.
    bins = np.floor(scores.astype(np.float64) * STEPS).astype(np.int64)
    return np.bincount(np.clip(bins, -STEPS, STEPS).ravel() + STEPS, minlength=BINS).astype(np.int64)


def curve_of_counts(genuine: NDArray[np.int64], impostors: NDArray[np.int64], *, unscored: int = 0) -> Curve:
    """Make a curve over the thresholds of the grid.

    Args:
        genuine, impostors: (BINS,) int64, from `count_scores`.
        unscored: genuine pairs with a photo that could not be embedded; never accepted.
    """
    thresholds = np.arange(-STEPS, STEPS + 2) / STEPS  # one more: above 1, no pair is accepted

    def at_least(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.append(counts[::-1].cumsum()[::-1], 0)

    return Curve(
        thresholds, at_least(genuine), at_least(impostors), int(genuine.sum()) + unscored, int(impostors.sum())
    )
