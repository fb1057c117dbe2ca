"""The HDF5 layout of an embedding file, shared by all readers and writers.

Every function takes an open h5py file or group. docs/format.md describes the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import (
    ALL_FACE_DATASETS,
    ATTRIBUTE_DATASETS,
    ATTRIBUTES,
    FACE,
    FACE_DATASETS,
    GENDERS,
    PAGE_DATASET,
    Status,
    attribute_datasets,
)
from .heaps import check_list_texts
from .layout import check_item, require_relative

OUR_DATASETS = frozenset(
    {"metadata", "outcomes", "embeddings", "image_paths", "faces", "attributes", *FACE_DATASETS.values()}
)
NEAR_ONE = {"float32": 1e-4, "float16": 2e-3}  # maximum distance of a row's length from 1 after rounding
_MAX_AGE = 150  # years
_POSSIBLE = {
    **dict.fromkeys(ATTRIBUTE_DATASETS.values(), f"years, 0 to {_MAX_AGE}, or NaN"),
    ATTRIBUTE_DATASETS["gender"]: f"{' or '.join(GENDERS)}, or nothing",
    ATTRIBUTE_DATASETS["gender_score"]: "0 to 1, or NaN",
}
_BLOCK_ROWS = 65_536
_CHUNK_ROWS = 4096


def read_vector_counts(outcomes: Any, status: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(M,) number of rows of `/embeddings` for each row of an open `/outcomes` with this status column."""
    counts: NDArray[Any] = outcomes["embeddings"][:] if "embeddings" in outcomes else status == Status.EMBEDDED
    return counts.astype(np.uint16)


def read_raw_paths(outcomes: Any) -> dict[int, bytes]:
    """Read the exact bytes of the few paths that are not UTF-8, by row of an open `/outcomes`.

    Raises:
        ValueError: there is no such row, or a path does not lead below the root.
    """
    if "raw_paths" not in outcomes:
        return {}
    rows, lists = (check_item(outcomes, f"raw_paths/{name}") for name in ("row", "bytes"))
    check_list_texts(lists)
    paths = {int(row): path.tobytes() for row, path in zip(rows[:], lists[:], strict=True)}
    photos = len(outcomes["path"])
    wrong = [row for row in paths if not 0 <= row < photos]
    if wrong:
        raise ValueError(f"/outcomes/raw_paths/row has the row {wrong[0]}; expected: 0 to {photos - 1}")
    require_relative(list(paths.values()), 0, "outcomes/raw_paths/bytes")
    return paths


def read_scanned_paths(hdf5: Any) -> Iterator[bytes]:
    """Yield the exact paths of an open file, in scan order, reading a block at a time.

    Raises:
        ValueError: a path is missing, does not lead below the root, or is not in scan order: byte by byte.
    """
    outcomes = hdf5["outcomes"]
    raw = read_raw_paths(outcomes)
    last = b""
    for start in range(0, len(outcomes["path"]), _BLOCK_ROWS):
        block = outcomes["path"][start : start + _BLOCK_ROWS].tolist()
        if not all(block):
            raise ValueError(f"the path of row {start + block.index(b'')} is missing")
        require_relative(block, start, "outcomes/path")
        exact = [raw.get(row, path) for row, path in enumerate(block, start)] if raw else block
        for row, (before, path) in enumerate(pairwise([last, *exact]), start):
            if path < before:
                raise ValueError(f"the exact paths are not in scan order: row {row} is before row {row - 1}")
        last = exact[-1]
        yield from exact


def check_entries(dataset: str, entries: NDArray[Any], start: int) -> None:
    """Check entries of a dataset: paths lead below the root, boxes are numbers, rows have length 1.

    Args:
        dataset: its name.
        entries: (n, ...) as stored.
        start: the row of the first.
    Raises:
        ValueError: an entry is impossible.
    """
    if dataset == "image_paths":
        require_relative(entries.tolist(), start, dataset)
    elif dataset == FACE_DATASETS["box"] and not np.isfinite(entries).all():
        row = int(np.argmin(np.isfinite(entries).all(axis=1)))
        raise ValueError(f"row {start + row} is {entries[row].tolist()}; expected: four numbers")
    elif dataset == "embeddings":
        rows = rows_not_of_length_one(entries)
        if len(rows):
            raise ValueError(f"row {start + rows[0]} of /embeddings is not of length 1")
    elif dataset == PAGE_DATASET and not entries.all():
        raise ValueError(f"the page of row {start + int(entries.argmin())} is 0; expected: 1 or more")
    elif dataset in ATTRIBUTE_DATASETS.values():
        wrong = np.flatnonzero(~possible_attributes(dataset, entries))
        if len(wrong):
            value = entries[wrong[0]].item()
            raise ValueError(f"row {start + wrong[0]} of /{dataset} is {value!r:.40}; expected: {_POSSIBLE[dataset]}")
    elif dataset in ("cluster", "cluster_before_review") and len(entries) and entries.min() < 0:
        raise ValueError(f"a number is {entries.min()}; expected: 0 or more")


def possible_attributes(dataset: str, entries: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) bool: entries of a dataset of attributes that facemill may have written."""
    if dataset == ATTRIBUTE_DATASETS["gender"]:
        return np.asarray(np.isin(entries, [b"", *(gender.encode() for gender in GENDERS)]))
    largest = 1 if dataset == ATTRIBUTE_DATASETS["gender_score"] else _MAX_AGE
    return np.asarray(np.isnan(entries) | ((entries >= 0) & (entries <= largest)))


def rows_not_of_length_one(embeddings: NDArray[Any]) -> NDArray[np.int64]:
    """Positions of rows, (n, D) as stored, that are no unit vectors. Zeros stand for a network's output of zero."""
    lengths = np.linalg.norm(embeddings.astype(np.float32), axis=1)  # (n,)
    near = NEAR_ONE[str(embeddings.dtype)]
    return np.flatnonzero((lengths != 0) & ~(np.abs(lengths - 1) <= near))


def count_outcomes(status: NDArray[np.uint8]) -> dict[str, int]:
    """Count photos by outcome from (M,) records.Status; outcomes that do not occur are left out."""
    counts = np.bincount(status, minlength=len(Status))
    return {kind.label: int(counts[kind]) for kind in Status if counts[kind]}


def offsets(counts: NDArray[Any]) -> NDArray[np.int64]:
    """(M,) int64, the start of each group when M groups of `counts` items follow one another."""
    first: NDArray[np.int64] = np.cumsum(counts, dtype=np.int64) - counts
    return first


def stored_text(path: bytes) -> bytes:
    """Convert a path to the UTF-8 that is stored; bytes that are not UTF-8 become \\xNN."""
    return path if path.isascii() else display_text(path).encode()


def display_text(path: bytes) -> str:
    """Convert a path to text for people; bytes that are not UTF-8 become \\xNN."""
    return path.decode("utf-8", "backslashreplace")


def create_faces(file: Any, *, pages: bool = False) -> None:
    """Create the empty datasets of the faces in an open new file.

    Args:
        file: the file.
        pages: whether the faces name their pages.
    """
    for name, dataset in ALL_FACE_DATASETS.items():
        if dataset == PAGE_DATASET and not pages:
            continue
        # Coordinates hardly compress (by a quarter with shuffling) and are small compared with vectors; ranks compress.
        ranks = name in ("face_index", "page")
        file.create_dataset(
            dataset,
            shape=(0, *FACE[name].shape),
            maxshape=(None, *FACE[name].shape),
            dtype=FACE[name].base,
            chunks=(_CHUNK_ROWS, *FACE[name].shape),
            compression="gzip" if ranks else None,
            compression_opts=1 if ranks else None,
            fletcher32=True,
        )


def append_faces(file: Any, faces: NDArray[np.void]) -> None:
    """Add the faces of the next rows of `/embeddings`.

    Args:
        file: an open file after `create_faces`.
        faces: (n,) FACE.
    """
    _append(file, ALL_FACE_DATASETS, faces)


def create_attributes(file: Any, names: Sequence[str]) -> None:
    """Create the empty datasets of attributes in an open file.

    Args:
        file: the file.
        names: keys of ATTRIBUTE_FIELDS.
    """
    import h5py

    for field, dataset in attribute_datasets(names).items():
        kind = ATTRIBUTES[field]
        is_text = kind.kind == "S"
        file.create_dataset(
            dataset,
            shape=(0,),
            maxshape=(None,),
            dtype=h5py.string_dtype("utf-8", kind.itemsize) if is_text else kind,
            chunks=(_CHUNK_ROWS,),
            compression="gzip" if is_text else None,
            compression_opts=1 if is_text else None,
            fletcher32=True,
        )


def append_attributes(file: Any, attributes: NDArray[np.void]) -> None:
    """Add the attributes of the next rows of `/embeddings`.

    Args:
        file: an open file after `create_attributes`.
        attributes: (n,) ATTRIBUTES.
    """
    _append(file, ATTRIBUTE_DATASETS, attributes)


def _append(file: Any, datasets: Mapping[str, str], rows: NDArray[np.void]) -> None:
    """Add rows to the datasets that the file has; `datasets` names the dataset of each field."""
    for field, dataset in datasets.items():
        if dataset in file:
            data = file[dataset]
            start = len(data)
            data.resize(start + len(rows), axis=0)
            data[start:] = rows[field].astype(data.dtype)  # a copy of this very type: of text, UTF-8 belongs to it
