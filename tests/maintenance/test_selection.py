"""Select rows by name: photos, folders, names that are not UTF-8, unknown names."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import ConfigError, SourceError
from runtime.maintenance.selection import count_shared, find_duplicates, paths_below, read_names, select_photos
from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.errors import raises
from tests.support.people_files import embed_folder

PATHS = [
    b"P0/a.jpg",
    b"P0/b.jpg",
    b"P0/x/c.jpg",
    b"P00.jpg",
    b"P1/caf\xe9.jpg",
    b"P1/caf\\xe9.jpg",
    b"P\xe9/d.jpg",
    b"q",
]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ([b"P0/b.jpg"], [1]),
        ([b"P0/"], [0, 1, 2]),
        ([b"P0"], [0, 1, 2]),
        ([b"P0/x/"], [2]),
        ([b"P00.jpg", b"q"], [3, 7]),
        ([b"P1/caf\xe9.jpg"], [4]),
        ([b"P1/caf\\xe9.jpg", b"P1/caf\xe9.jpg"], [4, 5]),
        ([b"P\\xe9/d.jpg"], [6]),
        ([b"P\\xe9/"], [6]),
        ([b"P\xe9"], [6]),
        ([b"q", b"q", b"P0/", b"P0/a.jpg"], [0, 1, 2, 7]),
    ],
)
def test_names_select_rows(names: list[bytes], rows: list[int]) -> None:
    selection = select_photos(PATHS, names)
    assert selection.rows.tolist() == rows
    assert selection.missing == ()


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        (b"P1/caf\\xe9.jpg", (rb"b'P1/caf\xe9.jpg'", rb"b'P1/caf\\xe9.jpg'")),
        (b"Q\\xe9\\xe8/", (rb"b'Q\xe9\\xe8'", rb"b'Q\\xe9\xe8'")),
    ],
)
def test_a_name_that_several_photos_show_is_refused(name: bytes, alike: tuple[bytes, ...]) -> None:
    with raises(ConfigError, *(each.decode() for each in alike)):
        select_photos([*PATHS, b"Q\\xe9\xe8/a.jpg", b"Q\xe9\\xe8/a.jpg"], [name])


@pytest.mark.parametrize("name", [b"P", b"p0/", b"P0/a", b"a.jpg", b"q/", b"P00.jpg/", b"P0/*", b"P0/./a.jpg"])
def test_unknown_names_are_listed(name: bytes) -> None:
    selection = select_photos(PATHS, [name, b"q"])
    assert (selection.rows.tolist(), selection.missing) == ([7], (name,))


def test_absolute_names_are_cut_to_the_root() -> None:
    names = [b"/r/oot/P0/", b"/r/oot/q", b"./q", b"q/", b"/elsewhere/q"]
    assert paths_below(b"/r/oot", names) == [b"P0/", b"q", b"q", b"q/", b"/elsewhere/q"]
    assert paths_below(b"/", [b"/q"]) == [b"q"]


@pytest.mark.parametrize("name", [b"/r/oot", b"/r/oot/", b".", b"./"])
def test_the_root_selects_no_photos(name: bytes) -> None:
    with raises(ConfigError, repr(name.decode())):
        paths_below(b"/r/oot", [name])


def test_a_list_is_separated_by_lines_or_nuls(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfP0/\r\n\n  \nq \ncaf\xe9.jpg")
    assert read_names(path) == [b"P0/", b"q ", b"caf\xe9.jpg"]
    path.write_bytes(b"two\nlines\0q\0")
    assert read_names(path) == [b"two\nlines", b"q"]
    with raises(SourceError, tmp_path / "none"):
        read_names(tmp_path / "none")


@pytest.fixture
def long_names(tiny_engine: Path, tmp_path: Path) -> Path:
    """Two photos below a path of 600 bytes, longer than a stored detail, and a copy of each."""
    long = "/".join(["long" * 50] * 3)
    for number, person in enumerate("AB"):
        photo = make.encode(make.scene(112, 112, seed=number))
        for name in (f"{long}/{person}.jpg", f"z/{person}-copy.jpg"):
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo)
    return embed_folder(tmp_path / "photos", tmp_path / "o.h5", tiny_engine, "--skip-duplicates", "--align", "none")


def test_duplicates_of_photos_with_long_names_are_told_apart_by_their_bytes(long_names: Path) -> None:
    with EmbeddingFile(long_names) as file:
        assert len(set(file.hdf5["outcomes/detail"][2:].tolist())) == 1
        for original in (0, 1):
            duplicate = original + 2
            assert find_duplicates(file, np.array([original])).tolist() == [duplicate]
            assert count_shared(file, np.array([duplicate])) == 1  # its original stays
            assert count_shared(file, np.array([original, duplicate])) == 0
            assert count_shared(file, np.array([1 - original, duplicate])) == 1


def test_a_cut_detail_without_digests_counts_as_a_duplicate_that_may_stay(long_names: Path) -> None:
    with h5py.File(long_names, "r+") as opened:
        del opened["outcomes/digest"]
    with EmbeddingFile(long_names) as file:
        assert find_duplicates(file, np.array([0])).tolist() == [2, 3]
        assert count_shared(file, np.array([0, 2, 3])) == 2


def test_a_whole_detail_without_digests_names_the_original(tiny_engine: Path, tmp_path: Path) -> None:
    for number, name in enumerate("abab"):
        path = tmp_path / "photos" / f"{number}{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make.encode(make.scene(112, 112, seed=ord(name))))
    output = embed_folder(tmp_path / "photos", tmp_path / "o.h5", tiny_engine, "--skip-duplicates", "--align", "none")
    with h5py.File(output, "r+") as opened:
        del opened["outcomes/digest"]
    with EmbeddingFile(output) as file:
        assert find_duplicates(file, np.array([1])).tolist() == [3]
        assert count_shared(file, np.array([1, 3])) == 0
        assert count_shared(file, np.array([0, 3])) == 1
