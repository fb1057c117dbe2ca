"""What was made from a file is found again: beside it, or where its list says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import StorageError
from runtime.storage.derived import (
    Fingerprint,
    derived_nearby,
    forget_pages,
    record_elsewhere,
    record_page,
    recorded_elsewhere,
    recorded_pages,
    take_fingerprint,
    written_pages,
)
from tests.support.errors import assert_names, raises, warnings_in

NAMES = ["people.h5", "a[b]*?.h5", "-x .h5", "two\nlines.h5", "\udcff\u4eba.h5"]


@pytest.mark.parametrize("name", NAMES)
def test_indexes_and_unfinished_jobs_beside_a_file_are_found_and_nothing_else(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    ends = (".faiss", ".faiss.json", ".faiss.partial", ".faiss-ivf", ".faiss-hnsw.json.partial", ".partial", ".adding")
    ours = [file.with_name(name + end) for end in (*ends, ".damaged-12", ".pairs.parts")]
    ours[-1].mkdir()
    others = [file, *(tmp_path / other for other in ("x.faiss", "people.faiss", f"{name}2.faiss", f"x{name}.faiss"))]
    mine = (".pairs.csv", ".pairs-reviewed", ".clusters.html", ".adding-notes.txt", ".damaged-by-me.doc", ".faiss.txt")
    others += [tmp_path / (name + end) for end in mine]
    for path in (*ours[:-1], *others, file.with_name(name + ".pages"), file.with_name(name + ".txt")):
        path.write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / f"{name}.faiss").write_bytes(b"")
    assert derived_nearby(file) == sorted(ours)


def test_what_lies_beside_a_link_is_found_as_well_as_what_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "people.h5").symlink_to(tmp_path / "real" / "p.h5")
    wanted = [tmp_path / "people.h5.faiss", tmp_path / "real" / "p.h5.faiss"]
    for path in (tmp_path / "real" / "p.h5", *wanted):
        path.write_bytes(b"")
    assert derived_nearby(tmp_path / "people.h5") == wanted


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_remembered_once_each_in_order(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    pages = [tmp_path / f"{one}.html" for one in (name, "b", "a")]
    for page in (*pages, pages[1], Path("b.html"), tmp_path / "x" / ".." / "a.html"):
        record_page(file, page)  # none of which is there
    assert recorded_pages(file) == pages  # absolute, whether they exist or not
    assert len((tmp_path / (name + ".pages")).read_bytes().splitlines()) == 3
    (tmp_path / (name + ".pages")).read_bytes().decode("ascii")


def test_a_file_without_pages_has_none(tmp_path: Path) -> None:
    assert recorded_pages(tmp_path / "people.h5") == []
    forget_pages(tmp_path / "people.h5")  # nor is that an error
    assert not list(tmp_path.iterdir())


def test_forgotten_pages_are_gone(tmp_path: Path) -> None:
    record_page(tmp_path / "people.h5", tmp_path / "a.html")
    forget_pages(tmp_path / "people.h5")
    assert recorded_pages(tmp_path / "people.h5") == []
    assert not list(tmp_path.iterdir())


def test_a_file_has_one_list_whatever_name_it_is_opened_by(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real" / "p.h5", tmp_path / "people.h5"
    link.symlink_to(file)
    record_page(link, tmp_path / "a.html")
    record_page(file, tmp_path / "b.html")
    assert recorded_pages(file) == recorded_pages(link) == [tmp_path / "a.html", tmp_path / "b.html"]
    forget_pages(link)
    assert recorded_pages(file) == []


def test_what_a_killed_writer_left_of_a_page_is_found(tmp_path: Path) -> None:
    file, page = tmp_path / "people.h5", tmp_path / "npy"
    record_page(file, page)
    assert recorded_pages(file) == [page]
    (tmp_path / "npy.partial").mkdir()
    assert recorded_pages(file) == [page, tmp_path / "npy.partial"]


def test_what_is_left_of_a_page_behind_a_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    page = tmp_path / "page.parquet"
    page.symlink_to(tmp_path / "real" / "p.parquet")
    left = tmp_path / "real" / "p.parquet.partial"
    left.write_bytes(b"half")
    record_page(tmp_path / "people.h5", page)
    assert recorded_pages(tmp_path / "people.h5") == [page, left]


def test_lines_that_make_no_sense_spoil_no_other(tmp_path: Path) -> None:
    file, known = tmp_path / "people.h5", tmp_path / "people.h5.pages"
    a, b = (b'{"page": "/%c", "seen": null}\n' % name for name in b"ab")
    wrong = (
        b'\n{"x": 1}\nnot json\n7\n"/"\n["/"]\n\xff\xfe\n{"page": "rel", "seen": null}\n{"page": "/x", "seen": [1]}\n'
    )
    known.write_bytes(a + wrong + b + b'{"page": "/torn')  # a power cut took the rest
    record_page(file, Path("/c"))
    record_page(file, Path("/a"))
    assert recorded_pages(file) == [Path("/a"), Path("/b"), Path("/c")]


def test_that_a_page_cannot_be_noted_is_told_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "people.h5.pages").mkdir()
    record_page(tmp_path / "people.h5", tmp_path / "a.html")
    (warning,) = warnings_in(caplog)
    assert_names(warning, tmp_path / "a.html", "facemill remove")


def test_a_list_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "people.h5.pages").mkdir()
    with raises(StorageError, tmp_path / "people.h5.pages"):
        recorded_pages(tmp_path / "people.h5")


def test_names_that_are_no_text_come_back_to_the_byte(tmp_path: Path) -> None:
    page = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b'\xff<"\n\r\x0b\x85.html')))
    record_page(tmp_path / "people.h5", page)
    assert [os.fsencode(found) for found in recorded_pages(tmp_path / "people.h5")] == [os.fsencode(page)]


def test_what_a_page_was_each_time_it_was_written_is_remembered(tmp_path: Path) -> None:
    file, page = tmp_path / "people.h5", tmp_path / "a.html"
    record_page(file, page)
    assert written_pages(file) == {page: ()}
    seen = []
    for content in ("one", "number two"):
        page.write_text(content)
        record_page(file, page)
        seen.append(take_fingerprint(page))
    assert [one.size_bytes for one in seen if one] == [3, 10]
    assert written_pages(file) == {page: tuple(seen)}
    forget_pages(file, keep=[page, tmp_path / "another"])
    assert written_pages(file) == {page: tuple(seen)}


def test_a_folder_is_another_when_anything_in_it_changes_and_nothing_behind_a_link_counts(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "sheets"
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "a.html").write_text("abc")
    (folder / "link").symlink_to(tmp_path / "outside")
    for path in (folder / "one" / "a.html", folder / "one", folder):
        os.utime(path, ns=(0, 7))
    os.utime(folder / "link", ns=(0, 9), follow_symlinks=False)
    before = take_fingerprint(folder)
    assert before == Fingerprint(4, 3, 9)
    (tmp_path / "outside" / "x").write_text("x")
    assert take_fingerprint(folder) == before
    (folder / "one" / "mine.jpg").write_text("")
    assert take_fingerprint(folder) != before
    assert take_fingerprint(tmp_path / "none") is None


def test_what_is_elsewhere_is_remembered_whatever_else_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "people.h5"
    for what in ("a collection\n at <there>", "/other.h5", "/other.h5"):
        record_elsewhere(file, what)
    record_page(file, tmp_path / "a.html")
    assert recorded_pages(file) == [tmp_path / "a.html"]
    forget_pages(file)
    assert recorded_pages(file) == []
    assert recorded_elsewhere(file) == ["a collection\n at <there>", "/other.h5"]
