"""Compute 95 % confidence intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the interval of a share of independent trials. Unlike the normal interval, it is right near 0 and 1.

    Args:
        successes: 0 to trials.
        trials: 1 or more.
    Source: Wilson 1927; recommended by Brown, Cai and DasGupta 2001, Statistical Science 16 (2).
    """
    share, spread = successes / trials, _Z**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)


def bootstrap_people(
    values: NDArray[np.float64], person: NDArray[np.int64], *, draws: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """Return the intervals of means of values that are not independent, because people contribute several each.

    Resamples whole people, each with all of their values.

    Args:
        values: (Q, m) float64: m figures for each of Q >= 1 queries.
        person: (Q,) int64, the person of each query.
        draws: number of resampled sets.
        seed: random seed, 0 <= seed < 2**32; the same seed gives the same intervals.
    Returns:
        (m, 2) float64, low and high of each mean.
    Source: Bolle, Ratha and Pankanti 2004, Error analysis of pattern recognition systems: the subsets bootstrap.
    """
    _, index = np.unique(person, return_inverse=True)
    people = int(index.max()) + 1
    columns = np.column_stack([values, np.ones(len(values))])  # (Q, m + 1): the last one counts
    sums = np.stack([np.bincount(index, column, people) for column in columns.T], axis=1)  # (people, m + 1)
    random = np.random.RandomState(seed)  # its stream never changes between NumPy versions
    totals = np.stack([sums[random.randint(people, size=people)].sum(axis=0) for _ in range(draws)])
    means = totals[:, :-1] / totals[:, -1:]  # (draws, m)
    return np.asarray(np.percentile(means, (2.5, 97.5), axis=0).T, np.float64)
