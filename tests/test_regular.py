"""Regular files are read up to a limit; pipes, devices, folders, sockets and sparse giants are refused at once."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest

from runtime.regular import NotRegular, TooLarge, check_readable, open_regular, read_regular

GIANT = 30 << 30  # bytes of a sparse file, which takes no place on the disk


def special(folder: Path, kind: str) -> Path:
    path = folder / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


def giant(path: Path) -> Path:
    path.touch()
    os.truncate(path, GIANT)
    return path


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_regular_file_is_refused_by_its_kind(kind: str, tmp_path: Path) -> None:
    path = special(tmp_path, kind)
    before = len(os.listdir("/proc/self/fd"))
    for read in (lambda: read_regular(path, 10), lambda: check_readable(path, 10), lambda: open_regular(path)):
        with pytest.raises(NotRegular, match=f"it is a {kind}") as caught:
            read()
        assert caught.value.kind == f"a {kind}"
        assert caught.value.filename == str(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == read_regular(os.fsencode(path), 6) == b"12345"
    with pytest.raises(TooLarge, match="5 bytes; expected: at most 4") as caught:
        read_regular(path, 4)
    assert caught.value.size == 5
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "b", 5)


def test_a_file_of_unknown_size_is_read_up_to_its_limit() -> None:
    assert os.stat("/proc/self/cmdline").st_size == 0
    assert b"python" in read_regular("/proc/self/cmdline", 1 << 20)
    with pytest.raises(TooLarge):
        read_regular("/proc/self/cmdline", 3)


def test_a_sparse_giant_is_refused_unread(tmp_path: Path) -> None:
    path = giant(tmp_path / "a")
    for read in (read_regular, check_readable):
        with pytest.raises(TooLarge):
            read(path, 1 << 30)


def test_a_file_larger_than_the_memory_is_an_error_of_the_system(tmp_path: Path) -> None:
    path, limits = giant(tmp_path / "a"), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (20 << 30, limits[1]))
    try:
        with pytest.raises(OSError, match="Cannot allocate memory"):
            read_regular(path, GIANT)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
