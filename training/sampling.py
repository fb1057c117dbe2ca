"""Which crops a step shows and how large: drawn from (seed, step), so that nothing need be kept to go on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def batch_rows(step: int, batch: int, count: int, seed: int) -> NDArray[np.int64]:
    """Rows of a step: the crops in an order of their own each pass, without an iterator that would have to be kept."""
    at = np.arange(step * batch, (step + 1) * batch)
    passes, places = at // count, at % count
    orders = {int(p): np.random.default_rng([seed, int(p)]).permutation(count) for p in np.unique(passes)}
    return np.array([orders[int(p)][i] for p, i in zip(passes, places, strict=True)])


def person_rows(
    step: int, persons: int, each: int, rows_of: Sequence[NDArray[np.int64]], seed: int
) -> NDArray[np.int64]:
    """Rows of a step in which every crop has others of its person.

    Args:
        step: number of the step.
        persons, each: so many persons, and crops of each. A person with fewer crops shows some more than once, and
            augmentation makes them differ.
        rows_of: the rows of each person, two at least.
        seed: decides, with the step.
    Returns:
        (persons * each,) int64, the crops of a person side by side; every person comes up once a pass.
    """
    rng = np.random.default_rng([seed, step, each])
    chosen = batch_rows(step, persons, len(rows_of), seed)
    return np.concatenate([np.resize(rng.permutation(rows_of[person]), each) for person in chosen])


def input_size(samples: int, stages: Iterable[tuple[int, int]]) -> int:
    """Side of the pictures after so many samples, of (samples from which on, side).

    Raises:
        ValueError: the stages are no such pairs, or begin later.
    """
    try:
        return int([side for start, side in stages if samples >= start][-1])
    except (IndexError, TypeError) as err:
        raise ValueError(
            f"stages is {stages}; wanted: pairs of samples and side that begin at 0: [[0,56],[9000,112]]"
        ) from err


def hold_out(persons: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """(N,) bool: the crops of a share of the persons, for whom a network is to be asked that has never seen them.

    Args:
        persons: (N,) int64, 0..P-1.
        share: of the P persons, 0..1, rounded.
        seed: decides who.
    """
    count = int(persons.max()) + 1
    kept_apart = np.random.default_rng([seed, count]).permutation(count)[: round(share * count)]
    found: NDArray[np.bool_] = np.isin(persons, kept_apart)
    return found
