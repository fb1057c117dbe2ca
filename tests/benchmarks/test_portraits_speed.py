"""The speed of drawing portraits. The results file contains every round, so no figure is copied by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from portraits_speed import describe_rounds, write_rounds

ROUNDS = [
    {"embed": 900.0, "ceiling": 400.0, "whole pipeline": 300.0, "InsightFace": 100.0},
    {"embed": 800.0, "ceiling": 250.0, "whole pipeline": 200.0, "InsightFace": 80.0},
]


def test_rates_and_ratios_by_round() -> None:
    rates, ceiling, peer = describe_rounds(ROUNDS)
    assert rates == "Whole pipeline by round, images/s: 300, 200"
    assert ceiling.startswith("Whole pipeline to the ceiling by round: 0.75, 0.80 (")
    assert peer == "Whole pipeline to InsightFace by round: 3.00, 2.50 (InsightFace, images/s: 100, 80)"
    assert len(describe_rounds([{"ceiling": 400.0, "whole pipeline": 300.0}])) == 2  # without a peer


def test_the_results_file_holds_every_round(tmp_path: Path) -> None:
    write_rounds("p", "portraits", ROUNDS, {"embed"}, ["one more"], folder=tmp_path, quiet=True)
    results = json.loads((tmp_path / "p.json").read_text())
    assert results["details"] == {"rounds": ROUNDS}
    assert results["notes"] == ["Medians of 2 rounds; ratios within a round", *describe_rounds(ROUNDS), "one more"]
    assert results["rows"][0] == {
        "what": "embed, alone on all cores",
        "images/s": 850,
        "whole pipeline of it": pytest.approx((300 / 900 + 200 / 800) / 2),
    }
    text = (tmp_path / "p.md").read_text()
    assert "- Whole pipeline to InsightFace by round: 3.00, 2.50" in text
