"""Figures of an embedded folder, compared with plain loops over the vectors in its file."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.engine import read_engine
from runtime.errors import ConfigError
from runtime.evaluation.evaluate import Evaluation, evaluate, measure
from runtime.faces.rules import FaceRules
from runtime.metrics.pairs import LabelledPairs, read_pairs
from runtime.pipeline.request import Request
from tests.support.errors import assert_names, raises
from tests.support.lfw_folder import LOST, PEOPLE, SHOTS, write_pairs, write_people


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> LabelledPairs:
    return read_pairs(write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.txt"))


@pytest.fixture(scope="module")
def request_(folder: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    return Request(
        (str(folder),), tmp_path_factory.mktemp("file") / "people.h5", read_engine(tiny_engine), faces=FaceRules("none")
    )


@pytest.fixture(scope="module")
def evaluation(request_: Request, pairs: LabelledPairs) -> Evaluation:
    return evaluate(request_, pairs)


@pytest.fixture(scope="module")
def vectors(evaluation: Evaluation, request_: Request) -> dict[str, NDArray[np.float32]]:
    """Vectors by the name that a pairs file uses."""
    with h5py.File(request_.output) as file:
        names = [name.removesuffix(".jpg") for name in file["image_paths"].asstr()[:]]
        return dict(zip(names, file["embeddings"][:], strict=True))


@pytest.mark.slow
def test_outcomes_of_photos_are_counted(evaluation: Evaluation) -> None:
    assert evaluation.embedded.outcomes == {"embedded": PEOPLE * SHOTS + 1, "corrupt": 1}
    assert evaluation.people == PEOPLE + 1
    assert not evaluation.sampled
    unassigned = [
        path for path, person in zip(evaluation.embedded.paths, evaluation.embedded.person, strict=True) if person < 0
    ]
    assert unassigned == [b"stray.jpg"]


def test_pairs_are_judged_by_thresholds_of_the_other_folds(
    evaluation: Evaluation, pairs: LabelledPairs, vectors: dict[str, NDArray[np.float32]]
) -> None:
    assert evaluation.pairs is not None
    assert evaluation.pairs.missing == 2
    assert (evaluation.pairs.photographs, evaluation.pairs.absent, evaluation.pairs.lost) == (25, 1, 1)
    folds = evaluation.pairs.folds
    right = []
    for i in range(16):
        names = pairs.left[i], pairs.right[i]
        if LOST in names or "P99/P99_0001" in names:
            right.append(False)
        else:
            score = float(vectors[names[0]] @ vectors[names[1]])
            right.append((score >= folds.thresholds[i // 8]) == pairs.same[i])
    assert folds.right.tolist() == right
    assert not folds.right[[3, 7]].any()
    assert folds.accuracy == pytest.approx(np.mean(right))
    assert (evaluation.pairs.curve.genuine, evaluation.pairs.curve.impostors) == (8, 7)
    assert evaluation.pairs.curve.accepted[0] == 7


def test_many_missing_photos_of_the_pairs_are_a_warning(evaluation: Evaluation) -> None:
    assert evaluation.pairs is not None
    assert_names(
        evaluation.pairs.warning, "25 photos", "1 are not in the folder", "1 could not be embedded", "2 of 16 pairs"
    )
    assert replace(evaluation.pairs, photographs=200).warning == ""  # one in a hundred
    assert replace(evaluation.pairs, photographs=199).warning
    assert replace(evaluation.pairs, absent=0, lost=0).warning == ""


def test_all_pairs_are_compared(evaluation: Evaluation, vectors: dict[str, NDArray[np.float32]]) -> None:
    genuine, impostors = [], []
    for name_a, name_b in combinations(sorted(set(vectors) - {"stray"}), 2):
        (genuine if name_a[:3] == name_b[:3] else impostors).append(float(vectors[name_a] @ vectors[name_b]))
    assert evaluation.curve.genuine == PEOPLE * SHOTS * (SHOTS - 1) // 2 == len(genuine) + 2
    assert evaluation.curve.impostors == len(impostors)
    for threshold in (0.5, 0.9, 0.95, 0.99):
        at = int(np.searchsorted(evaluation.curve.thresholds, threshold))
        assert evaluation.curve.accepted[at] == sum(score >= threshold for score in genuine)
        assert evaluation.curve.false_accepts[at] == sum(score >= threshold for score in impostors)
    assert evaluation.lookalikes[0].score == pytest.approx(max(impostors), abs=1e-6)
    for pair in evaluation.lookalikes:
        name_a, name_b = pair.one.removesuffix(".jpg"), pair.other.removesuffix(".jpg")
        assert name_a[:3] != name_b[:3]
        assert pair.score == pytest.approx(float(vectors[name_a] @ vectors[name_b]), abs=1e-6)
    assert len(evaluation.lookalikes) == 10


def test_queries_find_their_person_and_the_stray_photo_none(
    evaluation: Evaluation, vectors: dict[str, NDArray[np.float32]]
) -> None:
    assert evaluation.retrieval is not None
    assert len(evaluation.retrieval.values) == PEOPLE * SHOTS
    assert evaluation.retrieval.alone == 1
    names = sorted(set(vectors) - {"stray"})
    first = []
    for query in names[: PEOPLE * SHOTS - 1]:
        best = max((name for name in names if name != query), key=lambda name: float(vectors[query] @ vectors[name]))
        first.append(best[:3] == query[:3])
    assert evaluation.retrieval.values[:, 0].tolist() == [*map(float, first), 0.0]
    assert np.mean(first) > 0.5  # the portraits of a person share their colours, which is all that the network sees


def test_a_second_evaluation_reuses_the_file_with_the_same_figures(request_: Request, evaluation: Evaluation) -> None:
    before = request_.output.stat().st_mtime_ns
    again = evaluate(request_)
    assert request_.output.stat().st_mtime_ns == before
    assert again.pairs is None
    np.testing.assert_array_equal(again.curve.accepted, evaluation.curve.accepted)


def test_too_many_pairs_are_sampled_and_reported(evaluation: Evaluation) -> None:
    drawn = measure(evaluation.embedded, max_pairs=300)
    assert drawn.sampled
    assert 200 < drawn.curve.impostors <= 300
    assert drawn.curve.genuine == evaluation.curve.genuine


def test_a_folder_without_embeddings_is_refused(tiny_engine: Path, tmp_path: Path) -> None:
    for name in ("A/1.jpg", "B/1.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_text("no photograph")
    with raises(ConfigError, "0 of 2", "/outcomes"):
        evaluate(Request((str(tmp_path / "in"),), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")))
