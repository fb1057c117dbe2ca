"""Decisions about rows: they name photos, so that they outlast new row numbers, and pages and commands see them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import runtime as facemill
from runtime.errors import ConfigError
from runtime.review.review import PairVerdict, Review
from runtime.review.rows import STATES, RowRules
from runtime.review.store import ReviewStore
from runtime.storage.file import EmbeddingFile
from tests.support.clustered_files import EVIL, people_rows, write_file
from tests.support.duplicate_people import write_rows

SIZES = [3, 3, 2]
NAMES = [b"%d.jpg" % row for row in range(6)] + [b"caf\xe9.jpg", EVIL]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "people.h5", people_rows(SIZES, noise=0.3), NAMES)


def test_decisions_are_seen_by_everybody_at_once(file: Path) -> None:
    with Review(file) as review, Review(str(file), who="desk") as other:
        review.decide(0, 3, "same")
        other.decide(6, 7, "different")  # names that are not UTF-8
        assert (review.state(3, 0), review.state(6, 7), other.state(0, 3), other.state(0, 6)) == (
            "same",
            "different",
            "same",
            "",
        )
        assert review.undo_pair() is not None
        assert review.undo_pair() is None  # the other decision is of another person
        assert other.state(0, 3) == ""
        assert review.redo_pair() is not None
        assert other.state(0, 3) == "same"


def test_clusters_are_merged_split_and_named(file: Path) -> None:
    with Review(file) as review:
        review.merge([0, 1, 3], "Anna")
        review.split([4], [0, 1, 3])
        review.name([6], " Bea ")
        assert review.name_of([0, 6, 1]) == "Anna"
        assert review.name_of([6]) == "Bea"
        assert (review.state(0, 3), review.state(4, 1)) == ("same", "different")
        assert review.undo_pair() is None
        review.undo_cluster()
        assert review.name_of([6]) == ""
        review.undo_cluster()
        assert review.state(4, 1) == ""
        review.redo_cluster()
        assert review.state(4, 1) == "different"


def test_pairs_are_decided_all_or_none(file: Path) -> None:
    with Review(file) as review:
        with pytest.raises(ConfigError, match="row 99"):
            review.decide_pairs([PairVerdict(0, 1, "same"), PairVerdict(0, 99, "same")])
        assert review.state(0, 1) == ""
        assert len(review.decide_pairs([PairVerdict(0, 1, "same"), PairVerdict(1, 2, "different")])) == 2
        assert review.state(0, 2) == "different"


@pytest.mark.parametrize(
    "decide",
    [
        lambda review: review.decide(0, 0, "same"),
        lambda review: review.decide(-1, 0, "same"),
        lambda review: review.decide(0, 1, "maybe"),
        lambda review: review.merge([1]),
        lambda review: review.merge([1, 1]),
        lambda review: review.split([], [1]),
        lambda review: review.split([1], []),
        lambda review: review.split([1, 2], [2, 3]),
        lambda review: review.name([], "Anna"),
        lambda review: review.name([0], "A" * 201),
        lambda review: review.name([0], "An\u202ena"),
    ],
)
def test_wrong_decisions_are_refused_and_nothing_is_stored(file: Path, decide: object) -> None:
    with Review(file) as review:
        with pytest.raises(ConfigError):
            decide(review)  # type: ignore[operator]
        assert not review.rules
    assert ReviewStore(file).clock() == 0


def test_faces_of_a_photo_are_told_apart(tmp_path: Path) -> None:
    vectors = people_rows([2, 2])
    path = write_rows(tmp_path / "faces.h5", vectors, names=[b"a", b"a", b"b", b"b"], counts=[2, 2])
    with Review(path) as review:
        review.decide(1, 2, "different")
        assert [review.state(a, b) for a, b in ((1, 2), (0, 2), (1, 3))] == ["different", "", ""]
    with EmbeddingFile(path) as embeddings:
        rules = RowRules.of(embeddings)
        first, second = np.array([0, 1, 1]), np.array([2, 2, 3])
        assert [STATES[i] for i in rules.states(first, second)] == ["", "different", ""]


def test_decisions_outlast_new_row_numbers_and_a_new_root(tmp_path: Path) -> None:
    file = write_file(tmp_path / "people.h5", people_rows([2, 2]), [b"p/a.jpg", b"p/b.jpg", b"p/c.jpg", b"p/d.jpg"])
    with Review(file) as review:
        review.decide(1, 3, "different")
    os.remove(file)
    write_file(file, people_rows([2, 2, 1]), [b"0.jpg", b"p/a.jpg", b"p/b.jpg", b"p/d.jpg", b"q.jpg"])
    with Review(file) as review:
        assert review.state(2, 3) == "different"
        assert review.state(1, 3) == ""


@pytest.mark.slow
def test_many_decisions_are_read_in_time_to_click(tmp_path: Path) -> None:
    count = 3000
    file = write_file(tmp_path / "many.h5", people_rows([2] * count, dimension=8))
    with Review(file) as review:
        verdicts = [PairVerdict(2 * i, 2 * i + 1, "same" if i % 2 else "different") for i in range(count)]
        review.decide_pairs(verdicts)
        first = np.arange(0, 2 * count, 2)
        states = review.rules.states(first, first + 1)
    assert [STATES[state] for state in states[:2]] == ["different", "same"]
    assert (states == STATES.index("same")).sum() == count // 2


def test_the_library_offers_reviews() -> None:
    assert facemill.Review is Review
