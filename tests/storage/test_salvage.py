"""Read the intact parts of a damaged dataset, and invent no values for the other parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.storage.layout import check_item
from runtime.storage.salvage import (
    find_readable,
    open_item,
    read_chunks,
    read_column,
    read_stored,
    read_texts,
)
from tests.support.errors import raises


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Write `numbers`, without its second chunk and with a wrong bit in its fourth, and intact `names`."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as new_file:
        numbers = new_file.create_dataset("numbers", (50, 2), "f4", chunks=(10, 2), maxshape=(None, 2), fletcher32=True)
        for start in (0, 20, 30, 40):
            numbers[start : start + 10] = start or 0.0  # the first chunk is written as zeros
        new_file["names"] = np.array([b"a", b"", b"c"], "S3")
    with h5py.File(path) as old_file:
        offset = old_file["numbers"].id.get_chunk_info_by_coord((30, 0)).byte_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with h5py.File(path, "r+") as opened_file:
        yield opened_file


def test_a_missing_chunk_is_distinguished_from_zeros(file: Any) -> None:
    numbers = file["numbers"]
    assert not read_stored(numbers, 0, 10).any()
    assert not numbers[10:20].any()  # HDF5 gives zeros without an error
    for start, stop in ((10, 20), (0, 50), (15, 17), (5, 12)):
        with pytest.raises((OSError, RuntimeError)):
            read_stored(numbers, start, stop)
    assert (read_stored(numbers, 25, 30) == 20).all()
    assert len(read_stored(numbers, 50, 60)) == 0


def test_readable_chunks_are_read(file: Any) -> None:
    blocks = dict(read_chunks(file["numbers"]))
    assert [start for start, block in blocks.items() if block is None] == [10, 30]
    assert find_readable(file["numbers"], 45).nonzero()[0].tolist() == [*range(10), *range(20, 30), *range(40, 45)]
    values, readable = read_column(open_item(file, "none"), 4, np.int64)
    assert (values.tolist(), readable.any()) == ([0] * 4, False)
    assert read_texts(file["names"]) == [b"a", b"", b"c"]
    assert read_texts(open_item(file, "nothing")) == []


def test_an_impossible_length_is_refused(file: Any) -> None:
    assert check_item(file, "numbers", salvage=True) == file["numbers"]
    file["numbers"].resize(10**12, axis=0)
    with raises(ValueError, "/numbers", 10**12):
        check_item(file, "numbers", salvage=True)
    assert open_item(file, "numbers") is None
