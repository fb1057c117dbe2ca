"""Read a damaged file chunk by chunk, so that intact chunks are saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .child import Alive
from .layout import COLUMNS, check_item, is_ours
from .opening import DAMAGE, open_steadily, read_attributes

_BLOCK_BYTES = 16 << 20
_TEXTS = 10_000  # of variable length, read at once


def open_item(where: Any, name: str) -> Any:
    """Open a dataset or group; None if it is missing, damaged, or not what its name says (see layout.py)."""
    try:
        return None if where is None else check_item(where, name, salvage=True)
    except DAMAGE:
        return None


def read_everything(path: Path, alive: Alive) -> None:
    """Read all that a repair reads, in a child, to see whether HDF5 survives it.

    Raises:
        StorageError, ValueError: the file cannot be opened.
    """
    with open_steadily(path) as file:
        read_attributes(file, [])
        for name in COLUMNS:
            alive(name)
            item = open_item(file, name)
            if item is not None:
                list(item.attrs.items())
            for _ in read_chunks(item):
                alive()


def foreign_names(file: Any) -> list[str]:
    """The names of objects of other programs in an open file, after `layout.check_objects`."""
    names: list[str] = []
    file.visititems(lambda name, _: None if is_ours(name) else names.append(name))
    return names


def read_foreign(path: Path, alive: Alive) -> None:
    """Read all text of other programs in a child: HDF5 goes round for ever in damaged text, also when it copies it.

    Raises:
        StorageError, ValueError: the file cannot be opened.
        OSError, RuntimeError: a text cannot be read.
    """
    with open_steadily(path) as file:
        for name in foreign_names(file):
            alive(name)
            item = file[name]
            list(item.attrs.items())
            if getattr(item, "dtype", None) is None or not item.dtype.hasobject or not item.shape:
                continue
            for start in range(0, item.shape[0], _TEXTS):
                item[start : start + _TEXTS]
                alive()


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
