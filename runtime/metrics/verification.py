"""Do two photographs show one person: thresholds and rates of one comparison, from a calibration."""

from __future__ import annotations

from .falsematch import Calibration, Expectation

USUAL_RATE = 1e-3  # false matches a comparison that a threshold is looked up for, as at border gates (Frontex 2015)


def match_rate(calibration: Calibration, score: float) -> Expectation:
    """How often photographs of two people reach a score, in one comparison: a rate from 0 to 1, or a bound of it.

    A search in N rows makes N comparisons: see `Calibration.expected`.
    """
    return calibration.expected(score, rows=1)


def threshold_at(calibration: Calibration, rate: float) -> float | None:
    """The lowest threshold, in thousandths, at which no more than that share of comparisons is a false match.

    Args:
        calibration: counted pairs.
        rate: above 0, at most 1.
    Returns:
        None where the pairs are too few to show it: fewer than 1 / rate.
    """
    allowed = int(rate * calibration.pairs + 1e-6)  # 1e-3 * 3000 must not become 2
    if allowed < 1:
        return None
    place = next(i for i, count in enumerate(calibration.at_least) if count <= allowed)  # the last count is 0
    return (calibration.first + place) / 1000


def verdict(score: float, threshold: float | None) -> str:
    """`same` at the threshold or above, `different` below it, `unknown` without one."""
    if threshold is None:
        return "unknown"
    return "same" if score >= threshold else "different"
