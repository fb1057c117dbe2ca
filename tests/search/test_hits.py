"""Hits against NumPy in double precision: photographs, folders, without the query's own file, however deep."""

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
from runtime.search import hits as deep
from runtime.search import search as ask
from runtime.search.answers import Answer
from runtime.search.hits import FindOptions
from runtime.search.search import Search
from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.errors import raises


def search(gallery: EmbeddingFile, queries: Sequence[str], **find: Any) -> list[Answer]:
    with Search(gallery) as opened:
        return opened.find(queries, **find)


ODD = "q'<b>\n"


@pytest.fixture(scope="module")
def people(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 folders of 1 to 7 photographs, and some in none."""
    folder = tmp_path_factory.mktemp("hits")
    rng = np.random.default_rng(5)
    seed = 0
    for person in range(25):
        home = folder / "in" / (f"person{person}" if person else ODD)
        home.mkdir(parents=True)
        for number in range(int(rng.integers(1, 8))):
            seed += 1
            (home / f"{number}.jpg").write_bytes(make.encode(make.scene(60, 60, seed=seed)))
    for number in range(3):
        (folder / "in" / f"{number}.jpg").write_bytes(make.encode(make.scene(60, 60, seed=900 + number)))
    process(Request((str(folder / "in"),), folder / "people.h5", read_engine(tiny_engine), faces=FaceRules("none")))
    return folder / "people.h5"


@pytest.fixture
def gallery(people: Path) -> Iterator[EmbeddingFile]:
    with EmbeddingFile(people) as opened:
        yield opened


def content(people: Path) -> tuple[NDArray[np.float64], list[str]]:
    with h5py.File(people) as file:
        return file["embeddings"][:].astype(np.float64), [name.decode() for name in file["image_paths"][:]]


def ranked(people: Path, row: int) -> list[tuple[int, float, str]]:
    """(row, score, name), best first, of a row that asks."""
    vectors, names = content(people)
    scores = vectors @ vectors[row]
    order = sorted(range(len(names)), key=lambda i: (-scores[i], i))
    return [(i, float(scores[i]), names[i]) for i in order]


def grouped(ranking: list[tuple[int, float, str]], k: int) -> list[tuple[str, int, int]]:
    """(folder, its best row, photographs of it before folder k + 1 appears)."""
    found: dict[str, list[int]] = {}
    for row, _, name in ranking:
        folder = os.path.dirname(name) or "."
        if folder not in found and len(found) == k:
            break
        found.setdefault(folder, []).append(row)
    return [(folder, rows[0], len(rows)) for folder, rows in found.items()]


def paths(people: Path) -> list[str]:
    return [str(people.parent / "in" / name) for name in content(people)[1]]


@pytest.mark.parametrize("k", [1, 3, 24, 100])
def test_one_hit_a_folder(gallery: EmbeddingFile, people: Path, k: int) -> None:
    queries = paths(people)
    found = search(gallery, queries, k=k, by_folder=True)
    assert found[0].facts.by_folder
    for row, answer in enumerate(found):
        expected = grouped(ranked(people, row), k)
        assert [(hit.folder, hit.row, hit.photographs) for hit in answer.hits] == expected
        assert [hit.rank for hit in answer.hits] == list(range(1, len(expected) + 1))
        assert not answer.cut
    assert {hit.folder for answer in found for hit in answer.hits} >= {".", ODD}


@pytest.mark.parametrize("by_folder", [False, True])
def test_the_querys_own_file_is_left_out_by_any_name(
    gallery: EmbeddingFile, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_folder: bool
) -> None:
    row = 11
    own = paths(people)[row]
    os.symlink(own, tmp_path / "link.jpg")
    os.link(own, tmp_path / "hard.jpg")
    monkeypatch.chdir(Path(own).parent)
    ranking = [entry for entry in ranked(people, row) if entry[0] != row]
    names = (own, str(tmp_path / "link.jpg"), str(tmp_path / "hard.jpg"), Path(own).name)
    for answer in search(gallery, names, k=4, exclude_self=True, by_folder=by_folder):
        expected = [entry[1] for entry in grouped(ranking, 4)] if by_folder else [entry[0] for entry in ranking[:4]]
        assert [hit.row for hit in answer.hits] == expected
    os.unlink(tmp_path / "hard.jpg")


def test_a_copy_is_another_photograph(gallery: EmbeddingFile, people: Path, tmp_path: Path) -> None:
    shutil.copy(paths(people)[5], tmp_path / "copy.jpg")
    (answer,) = search(gallery, [str(tmp_path / "copy.jpg")], k=1, exclude_self=True)
    assert answer.hits[0].row == 5


def test_a_photograph_that_is_gone_is_no_query(people: Path, tmp_path: Path) -> None:
    """Its row is a hit: nobody can say that it was the same file."""
    hidden = tmp_path / "hidden.jpg"
    own = paths(people)[7]
    shutil.move(own, hidden)
    try:
        with EmbeddingFile(people) as opened:
            (answer,) = search(opened, [str(hidden)], k=1, exclude_self=True)
    finally:
        shutil.move(hidden, own)
    assert answer.hits[0].row == 7


def test_a_threshold_ends_folders_too(gallery: EmbeddingFile, people: Path) -> None:
    ranking = ranked(people, 0)
    threshold = ranking[6][1] - 1e-6
    (answer,) = search(gallery, paths(people)[:1], k=50, threshold=threshold, by_folder=True)
    assert [(hit.folder, hit.row, hit.photographs) for hit in answer.hits] == grouped(ranking[:7], 50)
    assert not answer.cut


def test_the_search_goes_deeper_until_a_bound_and_says_so(
    gallery: EmbeddingFile, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep, "MAX_RANKED_ROWS", 20)
    for k in (2, 10):
        (answer,) = search(gallery, paths(people)[:1], k=k, by_folder=True)
        expected = grouped(ranked(people, 0)[:20], k)
        assert [(hit.folder, hit.row, hit.photographs) for hit in answer.hits] == expected
        assert answer.cut == (len({os.path.dirname(name) for *_, name in ranked(people, 0)[:20]}) <= k)
    monkeypatch.setattr(deep, "MAX_ROWS_AT_ONCE", 40)  # two queries at a time
    one_by_one = [search(gallery, [query], k=3, by_folder=True)[0] for query in paths(people)]
    assert search(gallery, paths(people), k=3, by_folder=True) == one_by_one


@pytest.mark.parametrize("options", [FindOptions(4), FindOptions(2, None, True, True)])
def test_many_batches_answer_as_one_by_one(
    gallery: EmbeddingFile, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: FindOptions
) -> None:
    monkeypatch.setattr(ask, "_BATCH_QUERIES", 7)
    queries = [*paths(people)[:20], str(tmp_path / "none.jpg"), *paths(people)[20:40]]
    with Search(gallery) as opened:
        answers = list(opened.stream(queries, options))
        alone = [next(opened.stream([query], options)) for query in queries]
    batches = [list(batch) for _, batch in groupby(answers, key=lambda answer: id(answer.facts))]
    assert [len(batch) for batch in batches] == [7, 7, 7, 7, 7, 6]
    assert answers == alone
    assert alone[20].error


def test_no_hit_is_no_question(gallery: EmbeddingFile) -> None:
    with raises(ConfigError, 0, 1):
        search(gallery, [], k=0)


def test_names_of_all_queries_are_read_together(
    gallery: EmbeddingFile, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = EmbeddingFile.photo_paths

    def counted(self: EmbeddingFile, rows: list[int]) -> list[bytes]:
        asked.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(EmbeddingFile, "photo_paths", counted)
    search(gallery, paths(people), k=3, by_folder=True)
    assert 1 <= len(asked) <= 3  # one for each depth, not one for each row of each query
    asked.clear()
    search(gallery, paths(people), k=3)
    assert asked == []
