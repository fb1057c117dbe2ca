"""The recommended detector: decided by intervals, then by speed. A licence that restricts use is always mentioned."""

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


def test_the_fastest_of_equal_detectors_is_recommended_in_any_order() -> None:
    candidates = [figures("slow", 10), figures("fast", 30), figures("middling", 20)]
    for order in (candidates, candidates[::-1], [candidates[1], candidates[0], candidates[2]]):
        assert recommend(order).startswith("Take fast: ")


@pytest.mark.parametrize("field", ["merit", "found"])
def test_a_difference_within_the_interval_excludes_no_detector(field: str) -> None:
    def pair(of: int) -> list[DetectorFigures]:
        good, worse = share(of * 98 // 100, of), share(of * 95 // 100, of)
        return [replace(figures("good", 10), **{field: good}), replace(figures("fast", 30), **{field: worse})]

    assert recommend(pair(100)).startswith("Take fast")  # three of a hundred may be chance
    assert recommend(pair(10_000)).startswith("Take good: ")  # three hundred are not


def test_a_significant_but_small_difference_excludes_no_detector() -> None:
    best, fast = BoundedShare(0.9950, 0.9949), BoundedShare(0.9940, 0.9939)
    assert recommend([figures("best", 10, merit=best), figures("fast", 30, merit=fast)]).startswith("Take fast")


@pytest.mark.parametrize("unknown", [None, 0.0])
def test_a_detector_of_unknown_speed_is_not_ranked(unknown: float | None) -> None:
    advice = recommend([figures("kept", unknown), figures("measured", 20)])
    assert "Take" not in advice
    assert_names(advice, "kept and measured", "for kept.", "--force")
    worse = figures("worse", unknown, merit=share(5000, 10_000))
    assert recommend([worse, figures("measured", 20)]).startswith("Take measured: ")


@pytest.fixture(scope="module")
def request_(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("detectors")
    return Request(
        (str(write_people(folder / "in")),), folder / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")
    )


@pytest.fixture(scope="module")
def evaluation(request_: Request) -> Evaluation:
    return evaluate(request_, read_pairs(write_pairs(request_.output.parent / "pairs.txt")))


@pytest.mark.slow
def test_figures_come_from_the_evaluation(evaluation: Evaluation) -> None:
    status = evaluation.embedded.status.copy()
    status[:3] = Status.NO_FACE
    detector_figures = figures_of("x", MIT, replace(evaluation, embedded=replace(evaluation.embedded, status=status)))
    assert detector_figures.no_face == 3
    assert detector_figures.found == share(34, 37)  # one of 38 is truncated, which no detector can fix
    assert evaluation.pairs is not None
    right = int(evaluation.pairs.folds.right.sum())
    assert (detector_figures.merit.value, detector_figures.merit.low) == pytest.approx(
        (right / 16, wilson(right, 16)[0])
    )


def test_without_pairs_recall_decides_and_is_never_certain(evaluation: Evaluation) -> None:
    assert evaluation.retrieval is not None
    alone = replace(evaluation, pairs=None)
    assert figures_of("x", "", alone).merit.value == pytest.approx(evaluation.retrieval.means[0])
    perfect = replace(evaluation.retrieval, values=np.ones_like(evaluation.retrieval.values))
    merit = figures_of("x", "", replace(alone, retrieval=perfect)).merit
    assert merit.value == 1
    assert merit.low < 0.95  # of 36 queries
    unmeasured = figures_of("x", "", replace(alone, retrieval=None))
    assert unmeasured.merit == BoundedShare(0, 0)


def test_a_reused_file_keeps_its_recorded_speed(request_: Request, evaluation: Evaluation) -> None:
    assert evaluation.embedded.summary is not None
    assert evaluation.embedded.summary.images_per_s > 0
    again = evaluate(request_).embedded.summary
    assert again is not None
    assert again.processed == 0
    assert (again.images_per_s, again.stages) == (
        evaluation.embedded.summary.images_per_s,
        evaluation.embedded.summary.stages,
    )
    speed_file = request_.output.with_suffix(".speed.json")
    for text in ("{", "[]", speed_file.read_text().replace('"run_id": "', '"run_id": "another')):
        speed_file.write_text(text)
        without = evaluate(request_)
        assert without.embedded.summary is not None
        assert without.embedded.summary.images_per_s == 0
        assert figures_of("x", "", without).images_per_s is None
