"""Read the rows of an embedding file for export, with all their columns, block by block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..progress import Listener, Reporter
from ..records import ALL_FACE_DATASETS, attribute_datasets
from ..storage.file import EmbeddingFile

_BLOCK_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class Block:
    """n consecutive rows.

    Attributes:
        start: the first row.
        vectors: (n, D), the file's float32 or float16.
        paths: n paths below the root, to the byte.
        columns: columns by name, as in `columns_of`; n entries each.
    """

    start: int
    vectors: NDArray[Any]
    paths: list[bytes]
    columns: dict[str, NDArray[Any]]


def columns_of(embeddings: EmbeddingFile) -> dict[str, str]:
    """Return the datasets with a value per row, by column name: fields of FACE and ATTRIBUTES, and `cluster`."""
    columns = ALL_FACE_DATASETS if embeddings.has_faces else {}
    faces = {name: dataset for name, dataset in columns.items() if embeddings.has_column(dataset)}
    attributes = attribute_datasets(embeddings.contract.attributes_read)
    return {**faces, **attributes, **({"cluster": "cluster"} if embeddings.has_column("cluster") else {})}


def column_values(embeddings: EmbeddingFile, dataset: str, start: int, stop: int) -> NDArray[Any]:
    """Entries of a column for other programs: text is text, (n,) "<U5", and not bytes."""
    values = embeddings.column(dataset, start, stop)
    return values.astype(f"U{values.dtype.itemsize}") if values.dtype.kind == "S" else values


def read_blocks(
    embeddings: EmbeddingFile, max_rows: int = _BLOCK_ROWS, listener: Listener | None = None
) -> Iterator[Block]:
    """Yield all rows in order, and report as progress the rows that the caller has handled.

    Args:
        embeddings: an open embedding file.
        max_rows: most rows per block; 32 MiB of vectors are in memory in any case.
        listener: shows the progress; None logs a line every five seconds.
    Raises:
        StorageError: the file is damaged.
    """
    datasets, raw = columns_of(embeddings), embeddings.raw_paths
    dtype = embeddings.column("embeddings", 0, 0).dtype
    start = 0
    with Reporter("export", embeddings.rows, unit="embeddings", listener=listener) as reporter:
        for vectors in embeddings.blocks():
            for low in range(0, len(vectors), max_rows):
                part = vectors[low : low + max_rows]  # (n, D)
                stop = start + len(part)
                paths = embeddings.column("image_paths", start, stop).tolist()
                yield Block(
                    start,
                    part.astype(dtype, copy=False),  # exact: the file's float16 was widened
                    [raw.get(row, path) for row, path in enumerate(paths, start)],
                    {name: column_values(embeddings, dataset, start, stop) for name, dataset in datasets.items()},
                )
                start = stop
                reporter.advance(len(part))


def path_text(path: bytes) -> str:
    """Return a path as text, as in `/image_paths`: bytes that are not UTF-8 become `\\xNN`."""
    return path.decode("utf-8", "backslashreplace")


def exact_bytes(path: bytes) -> bytes | None:
    """Return the path if its text is not exact; None if it is UTF-8."""
    return None if path_text(path).encode() == path else path


def metadata_of(embeddings: EmbeddingFile) -> dict[str, Any]:
    """Return the attributes of `/metadata` for JSON, with `contract` as an object.

    A root that is not UTF-8 is written as by `path_text`, and `root_hex` holds its bytes.
    """
    root, exact = path_text(embeddings.root), exact_bytes(embeddings.root)
    more = {} if exact is None else {"root_hex": exact.hex()}
    return {**embeddings.metadata, "root": root, "contract": {**embeddings.contract.to_dict(), "root": root}, **more}


def is_same_file(embeddings: EmbeddingFile, path: os.PathLike[str]) -> bool:
    """Whether a path names the embedding file itself."""
    return os.path.realpath(path) == os.path.realpath(embeddings.path)
