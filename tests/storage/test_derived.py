"""Find the files derived from an embedding file: next to it, or in its list of pages."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.maintenance.erase import derived_from
from runtime.storage.derived import derived_file, forget_pages, record_elsewhere, record_page, take_fingerprint
from runtime.storage.file import EmbeddingFile
from runtime.storage.nearby import derived_nearby, other_names
from runtime.storage.pagelist import Fingerprint, read_list
from tests.support.clustered_files import write_file
from tests.support.errors import assert_names, raises, warnings_in

NAMES = ["people.h5", "a[b]*?.h5", "-x .h5", "two\nlines.h5", "\udcff\u4eba.h5"]


@pytest.mark.parametrize("name", NAMES)
def test_indexes_and_unfinished_jobs_next_to_a_file_are_found_and_no_other_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    suffixes = (
        ".faiss",
        ".faiss.json",
        ".faiss.partial",
        ".faiss-ivf",
        ".faiss-hnsw.json.partial",
        ".partial",
        ".adding",
    )
    derived = [file.with_name(name + suffix) for suffix in (*suffixes, ".damaged-12", ".pairs.parts")]
    derived[-1].mkdir()
    foreign = [
        file,
        *(tmp_path / foreign_name for foreign_name in ("x.faiss", "people.faiss", f"{name}2.faiss", f"x{name}.faiss")),
    ]
    user_suffixes = (
        ".pairs.csv",
        ".pairs-reviewed",
        ".clusters.html",
        ".adding-notes.txt",
        ".damaged-by-me.doc",
        ".faiss.txt",
    )
    foreign += [tmp_path / (name + suffix) for suffix in user_suffixes]
    for path in (*derived[:-1], *foreign, file.with_name(name + ".pages"), file.with_name(name + ".txt")):
        path.write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / f"{name}.faiss").write_bytes(b"")
    assert derived_nearby(file, other_names(file).earlier) == sorted(derived)


def test_derived_files_next_to_a_link_and_next_to_its_target_are_found(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "people.h5").symlink_to(tmp_path / "real" / "p.h5")
    expected = [tmp_path / "people.h5.faiss", tmp_path / "real" / "p.h5.faiss"]
    for path in (tmp_path / "real" / "p.h5", *expected):
        path.write_bytes(b"")
    assert derived_nearby(tmp_path / "people.h5", ()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_recorded_once_and_in_order(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    pages = [tmp_path / f"{stem}.html" for stem in (name, "b", "a")]
    for page in (*pages, pages[1], Path("b.html"), tmp_path / "x" / ".." / "a.html"):
        record_page(file, page)  # the pages do not exist
    assert read_list(file).pages() == pages  # absolute, whether they exist or not
    assert len((tmp_path / (name + ".pages")).read_bytes().splitlines()) == 3
    (tmp_path / (name + ".pages")).read_bytes().decode("ascii")


def test_a_page_is_recorded_before_it_appears_and_sweeps_what_a_killed_writer_left(tmp_path: Path) -> None:
    file, page, left = tmp_path / "people.h5", tmp_path / "page.html", tmp_path / "people.h5.parts"
    file.touch(0o600)
    left.mkdir(mode=0o700)
    (left / "lock").touch(0o600)

    def look(status: os.stat_result) -> None:
        assert read_list(file).written == {page: (Fingerprint(1, 5, status.st_mtime_ns),)}
        assert not page.exists()

    with derived_file(file, page, "the page", ready=look) as output:
        output.write(b"<p>hi")
    assert read_list(file).written[page] == (take_fingerprint(page),)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "people.h5", "people.h5.pages"]


def test_a_file_may_have_no_pages(tmp_path: Path) -> None:
    assert read_list(tmp_path / "people.h5").pages() == []
    forget_pages(tmp_path / "people.h5")  # not an error
    assert not list(tmp_path.iterdir())


def test_forget_pages_deletes_the_list(tmp_path: Path) -> None:
    record_page(tmp_path / "people.h5", tmp_path / "a.html")
    forget_pages(tmp_path / "people.h5")
    assert read_list(tmp_path / "people.h5").pages() == []
    assert not list(tmp_path.iterdir())


def test_a_file_and_its_link_share_one_list(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real" / "p.h5", tmp_path / "people.h5"
    link.symlink_to(file)
    record_page(link, tmp_path / "a.html")
    record_page(file, tmp_path / "b.html")
    assert read_list(file).pages() == read_list(link).pages() == [tmp_path / "a.html", tmp_path / "b.html"]
    forget_pages(link)
    assert read_list(file).pages() == []


def test_the_partial_page_of_a_killed_writer_is_found(tmp_path: Path) -> None:
    file, page = tmp_path / "people.h5", tmp_path / "npy"
    record_page(file, page)
    assert read_list(file).pages() == [page]
    (tmp_path / "npy.partial").mkdir()
    assert read_list(file).pages() == [page, tmp_path / "npy.partial"]


def test_a_partial_page_behind_a_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    page = tmp_path / "page.parquet"
    page.symlink_to(tmp_path / "real" / "p.parquet")
    partial = tmp_path / "real" / "p.parquet.partial"
    partial.write_bytes(b"half")
    record_page(tmp_path / "people.h5", page)
    assert read_list(tmp_path / "people.h5").pages() == [page, partial]


def test_invalid_lines_are_ignored(tmp_path: Path) -> None:
    file, page_list = tmp_path / "people.h5", tmp_path / "people.h5.pages"
    a, b = (b'{"page": "/%c", "seen": null}\n' % name for name in b"ab")
    invalid_lines = (
        b'\n{"x": 1}\nnot json\n7\n"/"\n["/"]\n\xff\xfe\n{"page": "../up", "seen": null}\n{"page": "/x", "seen": [1]}\n'
    )
    page_list.write_bytes(a + invalid_lines + b + b'{"page": "/torn')  # cut short, as by a power cut
    record_page(file, Path("/c"))
    record_page(file, Path("/a"))
    assert read_list(file).pages() == [Path("/a"), Path("/b"), Path("/c")]


def test_a_page_that_cannot_be_recorded_gives_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "people.h5.pages").mkdir()
    record_page(tmp_path / "people.h5", tmp_path / "a.html")
    (warning,) = warnings_in(caplog)
    assert_names(warning, tmp_path / "a.html", "facemill remove")


def test_an_unreadable_list_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "people.h5.pages").mkdir()
    with raises(StorageError, tmp_path / "people.h5.pages"):
        read_list(tmp_path / "people.h5").pages()


def test_names_that_are_not_utf8_are_kept_exactly(tmp_path: Path) -> None:
    page = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b'\xff<"\n\r\x0b\x85.html')))
    record_page(tmp_path / "people.h5", page)
    assert [os.fsencode(recorded) for recorded in read_list(tmp_path / "people.h5").pages()] == [os.fsencode(page)]


def test_every_written_version_of_a_page_is_recorded(tmp_path: Path) -> None:
    file, page = tmp_path / "people.h5", tmp_path / "a.html"
    record_page(file, page)
    assert read_list(file).written == {page: ()}
    fingerprints = []
    for content in ("one", "number two"):
        page.write_text(content)
        record_page(file, page)
        fingerprints.append(take_fingerprint(page))
    assert [fingerprint.size_bytes for fingerprint in fingerprints if fingerprint] == [3, 10]
    assert read_list(file).written == {page: tuple(fingerprints)}
    forget_pages(file, keep=[page, tmp_path / "another"])
    assert read_list(file).written == {page: tuple(fingerprints)}


def test_a_fingerprint_covers_a_folder_but_not_the_targets_of_its_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "sheets"
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "a.html").write_text("abc")
    (folder / "link").symlink_to(tmp_path / "outside")
    for path in (folder / "one" / "a.html", folder / "one", folder):
        os.utime(path, ns=(0, 7))
    os.utime(folder / "link", ns=(0, 9), follow_symlinks=False)
    fingerprint = take_fingerprint(folder)
    assert fingerprint == Fingerprint(4, 3, 9)
    (tmp_path / "outside" / "x").write_text("x")
    assert take_fingerprint(folder) == fingerprint
    (folder / "one" / "mine.jpg").write_text("")
    assert take_fingerprint(folder) != fingerprint
    assert take_fingerprint(tmp_path / "none") is None


def test_records_of_other_stores_outlive_forgotten_pages(tmp_path: Path) -> None:
    file = tmp_path / "people.h5"
    for description in ("a collection\n at <there>", "/other.h5", "/other.h5"):
        record_elsewhere(file, description)
    record_page(file, tmp_path / "a.html")
    assert read_list(file).pages() == [tmp_path / "a.html"]
    forget_pages(file)
    assert read_list(file).pages() == []
    assert list(read_list(file).elsewhere) == ["a collection\n at <there>", "/other.h5"]


def test_one_look_at_derived_files_opens_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_file(tmp_path / "people.h5", np.eye(16, dtype=np.float32)[:3], [b"a.jpg", b"b.jpg", b"c.jpg"])
    page = tmp_path / "page.html"
    page.write_text("faces")
    record_page(file, page)
    opened: list[Path] = []

    class Counted(EmbeddingFile):
        def __init__(self, path: str | Path) -> None:
            opened.append(Path(path))
            super().__init__(path)

    monkeypatch.setattr("runtime.storage.nearby.EmbeddingFile", Counted)
    derived = derived_from(file, b"/photos")
    assert derived.pages == (page,)
    assert opened == [file]
