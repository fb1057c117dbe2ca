"""What a damaged dataset still gives, and that nothing is made up for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.storage.salvage import (
    check_size,
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
    """`numbers` lacks its second chunk, and a bit of its fourth is wrong; `names` is whole."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as new:
        numbers = new.create_dataset("numbers", (50, 2), "f4", chunks=(10, 2), maxshape=(None, 2), fletcher32=True)
        for start in (0, 20, 30, 40):
            numbers[start : start + 10] = start or 0.0  # a chunk of zeros that was written
        new["names"] = np.array([b"a", b"", b"c"], "S3")
    with h5py.File(path) as old:
        at = old["numbers"].id.get_chunk_info_by_coord((30, 0)).byte_offset
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with h5py.File(path, "r+") as opened_file:
        yield opened_file


def test_a_chunk_that_is_missing_is_told_from_one_of_zeros(file: Any) -> None:
    numbers = file["numbers"]
    assert not read_stored(numbers, 0, 10).any()
    assert not numbers[10:20].any()  # HDF5 says nothing
    for start, stop in ((10, 20), (0, 50), (15, 17), (5, 12)):
        with pytest.raises((OSError, RuntimeError)):
            read_stored(numbers, start, stop)
    assert (read_stored(numbers, 25, 30) == 20).all()
    assert len(read_stored(numbers, 50, 60)) == 0


def test_what_can_be_read_is_read_chunk_by_chunk(file: Any) -> None:
    found = dict(read_chunks(file["numbers"]))
    assert [start for start, block in found.items() if block is None] == [10, 30]
    assert find_readable(file["numbers"], 45).nonzero()[0].tolist() == [*range(10), *range(20, 30), *range(40, 45)]
    values, known = read_column(open_item(file, "none"), 4, np.int64)
    assert (values.tolist(), known.any()) == ([0] * 4, False)
    assert read_texts(file["names"]) == [b"a", b"", b"c"]
    assert read_texts(open_item(file, "nothing")) == []


def test_a_length_that_no_file_could_hold_is_not_believed(file: Any) -> None:
    check_size(file["numbers"])
    file["numbers"].resize(10**12, axis=0)
    with raises(ValueError, "/numbers", 10**12):
        check_size(file["numbers"])
    assert open_item(file, "numbers") is None
