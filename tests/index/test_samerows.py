"""A file replaced by one with the same rows keeps its indexes; one with other rows does not."""

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
    """With both indexes, which are made when they are not right; the answer is right in any case."""
    with h5py.File(path) as file:
        wanted = oracle(file["embeddings"][:], ASKED, 5)
    with EmbeddingFile(path) as gallery, ApproximateIndex(gallery, "sq8", 5) as index:
        np.testing.assert_array_equal(index.search(ASKED, 5)[0], wanted)
    with EmbeddingFile(path) as gallery, FlatIndex(gallery) as flat:
        np.testing.assert_array_equal(flat.search(ASKED, 5)[0], wanted)


def made_again(path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The names of the indexes that the next searches make."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        search(path)
    words = [record.getMessage() for record in caplog.records]
    return [line.split(":")[0].split("/")[-1] for line in words if line.startswith("building the index")]


def note(path: Path) -> None:
    with same_rows(path), edit_file(path) as target:
        target["note"] = np.arange(len(target["embeddings"]))


def test_the_indexes_of_the_same_rows_are_not_made_again(people: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.read_bytes() for path in (index_path(people), codes_path(people, "sq8"))}
    cards = [json.loads(sidecar_path(path).read_text()) for path in before]
    note(people)
    assert made_again(people, caplog) == []
    assert {path: path.read_bytes() for path in before} == before
    with EmbeddingFile(people) as gallery:
        wanted = [{**card, "source": gallery.source} for card in cards]  # nothing else has changed
    assert [json.loads(sidecar_path(path).read_text()) for path in before] == wanted


def test_those_beside_a_link_are_kept(people: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    link = tmp_path / "here" / "link.h5"
    link.parent.mkdir()
    link.symlink_to(people)
    search(link)
    note(link)
    assert link.is_symlink()
    assert made_again(link, caplog) == []


def other_rows(path: Path) -> None:
    write_gallery(path, crowd(400, seed=9), run_id="run-2")


def other_rows_of_that_size_and_time(path: Path) -> None:
    stat = path.stat()
    other_rows(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [other_rows, other_rows_of_that_size_and_time])
def test_those_of_other_rows_are_made_again(
    people: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    with same_rows(people):
        change(people)
    assert made_again(people, caplog) == ["people.h5.faiss", "people.h5.faiss-sq8"]


def test_those_that_were_another_files_before_stay_another_files(
    people: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other_rows(people)
    note(people)
    assert made_again(people, caplog) == ["people.h5.faiss", "people.h5.faiss-sq8"]


def test_a_change_that_fails_changes_no_sidecar(people: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), same_rows(people), edit_file(people):
        raise ZeroDivisionError
    assert made_again(people, caplog) == []


def test_stopped_between_two_sidecars_the_other_index_is_made_again(
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
    assert made_again(people, caplog) == ["people.h5.faiss-sq8"]


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"source": 3}'])
def test_a_sidecar_that_cannot_be_read_costs_an_index_only(
    people: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    sidecar_path(index_path(people)).write_text(text)
    note(people)
    assert made_again(people, caplog) == ["people.h5.faiss"]


def test_what_is_no_embedding_file_is_refused(tmp_path: Path) -> None:
    with raises(StorageError, tmp_path / "none.h5"), same_rows(tmp_path / "none.h5"):
        raise AssertionError("the block was entered")


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
