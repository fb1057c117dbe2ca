"""Reading a damaged file: what can be read of a dataset, chunk by chunk, and what cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .segment_reader import DAMAGE

_BLOCK_BYTES = 16 << 20


def opened(where: Any, name: str) -> Any:
    """A dataset or group, or None where there is none that can be opened."""
    try:
        return where[name]
    except DAMAGE:
        return None


def raw_paths(group: Any) -> dict[int, bytes]:
    """The exact paths that are not UTF-8, by row, of an open `/outcomes`; none where they cannot be read."""
    try:
        raw = group["raw_paths"]
        return {int(row): path.tobytes() for row, path in zip(raw["row"][:], raw["bytes"][:], strict=True)}
    except DAMAGE:
        return {}


def texts(dataset: Any) -> list[bytes | None]:
    """All of a column of names, None where it cannot be read."""
    found: list[bytes | None] = [None] * (0 if dataset is None else len(dataset))
    for start, block in chunks(dataset):
        if block is not None:
            found[start : start + len(block)] = block.tolist()
    return found


def column(dataset: Any, rows: int, dtype: type) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(rows,) a column of numbers, and where it can be read."""
    values: NDArray[Any] = np.zeros(rows, dtype)
    known = np.zeros(rows, bool)
    for start, block in chunks(dataset):
        if block is not None and start < rows:
            stop = min(rows, start + len(block))
            values[start:stop], known[start:stop] = block[: stop - start], True
    return values, known


def readable(dataset: Any, rows: int) -> NDArray[np.bool_]:
    """(rows,) where a column can be read."""
    known = np.zeros(rows, bool)
    for start, block in chunks(dataset):
        if block is not None:
            known[start : start + len(block)] = True
    return known


def chunks(dataset: Any) -> Iterator[tuple[int, NDArray[Any] | None]]:
    """All of a dataset, whole chunks at a time, None where one cannot be read; nothing of None."""
    if dataset is None or not len(dataset):
        return
    chunk = dataset.chunks[0] if dataset.chunks else len(dataset)
    width = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
    step = chunk * max(1, _BLOCK_BYTES // max(1, width * chunk))
    try:
        missing = missing_chunks(dataset)
    except DAMAGE:
        missing = set(range(0, len(dataset), chunk))
    for start in range(0, len(dataset), step):
        pieces = range(start, min(start + step, len(dataset)), chunk)
        if missing.isdisjoint(pieces):
            try:
                yield start, dataset[start : start + step]
                continue
            except DAMAGE:
                pass
        for at in pieces:
            try:
                yield at, None if at in missing else dataset[at : at + chunk]
            except DAMAGE:
                yield at, None


def missing_chunks(dataset: Any) -> set[int]:
    """First rows of the chunks that a dataset should have and has not: HDF5 reads them as zeros, without a word.

    facemill writes every chunk, so that one is missing only where the file is damaged.
    """
    if not dataset.chunks or not len(dataset):
        return set()
    wanted = set(range(0, len(dataset), dataset.chunks[0]))
    dataset.id.chunk_iter(lambda found: wanted.discard(found.chunk_offset[0]))
    return wanted


def incomplete_datasets(file: Any) -> dict[str, set[int]]:
    """The `missing_chunks` of each dataset of an open file that lacks some, by name."""
    import h5py

    names: list[str] = []
    file.visit(names.append)
    found = {name: missing_chunks(file[name]) for name in names if isinstance(file[name], h5py.Dataset)}
    return {name: missing for name, missing in found.items() if missing}
