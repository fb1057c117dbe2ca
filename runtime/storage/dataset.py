"""Write the finished file from complete segments, atomically. docs/format.md describes the file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError, StorageError
from ..records import FORMAT_VERSION, FORMAT_VERSION_SEVERAL, Status
from .child import run_in_child
from .contract import EmbeddingContract
from .digest import seal
from .format import append_attributes, append_faces, create_attributes, create_faces, stored_text
from .h5write import DurableH5, durable_h5
from .heaps import check_attribute_texts
from .layout import check_objects
from .ledger import Ledger
from .opening import DAMAGE, check_regular, open_hdf5, refuse_system_error
from .runfolder import RunFolder
from .salvage import foreign_names

_CHUNK_BYTES = 1 << 18
_BLOCK_ROWS = 32_768


def assemble(
    output: Path,
    ledger: Ledger,
    paths: Sequence[bytes],
    metadata: Mapping[str, Any],
    dtype: str,
    *,
    like: Path | Sequence[Path] = (),
    mode: int | None = None,
) -> None:
    """Write the finished file from a ledger, in bounded memory.

    Args:
        output: the path of the file; replaced atomically.
        ledger: M rows, none pending.
        paths: M paths relative to the root, in scan order.
        metadata: attributes of `/metadata`, including `dimension`. A missing `run_id` is drawn at random.
        dtype: "float32" or "float16".
        like: the source files of the rows: the output gets no wider permissions than any of them.
        mode: permission bits that the user named; see `access.access_like`.
    Raises:
        DamagedError: a row is pending, because its segment was set aside. Nothing is written.
        DiskFullError, StorageError: the file cannot be written, or not be read back; an existing output is unchanged.
    """
    pending = int((ledger.status == Status.PENDING).sum())
    if pending:  # from here on the segments are of no use any more, so that a lost row would be lost for good
        raise DamagedError(f"{pending:,} photos have no outcome. Run the same command again")
    embedded = np.flatnonzero(ledger.status == Status.EMBEDDED)
    counts = ledger.vector_counts[embedded]
    version = FORMAT_VERSION_SEVERAL if (counts > 1).any() else FORMAT_VERSION
    total = int(counts.sum())  # N
    widest = max((len(stored_text(path)) for path in paths), default=1) or 1
    with durable_h5(output, "the embedding file", like=like, mode=mode) as target:
        file = target.file
        attributes = file.create_group("metadata").attrs
        attributes.update({"run_id": secrets.token_hex(16), **metadata, "format_version": version})
        dimension = int(metadata["dimension"])
        vectors = file.create_dataset(
            "embeddings",
            shape=(total, dimension),
            maxshape=(None, dimension),
            dtype=dtype,
            chunks=(max(1, _CHUNK_BYTES // (dimension * np.dtype(dtype).itemsize)), dimension),
            fletcher32=True,
        )
        names = _strings(file, "image_paths", total, widest)
        pages = ledger.has_faces and metadata.get("pages") == "all"
        if ledger.has_faces:
            create_faces(file, pages=pages)
        attributes = EmbeddingContract.from_json(str(metadata.get("contract", "{}"))).attributes_read
        create_attributes(file, attributes)
        stop = 0
        for rows in _embedding_blocks(embedded, counts):
            embeddings = ledger.embeddings(rows)
            start, stop = stop, stop + len(embeddings)
            vectors[start:stop] = embeddings
            each = np.repeat(rows, ledger.vector_counts[rows]).tolist()  # the row of every embedding
            names[start:stop] = np.array([stored_text(paths[row]) for row in each], names.dtype)
            if ledger.has_faces:
                append_faces(file, ledger.faces(rows, pages=pages))
            if attributes:
                append_attributes(file, ledger.attributes(rows, attributes))
            target.check()
        _write_outcomes(target, ledger, paths, widest)
        seal(file)


@contextmanager
def edit_file(file: Path) -> Iterator[Any]:
    """Open a copy of a file for writing; it replaces the file when the block succeeds.

    A power cut leaves the old file or the new one, so the disk must have space for both. The `run_id` stays: use this
    only for changes that keep the rows.

    Args:
        file: a finished file; a link is followed.
    Raises:
        LockedError: a run is writing the file.
        DiskFullError, StorageError: the copy cannot be written, or the file is damaged; the file is unchanged.
    """
    path = Path(os.path.realpath(file))
    check_regular(path)
    # A run that retries failed photos also replaces the file: hence the lock.
    with RunFolder(path, busy=f"another command is writing {path}"), durable_h5(path, "the embedding file") as target:
        try:
            with open_hdf5(path) as source:
                if not all([check_attribute_texts(source[name]) for name in check_objects(source)]):
                    run_in_child("read", path)
                if foreign_names(source):
                    run_in_child("foreign", path)
                target.file.attrs.update(source.attrs)
                for name in source:
                    source.copy(name, target.file)
        except DAMAGE as err:
            target.check()  # if the disk failed, HDF5's error is misleading
            refuse_system_error(err, path)
            raise _damaged(path, err) from err
        yield target.file
        try:
            seal(target.file)
        except DAMAGE as err:
            target.check()
            raise _damaged(path, err) from err


def _damaged(path: Path, err: Exception) -> StorageError:
    return StorageError(
        f"{path} is damaged and cannot be changed ({err}). Save its intact rows with: facemill repair {path}"
    )


def _write_outcomes(target: DurableH5, ledger: Ledger, paths: Sequence[bytes], widest: int) -> None:
    """Write `/outcomes`: one row for each scanned path."""
    group = target.file.create_group("outcomes")
    _numbers(group, "status", ledger.status)
    everything = np.arange(len(ledger.status))
    deepest = max((int(np.char.str_len(ledger.details(rows)).max()) for _, rows in _blocks(everything)), default=1)
    names = _strings(group, "path", len(everything), widest)
    details = _strings(group, "detail", len(everything), deepest)
    digests = (
        group.create_dataset(
            "digest",
            shape=(len(everything), 16),
            maxshape=(None, 16),
            dtype=np.uint8,
            chunks=(16_384, 16),
            fletcher32=True,
        )
        if ledger.has_digests
        else None
    )
    if ledger.has_faces:
        face_counts = [np.empty(0, np.uint16), *(ledger.face_counts(rows) for _, rows in _blocks(everything))]
        _numbers(group, "embeddings", ledger.vector_counts)
        _numbers(group, "faces", np.concatenate(face_counts))
    raw: dict[int, bytes] = {}
    for start, rows in _blocks(everything):
        block = [paths[row] for row in rows]
        texts = [stored_text(path) for path in block]
        raw.update((int(row), path) for row, path, text in zip(rows, block, texts, strict=True) if path != text)
        names[start : start + len(rows)] = np.array(texts, names.dtype)
        details[start : start + len(rows)] = ledger.details(rows).astype(details.dtype)
        if digests is not None:
            digests[start : start + len(rows)] = ledger.digests(rows)
        target.check()
    if raw:
        _write_raw_paths(group, raw)


def _write_raw_paths(group: Any, raw: Mapping[int, bytes]) -> None:
    """Write the exact bytes of the few paths that are not UTF-8, by row of `/outcomes`."""
    import h5py

    sub = group.create_group("raw_paths")
    sub["row"] = np.array(list(raw), np.int64)
    exact = sub.create_dataset("bytes", shape=(len(raw),), dtype=h5py.vlen_dtype(np.uint8))
    for i, path in enumerate(raw.values()):
        exact[i] = np.frombuffer(path, np.uint8)


def _numbers(where: Any, name: str, values: NDArray[Any]) -> None:
    """Write a compressed column, which may be empty."""
    where.create_dataset(name, data=values, maxshape=(None,), chunks=True, compression="gzip", compression_opts=1)


def _strings(where: Any, name: str, rows: int, width: int) -> Any:
    """Create an empty compressed dataset of fixed-length UTF-8; HDF5 does not compress variable-length text."""
    import h5py

    return where.create_dataset(
        name,
        shape=(rows,),
        maxshape=(None,),
        dtype=h5py.string_dtype("utf-8", max(1, width)),
        chunks=(max(1, _CHUNK_BYTES // max(1, width)),),
        compression="gzip",
        compression_opts=1,
    )


def _blocks(rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield start, rows[start : start + _BLOCK_ROWS]


def _embedding_blocks(rows: NDArray[np.int64], counts: NDArray[np.uint16]) -> Iterator[NDArray[np.int64]]:
    """Yield runs of embedded rows with a bounded number of embeddings, for any number of faces in a photo."""
    ends = np.cumsum(counts, dtype=np.int64)
    start = before = 0
    while start < len(rows):
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK_ROWS, side="right")))
        yield rows[start:stop]
        start, before = stop, int(ends[stop - 1])
