"""CSV: every name is one field for every reader, and can neither be a formula nor control a terminal."""

from __future__ import annotations

import csv
import io
import os
import pty
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.csvtable import CsvTable
from tests.support.clustered_files import people_rows, write_file, write_photos
from tests.support.facemill_command import facemill, start_facemill

NAMES = [b"a\rb.jpg", b"=1+1.jpg", b"+2.jpg", b"-3.jpg", b"@4.jpg", b"\t5.jpg", b'q"x,y\nz.jpg', b"\x1b[31mred.jpg"]


def text_of(rows: list[list[object]], *, safe: bool = False) -> str:
    stream = io.StringIO()
    CsvTable(stream, safe=safe).rows(rows)
    return stream.getvalue()


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.lists(st.text(alphabet="ab,\"'\r\n\t=+-@; é"), min_size=2, max_size=3), max_size=5))
def test_written_rows_are_read_back(rows: list[list[str]]) -> None:
    text = text_of([list(row) for row in rows])
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
    # Readers that take every carriage return for the end of a row see none outside quotes.
    outside = "".join(text.split('"')[::2])
    assert "\r" not in outside


def test_formulas_are_quoted_and_numbers_are_not() -> None:
    rows = [["=a", "+a", "-a", "@a", "\ta", "\uff1da", "\uff20a", "a=", "-0.5", -0.5, None]]
    assert list(csv.reader(io.StringIO(text_of(rows, safe=True)))) == [
        ["'=a", "'+a", "'-a", "'@a", "'\ta", "'\uff1da", "'\uff20a", "a=", "-0.5", "-0.5", ""]
    ]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    rows = people_rows([len(NAMES)], noise=0.1)
    names = sorted(NAMES)
    path = write_file(tmp_path / "people.h5", rows, names)
    write_photos(path, names)
    return path


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("command", ["pairs", "cluster"])
def test_lists_have_one_row_per_entry_and_no_formulas(command: str, safe: bool, people: Path, tmp_path: Path) -> None:
    listing, page = tmp_path / "list.csv", tmp_path / "page.html"
    more = ["--html", page] if command == "pairs" else []
    result = facemill(command, people, "--threshold", 0.3, "-o", listing, *more, *(["--csv-safe"] if safe else []))
    assert result.returncode == 0, result.stderr
    text = listing.read_bytes().decode()
    assert b"\r" not in b"".join(listing.read_bytes().split(b'"')[::2])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    column = "path_a" if command == "pairs" else "path"
    assert len(rows) == (len(NAMES) * (len(NAMES) - 1) // 2 if command == "pairs" else len(NAMES))
    formulas = [row[column] for row in rows if row[column][0] in "=+-@\t"]
    assert bool(formulas) != safe
    if command == "pairs":
        assert (f'"safe":{str(safe).lower()}' in page.read_text()) is True


@pytest.mark.slow
def test_a_terminal_gets_no_control_characters(tiny_engine: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "\x1b[31mred.jpg").write_bytes((photos / "1" / "p0001.jpg").read_bytes())
    run = ("process", folder, "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--align", "none")
    assert facemill(*run).returncode == 0
    query = ("search", tmp_path / "o.h5", folder, "--csv")
    assert "\x1b[31m" in facemill(*query).stdout  # data for a program are not changed
    ours, theirs = pty.openpty()
    with start_facemill(*query, stdout=theirs) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                output += os.read(ours, 4096)
            except OSError:
                break
        process.communicate(timeout=60)
    os.close(ours)
    assert b"\\x1b[31mred.jpg" in output
    assert b"\x1b[31m" not in output
