"""Links are gathered whole, or refused with a threshold that would do."""

from __future__ import annotations

import re

import numpy as np
import pytest

from runtime.errors import TooManyPairsError
from runtime.linkage.blocks import Found
from runtime.linkage.links import gather_links


def piece(first: list[int], second: list[int], scores: list[float]) -> Found:
    return Found(np.array(first, np.int64), np.array(second, np.int64), np.array(scores, np.float32))


def test_all_pieces_are_kept_in_order() -> None:
    pieces = [piece([0, 1], [2, 3], [0.5, 0.6]), piece([], [], []), piece([2], [4], [0.7])]
    links = gather_links(((one, 1.0) for one in pieces), 5, most=3)
    assert links.rows == 5
    assert links.first.tolist() == [0, 1, 2]
    assert links.second.tolist() == [2, 3, 4]
    np.testing.assert_array_equal(links.scores, np.array([0.5, 0.6, 0.7], np.float32))
    assert (links.first.dtype, links.scores.dtype) == (np.int32, np.float32)


def test_none_are_none() -> None:
    assert len(gather_links(iter([]), 5).scores) == 0


@pytest.mark.parametrize(("done", "reach"), [(1.0, 50), (0.5, 25), (0.1, 5)])
def test_too_many_are_refused_with_a_threshold_that_half_as_many_as_allowed_reach(done: float, reach: int) -> None:
    scores = np.random.default_rng(0).permutation(np.linspace(0.3, 0.9, 101)).tolist()
    one = piece([0] * 101, list(range(1, 102)), scores)
    with pytest.raises(TooManyPairsError, match="at most 100 in all") as error:
        gather_links([(one, done)], 102, most=100)
    (proposed,) = re.findall(r"--threshold (\S+)$", str(error.value))
    # in the share that was compared, so many of those seen would remain; the threshold is rounded up to a thousandth
    assert reach - 1 <= int((np.array(scores) >= float(proposed)).sum()) <= reach
