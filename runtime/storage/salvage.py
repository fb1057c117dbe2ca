"""Read a damaged file chunk by chunk, so that intact chunks are saved."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError

# The errors that h5py raises for a damaged file, depending on the position of the damage.
DAMAGE = (OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError, OverflowError)
_BLOCK_BYTES = 16 << 20
_MAX_DEFLATE_RATIO = 1032  # deflate cannot exceed it


def open_item(where: Any, name: str) -> Any:
    """Open a dataset or group; None if it is missing, cannot be opened, or claims more rows than its file can hold."""
    try:
        item = where[name]
        check_size(item)
    except DAMAGE:
        return None
    return item


def check_size(item: Any) -> None:
    """Refuse a dataset that claims more rows than its file can hold: reading it would never end.

    Raises:
        ValueError: it claims more rows.
    """
    if not hasattr(item, "dtype") or not item.shape:
        return
    max_bytes = item.file.id.get_filesize() * (_MAX_DEFLATE_RATIO if item.compression else 1)
    chunk = int(np.prod(item.chunks, dtype=np.int64)) if item.chunks else 0
    if (item.size - chunk) * item.dtype.itemsize > max_bytes:
        raise ValueError(f"{item.name} claims the shape {item.shape}, which is more than the file can hold")


def check_sizes(file: Any) -> None:
    """Apply `check_size` to all datasets of an open file."""
    names: list[str] = []
    file.visit(names.append)
    for name in names:
        check_size(file[name])


def read_texts(dataset: Any) -> list[bytes | None]:
    """Read a column of names; None for each that cannot be read."""
    texts: list[bytes | None] = [None] * (0 if dataset is None else len(dataset))
    for start, block in read_chunks(dataset):
        if block is not None:
            texts[start : start + len(block)] = block.tolist()
    return texts


def read_column(dataset: Any, rows: int, dtype: type) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a column of numbers, (rows,), and a mask of the readable ones, (rows,) bool."""
    values: NDArray[Any] = np.zeros(rows, dtype)
    readable = np.zeros(rows, bool)
    for start, block in read_chunks(dataset):
        if block is not None and start < rows:
            stop = min(rows, start + len(block))
            values[start:stop], readable[start:stop] = block[: stop - start], True
    return values, readable


def find_readable(dataset: Any, rows: int) -> NDArray[np.bool_]:
    """(rows,) bool, the readable rows of a column."""
    readable = np.zeros(rows, bool)
    for start, block in read_chunks(dataset):
        if block is not None:
            readable[start : start + len(block)] = True
    return readable


def read_chunks(dataset: Any) -> Iterator[tuple[int, NDArray[Any] | None]]:
    """Yield a dataset in whole chunks, each with its first row; None for an unreadable chunk. No dataset is allowed."""
    if dataset is None or not len(dataset):
        return
    chunk = dataset.chunks[0] if dataset.chunks else len(dataset)
    width = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
    step = chunk * max(1, _BLOCK_BYTES // max(1, width * chunk))
    for start in range(0, len(dataset), step):
        try:
            yield start, read_stored(dataset, start, start + step)
        except DAMAGE:
            for at in range(start, min(start + step, len(dataset)), chunk):
                try:
                    yield at, read_stored(dataset, at, at + chunk)
                except DAMAGE:
                    yield at, None


def read_stored(dataset: Any, start: int, stop: int) -> NDArray[Any]:
    """Read rows of a dataset; a missing chunk is an error.

    HDF5 silently reads a missing chunk as zeros. facemill writes every chunk, so a chunk is missing only in a damaged
    file. A whole chunk of zeros is therefore read once more by itself.

    Raises:
        OSError, RuntimeError: the rows cannot be read, or a chunk of them is missing.
    """
    values: NDArray[Any] = dataset[start:stop]
    chunk = dataset.chunks[0] if dataset.chunks else 0
    if not chunk or not len(values):
        return values
    empty: NDArray[np.bool_] = np.logical_not(values.reshape(len(values), -1).astype(bool).any(axis=1))  # (n,)
    for first in range(start - start % chunk, start + len(values), chunk):
        if empty[max(first - start, 0) : first - start + chunk].all():
            dataset.id.read_direct_chunk((first, *(0,) * (dataset.ndim - 1)))
    return values


def system_errno(err: Exception) -> int:
    """The number of the system's error behind an exception of h5py, which may only name it in its text; 0 for none."""
    number = getattr(err, "errno", None)
    if number:
        return int(number)
    named = re.search(r"\berrno = (\d+)", str(err))
    return int(named[1]) if named else 0


def refuse_system_error(err: Exception, path: Path) -> None:
    """Raise if a file could not be read for a reason outside it: no file handles, no permission, a bad disk.

    Raises:
        StorageError: the reason is outside the file.
    """
    number = system_errno(err)
    if number:
        reason = os.strerror(number)
        raise StorageError(f"{path} cannot be read: {reason}. Fix that and run the same command again") from err
