"""The photos of an embedding file, and folders in which nothing can be measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import ConfigError, SourceError
from runtime.evaluation.embedded import EmbeddedFolder, check_folder, read_embedded
from runtime.metrics.pairs import read_pairs
from runtime.records import Status
from runtime.storage.dataset import assemble
from runtime.storage.ledger import Ledger
from tests.support.errors import raises
from tests.support.face_batches import D, batch_of, segment_writer

NAMES = [f"P{row // 4}/P{row // 4}_{row % 4:04d}.{'png' if row % 3 else 'jpg'}".encode() for row in range(40)]


@pytest.fixture
def crowd(tmp_path: Path) -> EmbeddedFolder:
    """40 photos of ten people with 0 to 5 faces each."""
    batch = batch_of(range(40), seed=4)
    assert batch.embeddings is not None
    folder = tmp_path / "run"
    folder.mkdir()
    to = segment_writer(folder)
    to.append(replace(batch, embeddings=batch.embeddings / np.linalg.norm(batch.embeddings, axis=1, keepdims=True)))
    to.commit()
    with Ledger(40, folder, "p") as ledger:
        assemble(tmp_path / "o.h5", ledger, NAMES, {"dimension": D, "contract": '{"root": "/photos"}'}, "float32")
    return read_embedded(tmp_path / "o.h5")


def test_the_first_of_several_faces_represents_the_photo(crowd: EmbeddedFolder) -> None:
    batch = batch_of(range(40), seed=4)
    assert batch.embeddings is not None
    rows, first = np.unique(batch.rows, return_index=True)
    assert len(rows) < len(batch.rows)
    assert np.flatnonzero(crowd.has_vector).tolist() == rows.tolist()
    lengths = np.linalg.norm(batch.embeddings[first], axis=1, keepdims=True)
    np.testing.assert_allclose(crowd.vectors, batch.embeddings[first] / lengths, rtol=1e-6)


def test_every_photo_has_a_person_and_an_outcome(crowd: EmbeddedFolder) -> None:
    assert crowd.paths == tuple(NAMES)
    assert crowd.person.tolist() == [row // 4 for row in range(40)]
    assert sum(crowd.outcomes.values()) == 40
    assert crowd.outcomes[Status.EMBEDDED.label] == len(crowd.vectors)


def test_photos_are_found_without_their_extension(crowd: EmbeddedFolder) -> None:
    assert crowd.rows(["P0/P0_0001", "P9/P9_0003", "P9/P9_0004"]).tolist() == [1, 39, -1]
    twice = replace(crowd, paths=(b"A/A_0001.jpg", b"A/A_0001.png", b"B/B_0001.jpg"))
    assert twice.rows(["B/B_0001"]).tolist() == [2]
    with raises(ConfigError, "A/A_0001.jpg", "A/A_0001.png"):
        twice.rows(["A/A_0001"])


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_folder_that_can_be_measured(tmp_path: Path) -> None:
    check_folder(filled(tmp_path, "A/1.jpg", "B/deeper/1.png"), None)


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), ("A/1.jpg", "A/B/2.jpg"), ("A/1.jpg", "2.jpg")])
def test_ambiguous_names_of_people_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with raises(ConfigError, "--pairs"):
        check_folder(filled(tmp_path, *names), None)


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with raises(ConfigError, "none"):
        check_folder(tmp_path / "none", None)
    with raises(SourceError, tmp_path):
        check_folder(tmp_path, None)


def test_pairs_of_another_folder_are_refused_first(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("1\t1\nA\t1\t2\nA\t1\tB\t1\n")
    pairs = read_pairs(tmp_path / "pairs.txt")
    with raises(ConfigError, "A/A_0001.jpg"):
        check_folder(filled(tmp_path / "in", "lfw/A/A_0001.jpg"), pairs)
    check_folder(filled(tmp_path / "in", "A/A_0002.png"), pairs)
