"""Select rows by name: photos, folders, names that are not UTF-8, unknown names."""

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
        ([b"P1/caf\\xe9.jpg"], [5]),  # an exact path takes precedence over its displayed text
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
