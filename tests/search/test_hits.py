"""Hits by photo and by folder, with and without the query file; the oracle is NumPy in double precision."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.engine import read_engine
from runtime.errors import ConfigError
from runtime.faces.rules import FaceRules
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.search import hits as hits_module
from runtime.search import search as search_module
from runtime.search.answers import Answer
from runtime.search.hits import FindOptions
from runtime.search.search import Search
from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.errors import raises


def search(gallery: EmbeddingFile, queries: Sequence[str], **find: Any) -> list[Answer]:
    with Search(gallery) as searcher:
        return searcher.find(queries, **find)


ODD = "q'<b>\n"


@pytest.fixture(scope="module")
def people(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed 25 folders of 1 to 7 photos, and 3 photos in the root."""
    folder = tmp_path_factory.mktemp("hits")
    rng = np.random.default_rng(5)
    seed = 0
    for person in range(25):
        person_folder = folder / "in" / (f"person{person}" if person else ODD)
        person_folder.mkdir(parents=True)
        for number in range(int(rng.integers(1, 8))):
            seed += 1
            (person_folder / f"{number}.jpg").write_bytes(make.encode(make.scene(60, 60, seed=seed)))
    for number in range(3):
        (folder / "in" / f"{number}.jpg").write_bytes(make.encode(make.scene(60, 60, seed=900 + number)))
    process(Request((str(folder / "in"),), folder / "people.h5", read_engine(tiny_engine), faces=FaceRules("none")))
    return folder / "people.h5"


@pytest.fixture
def gallery(people: Path) -> Iterator[EmbeddingFile]:
    with EmbeddingFile(people) as searcher:
        yield searcher


def read_rows(people: Path) -> tuple[NDArray[np.float64], list[str]]:
    with h5py.File(people) as file:
        return file["embeddings"][:].astype(np.float64), [name.decode() for name in file["image_paths"][:]]


def rank_rows(people: Path, row: int) -> list[tuple[int, float, str]]:
    """Rank all rows for the query `row`: (row, score, name), best first."""
    vectors, names = read_rows(people)
    scores = vectors @ vectors[row]
    order = sorted(range(len(names)), key=lambda i: (-scores[i], i))
    return [(i, float(scores[i]), names[i]) for i in order]


def group_by_folder(ranking: list[tuple[int, float, str]], k: int) -> list[tuple[str, int, int]]:
    """Group a ranking: (folder, its best row, its number of photos before folder k + 1 appears)."""
    folders: dict[str, list[int]] = {}
    for row, _, name in ranking:
        folder = os.path.dirname(name) or "."
        if folder not in folders and len(folders) == k:
            break
        folders.setdefault(folder, []).append(row)
    return [(folder, rows[0], len(rows)) for folder, rows in folders.items()]


def photo_paths(people: Path) -> list[str]:
    return [str(people.parent / "in" / name) for name in read_rows(people)[1]]


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3, 24, 100])
def test_by_folder_gives_one_hit_per_folder(gallery: EmbeddingFile, people: Path, k: int) -> None:
    queries = photo_paths(people)
    answers = search(gallery, queries, k=k, by_folder=True)
    assert answers[0].facts.by_folder
    for row, answer in enumerate(answers):
        expected = group_by_folder(rank_rows(people, row), k)
        assert [(hit.folder, hit.row, hit.photographs) for hit in answer.hits] == expected
        assert [hit.rank for hit in answer.hits] == list(range(1, len(expected) + 1))
        assert not answer.cut
    assert {hit.folder for answer in answers for hit in answer.hits} >= {".", ODD}


@pytest.mark.parametrize("by_folder", [False, True])
def test_exclude_self_removes_the_query_file_under_any_name(
    gallery: EmbeddingFile, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_folder: bool
) -> None:
    row = 11
    own_path = photo_paths(people)[row]
    os.symlink(own_path, tmp_path / "link.jpg")
    os.link(own_path, tmp_path / "hard.jpg")
    monkeypatch.chdir(Path(own_path).parent)
    ranking = [entry for entry in rank_rows(people, row) if entry[0] != row]
    names = (own_path, str(tmp_path / "link.jpg"), str(tmp_path / "hard.jpg"), Path(own_path).name)
    for answer in search(gallery, names, k=4, exclude_self=True, by_folder=by_folder):
        expected = (
            [entry[1] for entry in group_by_folder(ranking, 4)] if by_folder else [entry[0] for entry in ranking[:4]]
        )
        assert [hit.row for hit in answer.hits] == expected
    os.unlink(tmp_path / "hard.jpg")


def test_exclude_self_keeps_a_copy(gallery: EmbeddingFile, people: Path, tmp_path: Path) -> None:
    shutil.copy(photo_paths(people)[5], tmp_path / "copy.jpg")
    (answer,) = search(gallery, [str(tmp_path / "copy.jpg")], k=1, exclude_self=True)
    assert answer.hits[0].row == 5


def test_exclude_self_keeps_the_row_of_a_missing_photo(people: Path, tmp_path: Path) -> None:
    """The row stays a hit, because without its file no comparison of files is possible."""
    hidden = tmp_path / "hidden.jpg"
    own_path = photo_paths(people)[7]
    shutil.move(own_path, hidden)
    try:
        with EmbeddingFile(people) as searcher:
            (answer,) = search(searcher, [str(hidden)], k=1, exclude_self=True)
    finally:
        shutil.move(hidden, own_path)
    assert answer.hits[0].row == 7


def test_a_threshold_applies_to_folders(gallery: EmbeddingFile, people: Path) -> None:
    ranking = rank_rows(people, 0)
    threshold = ranking[6][1] - 1e-6
    (answer,) = search(gallery, photo_paths(people)[:1], k=50, threshold=threshold, by_folder=True)
    assert [(hit.folder, hit.row, hit.photographs) for hit in answer.hits] == group_by_folder(ranking[:7], 50)
    assert not answer.cut


@pytest.mark.slow
def test_a_search_by_folder_stops_at_a_limit_and_marks_the_answer(
    gallery: EmbeddingFile, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hits_module, "MAX_RANKED_ROWS", 20)
    for k in (2, 10):
        (answer,) = search(gallery, photo_paths(people)[:1], k=k, by_folder=True)
        expected = group_by_folder(rank_rows(people, 0)[:20], k)
        assert [(hit.folder, hit.row, hit.photographs) for hit in answer.hits] == expected
        assert answer.cut == (len({os.path.dirname(name) for *_, name in rank_rows(people, 0)[:20]}) <= k)
    monkeypatch.setattr(hits_module, "MAX_ROWS_AT_ONCE", 40)  # two queries per search
    one_by_one = [search(gallery, [query], k=3, by_folder=True)[0] for query in photo_paths(people)]
    assert search(gallery, photo_paths(people), k=3, by_folder=True) == one_by_one


@pytest.mark.slow
@pytest.mark.parametrize("options", [FindOptions(4), FindOptions(2, None, True, True)])
def test_batches_give_the_answers_of_single_queries(
    gallery: EmbeddingFile, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: FindOptions
) -> None:
    monkeypatch.setattr(search_module, "_BATCH_QUERIES", 7)
    queries = [*photo_paths(people)[:20], str(tmp_path / "none.jpg"), *photo_paths(people)[20:40]]
    with Search(gallery) as searcher:
        answers = list(searcher.stream(queries, options))
        single_answers = [next(searcher.stream([query], options)) for query in queries]
    batches = [list(batch) for _, batch in groupby(answers, key=lambda answer: id(answer.facts))]
    assert [len(batch) for batch in batches] == [7, 7, 7, 7, 7, 6]
    assert answers == single_answers
    assert single_answers[20].error


def test_k_must_be_positive(gallery: EmbeddingFile) -> None:
    with raises(ConfigError, 0, 1):
        search(gallery, [], k=0)


def test_names_of_all_queries_are_read_together(
    gallery: EmbeddingFile, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_counts: list[int] = []
    original_photo_paths = EmbeddingFile.photo_paths

    def count_calls(self: EmbeddingFile, rows: list[int]) -> list[bytes]:
        row_counts.append(len(rows))
        return original_photo_paths(self, rows)

    monkeypatch.setattr(EmbeddingFile, "photo_paths", count_calls)
    search(gallery, photo_paths(people), k=3, by_folder=True)
    assert 1 <= len(row_counts) <= 3  # one call per depth, not one per row
    row_counts.clear()
    search(gallery, photo_paths(people), k=3)
    assert row_counts == []
