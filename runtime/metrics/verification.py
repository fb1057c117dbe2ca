"""Decide whether two photos show one person, with thresholds and rates from a calibration."""

from __future__ import annotations

from numbers import Real

from ..errors import ConfigError
from .falsematch import Calibration, Expectation

USUAL_RATE = 1e-3  # default false match rate per comparison, as at border gates (Frontex 2015)


def match_rate(calibration: Calibration, score: float) -> Expectation:
    """Return the false match rate of one comparison at a score: 0 to 1, or an upper bound of it.

    A search in N rows makes N comparisons: see `Calibration.expected`.
    """
    return calibration.expected(score, rows=1)


def threshold_at(calibration: Calibration, rate: float) -> float | None:
    """Return the lowest threshold, to a thousandth, whose false match rate is at most `rate`.

    Args:
        calibration: counts of impostor pairs.
        rate: false match rate per comparison, above 0, at most 1.
    Returns:
        None with fewer than 1 / rate pairs, too few to show it.
    """
    allowed = int(rate * calibration.pairs + 1e-6)  # 1e-3 * 3000 must not become 2
    if allowed < 1:
        return None
    index = next(i for i, count in enumerate(calibration.at_least) if count <= allowed)  # the last count is 0
    return (calibration.first + index) / 1000


def check_threshold(threshold: float | None, *, above_zero: bool = False) -> None:
    """Refuse a threshold that is no cosine.

    Args:
        threshold: None for no threshold.
        above_zero: whether the threshold has to be above 0.
    Raises:
        ConfigError: it is not a number in that range.
    """
    if threshold is None:
        return
    is_cosine = isinstance(threshold, Real) and -1 <= threshold <= 1
    if not is_cosine or (above_zero and threshold <= 0):
        expected = "a number above 0, at most 1" if above_zero else "a number from -1 to 1, a cosine"
        raise ConfigError(f"the threshold is {threshold!r:.100}; expected: {expected}")


def verdict(score: float, threshold: float | None) -> str:
    """Return `same` at the threshold or above, `different` below it, `unknown` without a threshold."""
    if threshold is None:
        return "unknown"
    return "same" if score >= threshold else "different"
