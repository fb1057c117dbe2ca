"""Names to rows: photographs, folders, names that are not text, names that mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import ConfigError, SourceError
from runtime.maintenance.selection import paths_below, read_names, select_photos
from tests.support.errors import raises

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
        ([b"P1/caf\\xe9.jpg"], [5]),  # a path that is so to the byte goes before one that is shown so
        ([b"P\\xe9/d.jpg"], [6]),
        ([b"P\\xe9/"], [6]),
        ([b"P\xe9"], [6]),
        ([b"q", b"q", b"P0/", b"P0/a.jpg"], [0, 1, 2, 7]),
    ],
)
def test_names_mean_rows(names: list[bytes], rows: list[int]) -> None:
    found = select_photos(PATHS, names)
    assert found.rows.tolist() == rows
    assert found.missing == ()


@pytest.mark.parametrize("name", [b"P", b"p0/", b"P0/a", b"a.jpg", b"q/", b"P00.jpg/", b"P0/*", b"P0/./a.jpg"])
def test_names_that_mean_nothing_are_listed(name: bytes) -> None:
    found = select_photos(PATHS, [name, b"q"])
    assert (found.rows.tolist(), found.missing) == ([7], (name,))


def test_absolute_names_are_cut_to_the_root() -> None:
    names = [b"/r/oot/P0/", b"/r/oot/q", b"./q", b"q/", b"/elsewhere/q"]
    assert paths_below(b"/r/oot", names) == [b"P0/", b"q", b"q", b"q/", b"/elsewhere/q"]
    assert paths_below(b"/", [b"/q"]) == [b"q"]


@pytest.mark.parametrize("name", [b"/r/oot", b"/r/oot/", b".", b"./"])
def test_all_that_there_is_is_not_removed_by_its_root(name: bytes) -> None:
    with raises(ConfigError, repr(name.decode())):
        paths_below(b"/r/oot", [name])


def test_lists_have_lines_or_nuls(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfP0/\r\n\n  \nq \ncaf\xe9.jpg")
    assert read_names(path) == [b"P0/", b"q ", b"caf\xe9.jpg"]
    path.write_bytes(b"two\nlines\0q\0")
    assert read_names(path) == [b"two\nlines", b"q"]
    with raises(SourceError, tmp_path / "none"):
        read_names(tmp_path / "none")
