"""An output is none of the inputs of its command, and replaces nothing that the command does not write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.contents import HDF5, PARQUET, PHOTO, TEXT, is_text, kind_of
from runtime.errors import ConfigError, OutputExistsError
from runtime.outputs import check_output, refuse_inputs
from tests.support import encoded_images as make
from tests.support.errors import raises

CONTENTS = {
    PHOTO: make.encode(make.scene(32, 32)),
    HDF5: b"\x89HDF\r\n\x1a\n" + bytes(100),
    PARQUET: b"PAR1" + bytes(100),
    TEXT: "path,score\nJosé,1\n".encode(),
    "an SQLite database": b"SQLite format 3\0" + bytes(100),
    "": b"\0\1\2 unknown",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_is_known_by_its_first_bytes(kind: str) -> None:
    assert kind_of(CONTENTS[kind]) == kind


def test_text_may_be_cut_within_a_letter_and_has_no_zeros() -> None:
    text = "é".encode() * 10
    assert is_text(text[:-1])
    assert not is_text(text + b"\0")
    assert not is_text(b"caf\xe9 au lait")


@pytest.mark.parametrize("written", [HDF5, PARQUET, TEXT])
@pytest.mark.parametrize("there", [*CONTENTS, None])
def test_a_file_of_another_kind_is_never_replaced(written: str, there: str | None, tmp_path: Path) -> None:
    """An empty file may be replaced, and unknown bytes by what has no text: it may be a damaged file."""
    path = tmp_path / "o"
    path.write_bytes(b"" if there is None else CONTENTS[there])
    if there in (written, None) or (there == "" and written != TEXT):
        check_output(path, force=True, kind=written)
        with raises(OutputExistsError, path, "--force"):
            check_output(path, force=False, kind=written)
        return
    for force in (True, False):
        with raises(OutputExistsError, path, there or "no text", written):
            check_output(path, force=force, kind=written)


@pytest.mark.parametrize("link", ["itself", "another spelling", "symbolic", "hard"])
def test_an_output_that_is_an_input_is_refused_by_every_name(link: str, tmp_path: Path) -> None:
    source, other = tmp_path / "list.txt", tmp_path / "other"
    source.write_text("a.jpg")
    if link == "symbolic":
        other.symlink_to(source)
    elif link == "hard":
        os.link(source, other)
    else:
        other = source if link == "itself" else tmp_path / ".." / tmp_path.name / "list.txt"
    with raises(ConfigError, other, source):
        check_output(other, force=True, inputs=[tmp_path / "missing", "a\0b", tmp_path, source])


def test_another_output_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg")
    (tmp_path / "copy.txt").write_text("a.jpg")
    refuse_inputs(tmp_path / "copy.txt", [tmp_path / "list.txt", tmp_path])
    refuse_inputs(tmp_path / "new.txt", [tmp_path / "list.txt", tmp_path / "new.txt"])
