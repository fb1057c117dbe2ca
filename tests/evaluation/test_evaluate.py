"""Figures of a folder that the product embedded, against loops over the vectors in its file."""

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
def found(request_: Request, pairs: LabelledPairs) -> Evaluation:
    return evaluate(request_, pairs)


@pytest.fixture(scope="module")
def vectors(found: Evaluation, request_: Request) -> dict[str, NDArray[np.float32]]:
    """By the name that a pairs file would use."""
    with h5py.File(request_.output) as file:
        names = [name.removesuffix(".jpg") for name in file["image_paths"].asstr()[:]]
        return dict(zip(names, file["embeddings"][:], strict=True))


def test_what_became_of_the_photographs(found: Evaluation) -> None:
    assert found.embedded.outcomes == {"embedded": PEOPLE * SHOTS + 1, "corrupt": 1}
    assert found.people == PEOPLE + 1
    assert not found.sampled
    nobody = [path for path, person in zip(found.embedded.paths, found.embedded.person, strict=True) if person < 0]
    assert nobody == [b"stray.jpg"]


def test_pairs_are_judged_by_the_other_fold(
    found: Evaluation, pairs: LabelledPairs, vectors: dict[str, NDArray[np.float32]]
) -> None:
    assert found.pairs is not None
    assert found.pairs.missing == 2
    assert (found.pairs.photographs, found.pairs.absent, found.pairs.lost) == (25, 1, 1)
    folds = found.pairs.folds
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
    assert (found.pairs.curve.genuine, found.pairs.curve.impostors) == (8, 7)
    assert found.pairs.curve.accepted[0] == 7


def test_many_missing_photographs_of_the_pairs_are_a_warning(found: Evaluation) -> None:
    assert found.pairs is not None
    assert_names(
        found.pairs.warning, "25 photos", "1 are not in the folder", "1 could not be embedded", "2 of 16 pairs"
    )
    assert replace(found.pairs, photographs=200).warning == ""  # one in a hundred
    assert replace(found.pairs, photographs=199).warning
    assert replace(found.pairs, absent=0, lost=0).warning == ""


def test_everybody_against_everybody(found: Evaluation, vectors: dict[str, NDArray[np.float32]]) -> None:
    genuine, impostors = [], []
    for one, other in combinations(sorted(set(vectors) - {"stray"}), 2):
        (genuine if one[:3] == other[:3] else impostors).append(float(vectors[one] @ vectors[other]))
    assert found.curve.genuine == PEOPLE * SHOTS * (SHOTS - 1) // 2 == len(genuine) + 2
    assert found.curve.impostors == len(impostors)
    for threshold in (0.5, 0.9, 0.95, 0.99):
        at = int(np.searchsorted(found.curve.thresholds, threshold))
        assert found.curve.accepted[at] == sum(score >= threshold for score in genuine)
        assert found.curve.false_accepts[at] == sum(score >= threshold for score in impostors)
    assert found.lookalikes[0].score == pytest.approx(max(impostors), abs=1e-6)
    for pair in found.lookalikes:
        one, other = pair.one.removesuffix(".jpg"), pair.other.removesuffix(".jpg")
        assert one[:3] != other[:3]
        assert pair.score == pytest.approx(float(vectors[one] @ vectors[other]), abs=1e-6)
    assert len(found.lookalikes) == 10


def test_queries_find_their_person_and_the_lost_one_finds_nobody(
    found: Evaluation, vectors: dict[str, NDArray[np.float32]]
) -> None:
    assert found.retrieval is not None
    assert len(found.retrieval.values) == PEOPLE * SHOTS
    assert found.retrieval.alone == 1
    names = sorted(set(vectors) - {"stray"})
    first = []
    for query in names[: PEOPLE * SHOTS - 1]:
        best = max((name for name in names if name != query), key=lambda name: float(vectors[query] @ vectors[name]))
        first.append(best[:3] == query[:3])
    assert found.retrieval.values[:, 0].tolist() == [*map(float, first), 0.0]
    assert np.mean(first) > 0.5  # the portraits of a person share their colours, which is all that the network sees


def test_a_second_evaluation_finds_the_file_and_the_same_figures(request_: Request, found: Evaluation) -> None:
    before = request_.output.stat().st_mtime_ns
    again = evaluate(request_)
    assert request_.output.stat().st_mtime_ns == before
    assert again.pairs is None
    np.testing.assert_array_equal(again.curve.accepted, found.curve.accepted)


def test_too_many_pairs_are_drawn_and_said_to_be(found: Evaluation) -> None:
    drawn = measure(found.embedded, max_pairs=300)
    assert drawn.sampled
    assert 200 < drawn.curve.impostors <= 300
    assert drawn.curve.genuine == found.curve.genuine


def test_nothing_embedded_is_nothing_to_compare(tiny_engine: Path, tmp_path: Path) -> None:
    for name in ("A/1.jpg", "B/1.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_text("no photograph")
    with raises(ConfigError, "0 of 2", "/outcomes"):
        evaluate(Request((str(tmp_path / "in"),), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")))
