"""Which detector to take: decided by intervals, then by speed, and never against a licence without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.engines.engine import read_engine
from runtime.evaluation.detectors import BoundedShare, DetectorFigures, figures_of, recommend
from runtime.evaluation.evaluate import Evaluation, evaluate
from runtime.faces.rules import FaceRules
from runtime.metrics.intervals import wilson
from runtime.metrics.pairs import read_pairs
from runtime.pipeline.request import Request
from runtime.records import Status
from tests.support.errors import assert_names
from tests.support.lfw_folder import write_pairs, write_people

MIT, RESEARCH = "MIT", "non-commercial research only (InsightFace)"


def share(count: int, of: int) -> BoundedShare:
    return BoundedShare(count / of, wilson(count, of)[0])


ALL, NEARLY_ALL = share(10_000, 10_000), share(9900, 10_000)


def figures(
    label: str,
    speed: float | None,
    *,
    licence: str = MIT,
    found: BoundedShare = ALL,
    merit: BoundedShare = NEARLY_ALL,
) -> DetectorFigures:
    return DetectorFigures(label, licence, found, merit, 0, 0, 0, speed, speed)


def test_of_equals_the_fastest_is_taken_in_any_order() -> None:
    some = [figures("slow", 10), figures("fast", 30), figures("middling", 20)]
    for order in (some, some[::-1], [some[1], some[0], some[2]]):
        assert recommend(order).startswith("Take fast: ")


@pytest.mark.parametrize("what", ["merit", "found"])
def test_a_difference_within_the_interval_rules_nobody_out(what: str) -> None:
    def pair(of: int) -> list[DetectorFigures]:
        good, worse = share(of * 98 // 100, of), share(of * 95 // 100, of)
        return [replace(figures("good", 10), **{what: good}), replace(figures("fast", 30), **{what: worse})]

    assert recommend(pair(100)).startswith("Take fast")  # three of a hundred may be chance
    assert recommend(pair(10_000)).startswith("Take good: ")  # three hundred are not


def test_a_difference_that_is_proven_and_does_not_matter_rules_nobody_out_either() -> None:
    best, fast = BoundedShare(0.9950, 0.9949), BoundedShare(0.9940, 0.9939)
    assert recommend([figures("best", 10, merit=best), figures("fast", 30, merit=fast)]).startswith("Take fast")


@pytest.mark.parametrize("unknown", [None, 0.0])
def test_a_speed_that_is_not_known_is_no_rank(unknown: float | None) -> None:
    said = recommend([figures("kept", unknown), figures("measured", 20)])
    assert "Take" not in said
    assert_names(said, "kept and measured", "for kept.", "--force")
    worse = figures("worse", unknown, merit=share(5000, 10_000))
    assert recommend([worse, figures("measured", 20)]).startswith("Take measured: ")


@pytest.fixture(scope="module")
def request_(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    place = tmp_path_factory.mktemp("detectors")
    return Request(
        (str(write_people(place / "in")),), place / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")
    )


@pytest.fixture(scope="module")
def one(request_: Request) -> Evaluation:
    return evaluate(request_, read_pairs(write_pairs(request_.output.parent / "pairs.txt")))


def test_figures_are_those_of_the_evaluation(one: Evaluation) -> None:
    status = one.embedded.status.copy()
    status[:3] = Status.NO_FACE
    seen = figures_of("x", MIT, replace(one, embedded=replace(one.embedded, status=status)))
    assert seen.no_face == 3
    assert seen.found == share(34, 37)  # one of 38 was cut short: no detector can help that
    assert one.pairs is not None
    right = int(one.pairs.folds.right.sum())
    assert (seen.merit.value, seen.merit.low) == pytest.approx((right / 16, wilson(right, 16)[0]))


def test_without_pairs_recall_decides_and_is_never_certain(one: Evaluation) -> None:
    assert one.retrieval is not None
    alone = replace(one, pairs=None)
    assert figures_of("x", "", alone).merit.value == pytest.approx(one.retrieval.means[0])
    perfect = replace(one.retrieval, values=np.ones_like(one.retrieval.values))
    merit = figures_of("x", "", replace(alone, retrieval=perfect)).merit
    assert merit.value == 1
    assert merit.low < 0.95  # of 36 queries
    nobody = figures_of("x", "", replace(alone, retrieval=None))
    assert nobody.merit == BoundedShare(0, 0)


def test_a_file_that_is_found_whole_keeps_the_speed_at_which_it_was_made(request_: Request, one: Evaluation) -> None:
    assert one.embedded.summary is not None
    assert one.embedded.summary.images_per_s > 0
    again = evaluate(request_).embedded.summary
    assert again is not None
    assert again.processed == 0
    assert (again.images_per_s, again.stages) == (one.embedded.summary.images_per_s, one.embedded.summary.stages)
    kept = request_.output.with_suffix(".speed.json")
    for text in ("{", "[]", kept.read_text().replace('"run_id": "', '"run_id": "another')):
        kept.write_text(text)
        without = evaluate(request_)
        assert without.embedded.summary is not None
        assert without.embedded.summary.images_per_s == 0
        assert figures_of("x", "", without).images_per_s is None
