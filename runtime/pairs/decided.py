"""Take decisions of people into account: what is decided about each pair, and which pairs are left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..review.rows import STATES, RowRules
from .all_pairs import ScoredPairs


@dataclass(frozen=True, slots=True)
class DecidedPairs:
    """The pairs that are listed.

    Attributes:
        pairs: the pairs.
        states: (n,) uint8, what is decided about each: places in STATES.
        left_out: number of pairs that are left out.
    """

    pairs: ScoredPairs
    states: NDArray[np.uint8]
    left_out: int


def leave_out_decided(pairs: ScoredPairs, rules: RowRules, *, undecided: bool = False) -> DecidedPairs:
    """Leave out pairs that are decided to show different people.

    Args:
        pairs: the pairs of a file.
        rules: the decisions about its rows.
        undecided: also leave out pairs that are decided to show the same person.
    """
    states = rules.states(pairs.first, pairs.second)
    listed = states != STATES.index("different")
    if undecided:
        listed &= states != STATES.index("same")
    kept = ScoredPairs(pairs.first[listed], pairs.second[listed], pairs.scores[listed])
    return DecidedPairs(kept, states[listed], int((~listed).sum()))
