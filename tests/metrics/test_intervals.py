"""Intervals: published values, coverage, and width."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.metrics.intervals import bootstrap_people, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_intervals_equal_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.slow
def test_the_width_of_a_bootstrap_depends_on_the_people() -> None:
    rng = np.random.default_rng(3)
    values = rng.random((4000, 2))
    (low, high), _ = bootstrap_people(values, np.arange(4000))
    spread = 1.96 * values[:, 0].std() / np.sqrt(4000)
    assert (low, high) == pytest.approx((values[:, 0].mean() - spread, values[:, 0].mean() + spread), abs=spread / 5)
    # The hundred values of a person are equal, so they count as one: forty values in all.
    repeated = np.repeat(values[:40], 100, axis=0)
    (low, high), _ = bootstrap_people(repeated, np.repeat(np.arange(40), 100))
    assert high - low > 5 * 2 * spread


def test_a_bootstrap_is_seeded() -> None:
    values, person = np.arange(30.0)[:, None], np.arange(30) // 2
    np.testing.assert_array_equal(bootstrap_people(values, person), bootstrap_people(values, person))
    assert (bootstrap_people(values, person) != bootstrap_people(values, person, seed=1)).any()
