"""The scan: its files and their order, for every kind of folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import AccessError, ConfigError, SourceError
from runtime.sources.pathtable import PathTable, write_paths
from runtime.sources.scan import read_list, scan
from tests.support.errors import raises

ROOT = Path(__file__).resolve().parents[2]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_folder_is_scanned_recursively_in_bytewise_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.JPG", "a.png", "Z.jpeg", "b.webp", "b/2.tif", "b/notes.txt", "ä.bmp", "b/3.TIFF", "noext")
    source = scan([str(tmp_path)])
    assert source.root == os.fsencode(tmp_path)
    assert source.names == [b"Z.jpeg", b"a.png", b"b.webp", b"b/1.JPG", b"b/2.tif", b"b/3.TIFF", "ä.bmp".encode()]


def test_the_order_of_inputs_does_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    assert scan([second, first]) == scan([first, second])
    assert scan([first, second]).root == os.fsencode(tmp_path)


def test_link_loops_end_and_no_photo_counts_twice(tmp_path: Path) -> None:
    touch(tmp_path, "real/1.jpg", "real/deep/2.jpg")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "1-link.jpg").symlink_to(tmp_path / "real" / "1.jpg")
    assert scan([str(tmp_path)]).names == [b"1-link.jpg", b"real/1.jpg", b"real/deep/2.jpg"]


def test_no_link_leads_out_of_the_folders_of_a_limit(tmp_path: Path) -> None:
    root, outside, other = (tmp_path / name for name in ("root", "outside", "root-of-another"))
    for folder in (root / "a", outside, other):
        folder.mkdir(parents=True)
        (folder / "0.jpg").touch()
    (root / "inner").symlink_to(root / "a")
    (root / "photo.jpg").symlink_to(root / "a" / "0.jpg")
    within = [str(root)]
    assert scan([str(root)], within=within).names == [b"a/0.jpg", b"photo.jpg"]
    for name, target in (
        ("link", outside),
        ("link.jpg", outside / "0.jpg"),
        ("link", other),  # whose name begins like that of the root
        ("a/deep", tmp_path),
    ):
        (root / name).symlink_to(target)
        with raises(AccessError, root / name, f"below {root}") as caught:
            scan([str(root)], within=within)
        assert f"to {target}" not in str(caught.value)  # a client of the server may not know it
        assert len(scan([str(root)], within=[str(tmp_path)]).names) >= 3
        (root / name).unlink()
    with raises(AccessError, outside):
        scan([str(outside)], within=within)
    (tmp_path / "list.txt").write_text(f"{outside}/0.jpg\n")
    with raises(AccessError, outside / "0.jpg"):
        scan([f"@{tmp_path}/list.txt"], within=within)


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    assert scan([str(tmp_path)]).names == [b"caf\xe9.jpg"]


def test_a_link_to_a_folder_with_a_photo_name_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "x.jpg").symlink_to(tmp_path / "d")
    assert scan([str(tmp_path)]).names == [b"x.jpg"]


def test_a_list_names_photos_relative_to_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/1.jpg", "in/2.dat")
    listing = tmp_path / "list.txt"
    listing.write_text("in/2.dat\n\nin/1.jpg\r\nin/1.jpg\n" + str(tmp_path / "gone.jpg") + "\n")
    source = scan([f"@{listing}"])
    assert source.root == os.fsencode(tmp_path)
    assert source.names == [b"gone.jpg", b"in/1.jpg", b"in/1.jpg", b"in/2.dat"]
    assert len(read_list(os.fsencode(listing))) == 4


def test_a_list_with_a_byte_order_mark_keeps_its_first_photo(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf1.jpg\n")
    assert scan([f"@{tmp_path / 'list.txt'}"]).names == [b"1.jpg"]


@pytest.mark.parametrize("content", [b"1.jpg\n2\0.jpg\n", "1.jpg\n2.jpg\n".encode("utf-16")])
def test_a_list_that_is_not_text_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with raises(SourceError, tmp_path / "list.txt", "NUL"):
        scan([f"@{tmp_path / 'list.txt'}"])


def test_overlapping_folders_give_a_photo_once_but_a_list_repeats_it(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/b/2.jpg")
    (tmp_path / "list.txt").write_text("a/1.jpg\na/1.jpg\n")
    folders = [str(tmp_path / "a"), str(tmp_path / "a/"), str(tmp_path / "a/b")]
    assert scan(folders).names == [b"1.jpg", b"b/2.jpg"]
    assert scan([*folders, f"@{tmp_path / 'list.txt'}"]).names == [b"1.jpg", b"1.jpg", b"1.jpg", b"b/2.jpg"]


def test_a_list_below_a_missing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("/not/mounted/1.jpg\n/not/mounted/2.jpg\n")
    with raises(SourceError, "/not/mounted"):
        scan([f"@{tmp_path / 'list.txt'}"])


def test_the_limit_keeps_the_first_photos_in_scan_order(tmp_path: Path) -> None:
    touch(tmp_path, "3.jpg", "1.jpg", "2.jpg")
    assert scan([str(tmp_path)], limit=2).names == [b"1.jpg", b"2.jpg"]


def test_a_single_file_may_have_any_suffix(tmp_path: Path) -> None:
    (tmp_path / "photo.dat").write_bytes(b"\xff\xd8\xff\xe0")
    assert scan([str(tmp_path / "photo.dat")]).names == [b"photo.dat"]


@pytest.mark.parametrize("name", ["gone", "@gone.txt"])
def test_a_missing_input_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with raises(SourceError, name.removeprefix("@")):
        scan([name])


def test_an_empty_folder_and_no_input_are_errors(tmp_path: Path) -> None:
    with raises(SourceError, tmp_path):
        scan([str(tmp_path)])
    with raises(ConfigError):
        scan([])
    with raises(ConfigError, "--limit", 0):
        scan([str(tmp_path)], limit=0)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user without permission")
def test_an_unlistable_folder_becomes_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "open/1.jpg", "closed/2.jpg")
    (tmp_path / "closed").chmod(0)
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o055)
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from runtime.sources.scan import scan\n"
        f"os.setuid(65534)\nprint(scan([{str(tmp_path)!r}]).names)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[b'closed', b'open/1.jpg']", result.stderr


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\0", b"")), max_size=50))
def test_a_path_table_returns_the_written_paths(paths: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "paths"
        write_paths(file, paths)
        with PathTable(file) as table:
            assert list(table) == paths
            assert table[1:3] == paths[1:3]
            with pytest.raises(IndexError):
                table[len(paths)]


def test_a_path_table_may_be_larger_than_a_block(tmp_path: Path) -> None:
    paths = [b"%07d/" % i + b"x" * 250 for i in range(70_000)]  # 18 MB, over one 16 MiB block
    write_paths(tmp_path / "paths", paths)
    with PathTable(tmp_path / "paths") as table:
        assert len(table) == len(paths)
        assert [table[i] for i in (0, 65_535, 65_536, 69_999)] == [paths[i] for i in (0, 65_535, 65_536, 69_999)]


def test_a_scan_looks_once_at_each_folder_of_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list may name millions of photos. Names of one folder are not always neighbours: a/1, a/b/1, a/c."""
    for name in ("a/1.jpg", "a/b/1.jpg", "a/b/c/1.jpg", "a/d.jpg", "a-/1.jpg", "e.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"photo")
    paths = [path for path in (tmp_path / "photos").rglob("*.jpg")]
    paths += [tmp_path / "photos" / "never" / f"{number}.jpg" for number in range(9)]
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    looks, real = Counter[str](), os.stat

    def status(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        looks[os.fsdecode(path)] += 1
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", status)
    scan([f"@{tmp_path / 'list.txt'}"])
    folders = {str(tmp_path / "photos" / name): 1 for name in ("a", "a/b", "a/b/c", "a-", "never")}
    assert {path: number for path, number in looks.items() if path in folders} == folders
