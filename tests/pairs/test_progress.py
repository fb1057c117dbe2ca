"""How far a search for pairs says it is."""

from __future__ import annotations

import io

import pytest

from runtime.pairs import progress as module
from runtime.pairs.progress import PairProgress


def test_it_counts_what_was_done_before_but_not_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    with PairProgress(1000_000_000, 500_000_000, said) as progress:
        assert "50.0 % of 1,000,000,000 comparisons, 0.0 million/s, unknown left; 0 pairs; " in progress.line(0)
        now[0] = 104.0
        progress.add(60_000_000, 7)
        assert said.getvalue() == ""
        now[0] = 110.0
        progress.add(40_000_000, 9)
        assert said.getvalue().startswith("60.0 % of 1,000,000,000 comparisons, 10.0 million/s, 40 s left; 9 pairs; ")
        now[0] = 111.0
        progress.add(1, 9)
    now[0] = 200.0
    assert said.getvalue().count("\n") == 1
    assert progress.elapsed_s == 11
    assert progress.compared == 100_000_001
