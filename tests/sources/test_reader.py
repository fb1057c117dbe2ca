"""Read one file: regular files, large files, pipes, folders, missing files."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.records import Status
from runtime.sources.reader import ReadError, read_file
from tests.support.errors import raises


def test_the_content_is_returned(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "f").write_bytes(data)
    assert read_file(os.fsencode(tmp_path / "f"), len(data)) == data


def test_an_empty_file_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert read_file(str(tmp_path / "f"), 10) == b""


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with raises(ReadError, 1000) as caught:
        read_file(str(tmp_path / "f"), 1000)
    assert caught.value.status is Status.UNSUPPORTED


def test_pipes_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with raises(ReadError, "regular file") as caught:
            read_file(str(path), 1000)
        assert caught.value.status is Status.UNREADABLE


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with raises(ReadError, "No such file"):
        read_file(str(tmp_path / "gone"), 1000)
