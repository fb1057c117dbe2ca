"""Read one file: regular files, large files, pipes, folders, missing files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import MachineError
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


OF_THE_MACHINE = [
    "EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENODEV", "EMFILE", "ENFILE", "ENOMEM",
    "EREMOTEIO", "EUCLEAN", "EBADMSG", "ENOKEY", "EKEYEXPIRED", "EAGAIN", "ECONNRESET", "ENOLINK",
]  # fmt: skip
OF_THE_FILE = ["ENOENT", "ENOTDIR", "EACCES", "EPERM", "ELOOP", "ENAMETOOLONG"]


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize("name", OF_THE_MACHINE + OF_THE_FILE)
def test_an_error_of_the_system_is_of_the_file_or_of_the_machine(
    name: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, code = tmp_path / "a.jpg", getattr(errno, name)
    path.write_bytes(b"photo")

    def refuse(*arguments: Any, **options: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(MachineError if name in OF_THE_MACHINE else ReadError) as caught:
        read_file(os.fsencode(path), 100)
    if name in OF_THE_MACHINE:
        for text in (str(path), name, "same command again"):
            assert text in caught.value.message


def test_a_device_that_answers_with_an_error_is_no_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a.jpg")

    def refuse(*arguments: Any, **options: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", refuse)
    with raises(ReadError, "not a regular file"):
        read_file(os.fsencode(tmp_path / "a.jpg"), 100)
