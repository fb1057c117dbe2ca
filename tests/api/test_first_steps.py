"""What newcomers do with the library: photos in memory, closed files, arguments of wrong types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.api.jobs import add, process
from runtime.api.pairs import find_pairs
from runtime.api.people import cluster
from runtime.api.photos import FaceEmbedder
from runtime.engines.engine import read_engine
from runtime.errors import ConfigError, SourceError
from runtime.faces.rules import FaceRules
from runtime.search.search import Search
from runtime.sources.source import MemorySource
from runtime.storage.file import EmbeddingFile
from tests.support.errors import raises
from tests.support.people_files import embed_folder, make_people

CROPS = FaceRules("none")


@pytest.fixture(scope="module")
def folder(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three people, and their embedding file."""
    path = tmp_path_factory.mktemp("first_steps")
    make_people(path / "photos", range(3))
    embed_folder(path / "photos", path / "people.h5", tiny_engine, "--align", "none")
    return path


def photos_of(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """All photos and their names, sorted."""
    paths = sorted((folder / "photos").rglob("*.jpg"))
    return [path.read_bytes() for path in paths], [bytes(path.relative_to(folder / "photos")) for path in paths]


@pytest.mark.slow
def test_photos_in_memory_give_the_rows_of_photos_in_files(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    source = MemorySource(*photos_of(folder))
    summary = process(source, tmp_path / "o.h5", engine=tiny_engine, faces=CROPS)
    assert summary.outcomes == {"embedded": 12}
    again = process(source, tmp_path / "o.h5", engine=tiny_engine, faces=CROPS)
    assert again.outcomes == {"embedded": 12}
    with EmbeddingFile(tmp_path / "o.h5") as ours, EmbeddingFile(folder / "people.h5") as theirs:
        assert ours.paths == theirs.paths
        np.testing.assert_array_equal(ours.vectors, theirs.vectors)


def test_numbers_are_sorted_names(tiny_engine: Path, folder: Path, tmp_path: Path) -> None:
    photos, _ = photos_of(folder)
    summary = process(MemorySource(photos), tmp_path / "o.h5", engine=tiny_engine, faces=CROPS)
    assert summary.outcomes == {"embedded": 12}
    with EmbeddingFile(tmp_path / "o.h5") as file:
        assert (file.paths[0], file.paths[11]) == ("00", "11")


WRONG_NAMES = [
    [b"a", b"./b"], [b"/a", b"b"], [b"a", b"b//c"], [b"a", b"b/"], [b"a", b"b/../c"], [b"a", b"b\0"],
    [b"b", b"a"], [b"a", b"a"], ["a", "b"],
]  # fmt: skip


@pytest.mark.parametrize("names", WRONG_NAMES)
def test_names_that_a_file_cannot_hold_are_refused(names: list[bytes], tiny_engine: Path, tmp_path: Path) -> None:
    with raises(SourceError):
        process(MemorySource([b"1", b"2"], names), tmp_path / "o.h5", engine=tiny_engine, faces=CROPS)
    assert not (tmp_path / "o.h5").exists()


def test_a_source_without_photos_is_refused(tiny_engine: Path, tmp_path: Path) -> None:
    with raises(SourceError, "no photos"):
        process(MemorySource([]), tmp_path / "o.h5", engine=tiny_engine, faces=CROPS)


def test_a_closed_file_is_closed_and_not_damaged(folder: Path) -> None:
    with EmbeddingFile(folder / "people.h5") as file:
        search = Search(file)
    queries = np.eye(1, file.dimension, dtype=np.float32)
    actions = (
        lambda: file.vectors, lambda: file.paths, lambda: file.outcomes, lambda: file.names([0]),
        lambda: list(file.scanned_paths()), lambda: file.has_column("cluster"), lambda: search.find_vectors(queries),
    )  # fmt: skip
    for action in actions:
        with raises(ConfigError, folder / "people.h5", "was closed"):
            action()


@pytest.mark.parametrize("photos", [[b"\xff\xd8 a photo"], [np.zeros((4, 4, 3), np.uint8)], 5])
def test_photos_that_are_no_paths_are_named_by_type_and_not_printed(
    photos: object, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    with raises(ConfigError, "MemorySource") as caught:
        process(photos, tmp_path / "o.h5", engine=tiny_engine)  # type: ignore[arg-type]
    assert "xff" not in str(caught.value)
    if isinstance(photos, list):
        with raises(ConfigError, "MemorySource"):
            add(folder / "people.h5", photos)


def test_rules_of_a_wrong_type_are_refused(tmp_path: Path, tiny_engine: Path) -> None:
    for arguments in ({"faces": "all"}, {"limits": 5}, {"patterns": ["*.jpg"]}):
        (name,) = arguments
        with raises(ConfigError, name):
            process("photos", tmp_path / "o.h5", engine=tiny_engine, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [3, -1.5, float("nan"), "0.5"])
def test_a_threshold_that_is_no_cosine_is_refused_and_leaves_nothing(threshold: object, folder: Path) -> None:
    file = folder / "people.h5"
    query = np.eye(1, 512, dtype=np.float32)
    for call in (
        lambda: find_pairs(file, threshold=threshold),  # type: ignore[arg-type]
        lambda: cluster(file, threshold=threshold),  # type: ignore[arg-type]
        lambda: Search(file).find_vectors(query, threshold=threshold),  # type: ignore[arg-type]
    ):
        with raises(ConfigError, "threshold"):
            call()
    assert not list(folder.glob("*.parts"))


def test_a_grey_picture_is_one_photo_that_cannot_be_embedded(tiny_engine: Path) -> None:
    with FaceEmbedder(engine=read_engine(tiny_engine), align="none") as embedder:
        (embedding,) = embedder.embed(np.zeros((50, 37), np.uint8))  # type: ignore[arg-type]
        assert "(50, 37)" in embedding.error
        with raises(ConfigError, "NoneType"):
            embedder.embed(None)  # type: ignore[arg-type]
