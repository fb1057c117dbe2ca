"""Choose the crops and the image size of a step from (seed, step) alone, so that resuming needs no stored state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def batch_rows(step: int, batch: int, count: int, seed: int) -> NDArray[np.int64]:
    """Rows of a step; each pass has a new order, and no iterator has to be stored."""
    positions = np.arange(step * batch, (step + 1) * batch)
    passes, places = positions // count, positions % count
    orders = {int(p): np.random.default_rng([seed, int(p)]).permutation(count) for p in np.unique(passes)}
    return np.array([orders[int(p)][i] for p, i in zip(passes, places, strict=True)])


def person_rows(
    step: int, persons: int, each: int, rows_of: Sequence[NDArray[np.int64]], seed: int
) -> NDArray[np.int64]:
    """Rows of a step with several crops of each person.

    Args:
        step: number of the step.
        persons: number of persons.
        each: crops per person. If a person has fewer, crops repeat, and augmentation makes them differ.
        rows_of: the rows of each person, two or more.
        seed: random seed, combined with the step.
    Returns:
        (persons * each,) int64, grouped by person; every person appears once per pass.
    """
    rng = np.random.default_rng([seed, step, each])
    chosen = batch_rows(step, persons, len(rows_of), seed)
    return np.concatenate([np.resize(rng.permutation(rows_of[person]), each) for person in chosen])


def input_size(samples: int, stages: Iterable[tuple[int, int]]) -> int:
    """Side of the images after this many samples; `stages` are pairs of first sample and side.

    Raises:
        ValueError: the stages are not such pairs, or do not start at 0.
    """
    try:
        return int([side for start, side in stages if samples >= start][-1])
    except (IndexError, TypeError) as err:
        raise ValueError(
            f"stages is {stages}; expected: pairs of samples and side that start at 0: [[0,56],[9000,112]]"
        ) from err


def hold_out(persons: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """(N,) bool: crops of a share of the persons, held out to test a network that has never seen them.

    Args:
        persons: (N,) int64, 0..P-1.
        share: share of the P persons, 0..1, rounded.
        seed: random seed.
    """
    count = int(persons.max()) + 1
    chosen = np.random.default_rng([seed, count]).permutation(count)[: round(share * count)]
    held_out: NDArray[np.bool_] = np.isin(persons, chosen)
    return held_out
