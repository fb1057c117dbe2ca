"""A file that is replaced keeps its indexes if the rows are equal, and loses them otherwise."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.index import sidecar
from runtime.index.approximate import ApproximateIndex
from runtime.index.codesfile import codes_path
from runtime.index.flat import FlatIndex
from runtime.index.indexfile import index_path
from runtime.index.samerows import same_rows
from runtime.index.sidecar import sidecar_path
from runtime.storage.dataset import edit_file
from runtime.storage.file import EmbeddingFile
from tests.index.test_approximate import crowd
from tests.index.test_flat import oracle, write_gallery
from tests.support.errors import raises

ROWS = crowd(400)
ASKED = crowd(4, seed=30)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A file with a flat and an approximate index."""
    path = write_gallery(tmp_path / "people.h5", ROWS)
    search(path)
    return path


def search(path: Path) -> None:
    """Search with both indexes, rebuild wrong ones, and check that the answer is correct."""
    with h5py.File(path) as file:
        expected = oracle(file["embeddings"][:], ASKED, 5)
    with EmbeddingFile(path) as gallery, ApproximateIndex(gallery, "sq8", 5) as index:
        np.testing.assert_array_equal(index.search(ASKED, 5)[0], expected)
    with EmbeddingFile(path) as gallery, FlatIndex(gallery) as flat:
        np.testing.assert_array_equal(flat.search(ASKED, 5)[0], expected)


def rebuilt_indexes(path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the names of the indexes that the next searches build."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        search(path)
    messages = [record.getMessage() for record in caplog.records]
    return [line.split(":")[0].split("/")[-1] for line in messages if line.startswith("building the index")]


def note(path: Path) -> None:
    with same_rows(path), edit_file(path) as target:
        target["note"] = np.arange(len(target["embeddings"]))


@pytest.mark.slow
def test_indexes_of_the_same_rows_are_not_rebuilt(people: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.read_bytes() for path in (index_path(people), codes_path(people, "sq8"))}
    cards = [json.loads(sidecar_path(path).read_text()) for path in before]
    note(people)
    assert rebuilt_indexes(people, caplog) == []
    assert {path: path.read_bytes() for path in before} == before
    with EmbeddingFile(people) as gallery:
        expected = [{**card, "source": gallery.source} for card in cards]  # nothing else changed
    assert [json.loads(sidecar_path(path).read_text()) for path in before] == expected


@pytest.mark.slow
def test_indexes_next_to_a_link_are_kept(people: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    link = tmp_path / "here" / "link.h5"
    link.parent.mkdir()
    link.symlink_to(people)
    search(link)
    note(link)
    assert link.is_symlink()
    assert rebuilt_indexes(link, caplog) == []


def other_rows(path: Path) -> None:
    write_gallery(path, crowd(400, seed=9), run_id="run-2")


def other_rows_of_that_size_and_time(path: Path) -> None:
    stat = path.stat()
    other_rows(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize("change", [other_rows, other_rows_of_that_size_and_time])
def test_indexes_of_other_rows_are_rebuilt(
    people: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    with same_rows(people):
        change(people)
    assert rebuilt_indexes(people, caplog) == ["people.h5.faiss", "people.h5.faiss-sq8"]


@pytest.mark.slow
def test_indexes_of_another_file_are_not_adopted(people: Path, caplog: pytest.LogCaptureFixture) -> None:
    other_rows(people)
    note(people)
    assert rebuilt_indexes(people, caplog) == ["people.h5.faiss", "people.h5.faiss-sq8"]


def test_a_change_that_fails_changes_no_sidecar(people: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), same_rows(people), edit_file(people):
        raise ZeroDivisionError
    assert rebuilt_indexes(people, caplog) == []


@pytest.mark.slow
def test_a_stop_between_two_sidecars_rebuilds_the_second_index(
    people: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sidecar.os.replace

    def stop_at_codes(source: str, target: Path) -> None:
        if Path(target).name == "people.h5.faiss-sq8.json":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(sidecar.os, "replace", stop_at_codes)
        with pytest.raises(KeyboardInterrupt):
            note(people)
    assert rebuilt_indexes(people, caplog) == ["people.h5.faiss-sq8"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "[1]", "{", '{"source": 3}'])
def test_an_unreadable_sidecar_only_rebuilds_the_index(
    people: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    sidecar_path(index_path(people)).write_text(text)
    note(people)
    assert rebuilt_indexes(people, caplog) == ["people.h5.faiss"]


def test_what_is_no_embedding_file_is_refused(tmp_path: Path) -> None:
    with raises(StorageError, tmp_path / "none.h5"), same_rows(tmp_path / "none.h5"):
        raise AssertionError("the block was entered")


@pytest.mark.slow
def test_other_cards_follow_too_and_what_a_kill_leaves_of_them_has_a_name_of_ours(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = people.with_name("parts")
    folder.mkdir()
    plan, other = folder / "plan.json", folder / "other.json"
    with EmbeddingFile(people) as gallery:
        plan.write_text(json.dumps({"source": gallery.source, "threshold": 0.5}))
    other.write_text(json.dumps({"source": {"run_id": "x"}}))
    with same_rows(people, plan, other, folder / "none.json"), edit_file(people) as target:
        target["note"] = [1]
    with EmbeddingFile(people) as gallery:
        assert json.loads(plan.read_text()) == {"source": gallery.source, "threshold": 0.5}
    assert json.loads(other.read_text()) == {"source": {"run_id": "x"}}
    assert sorted(os.listdir(folder)) == ["other.json", "plan.json"]
    names: list[str] = []
    monkeypatch.setattr(os, "replace", lambda source, _: names.append(source))
    sidecar.renew_source(plan, json.loads(plan.read_text())["source"], {})
    assert [str(name).endswith(".partial") for name in names] == [True]


def test_the_sidecar_of_a_killed_process_is_swept(people: Path) -> None:
    left = Path(f"{sidecar_path(index_path(people))}.partial")
    left.write_bytes(b"{")
    note(people)
    assert not left.exists()
