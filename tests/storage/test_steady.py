"""Reading through a bad cable: a failed read is tried again, and never taken for damage."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import LockedError, StorageError
from runtime.storage.opening import open_steadily, refuse_failed_reads
from runtime.storage.salvage import open_item, read_chunks
from tests.support.errors import raises

VALUES = np.arange(5000, dtype="f4").reshape(-1, 2)
Break = Callable[[range], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("embeddings", data=VALUES, chunks=(100, 2), maxshape=(None, 2), fletcher32=True)
    return tmp_path / "x.h5"


@pytest.fixture
def break_reads(monkeypatch: pytest.MonkeyPatch) -> Break:
    """A function that lets the disk refuse some of the next reads, by number from 0."""

    def break_(numbers: range) -> None:
        whole, done = os.pread, iter(range(1 << 40))

        def pread(fd: int, size: int, address: int) -> bytes:
            if next(done) in numbers:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return whole(fd, size, address)

        monkeypatch.setattr("runtime.storage.steady.os.pread", pread)

    return break_


def read(path: Path) -> list[int]:
    """The first rows of the chunks that cannot be read; -1 if there is no dataset."""
    with open_steadily(path) as file:
        blocks = list(read_chunks(open_item(file, "embeddings")))
        return [start for start, block in blocks if block is None] if blocks else [-1]


@pytest.mark.slow
def test_a_read_that_fails_once_is_tried_again(path: Path, break_reads: Break) -> None:
    for number in range(80):
        break_reads(range(number, number + 1))
        assert read(path) == []


def test_a_read_that_fails_for_good_stops_the_work_at_every_place(path: Path, break_reads: Break) -> None:
    for number in range(60):
        break_reads(range(number, 1 << 40))
        with raises(StorageError, "Input/output error", "may be intact"):
            read(path)


def test_after_a_failure_nothing_is_concluded(path: Path, break_reads: Break) -> None:
    with raises(StorageError, "Input/output error"), open_steadily(path) as file:
        refuse_failed_reads(file)
        break_reads(range(2))  # the disk is well again after that
        dataset = open_item(file, "embeddings")
        assert all(block is None for _, block in read_chunks(dataset))
        refuse_failed_reads(file)
        raise AssertionError("the failure was forgotten")


def test_damage_is_still_found(path: Path) -> None:
    with h5py.File(path) as file:
        offset = file["embeddings"].id.get_chunk_info(3).byte_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    assert read(path) == [300]


def test_a_file_that_another_program_writes_is_not_read(path: Path) -> None:
    with h5py.File(path, "r+"), raises(LockedError, path), open_steadily(path):
        pass
