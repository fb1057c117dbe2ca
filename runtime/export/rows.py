"""The rows of an embedding file as other programs want them: all that is known of each, a block at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..progress import Listener, Reporter
from ..records import FACE_DATASETS
from ..storage.file import EmbeddingFile

_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows that follow each other.

    Attributes:
        start: the first of them.
        vectors: (n, D), the file's float32 or float16.
        paths: n paths below the root, to the byte.
        columns: by name, n entries each, of `columns_of`.
    """

    start: int
    vectors: NDArray[Any]
    paths: list[bytes]
    columns: dict[str, NDArray[Any]]


def columns_of(gallery: EmbeddingFile) -> dict[str, str]:
    """The datasets that say something of each row, by column name: the fields of FACE and `cluster`, where known."""
    faces = FACE_DATASETS if gallery.has_faces else {}
    return {**faces, **({"cluster": "cluster"} if gallery.has_column("cluster") else {})}


def read_blocks(gallery: EmbeddingFile, most: int = _ROWS, listener: Listener | None = None) -> Iterator[Block]:
    """All rows in order; reports how many of them the caller has handled.

    Args:
        gallery: an open file.
        most: rows of a block at most; 32 MiB of vectors are held whatever it is.
        listener: shows the progress; None logs a line every five seconds.
    Raises:
        StorageError: the file is damaged.
    """
    datasets, raw = columns_of(gallery), gallery.raw_paths
    dtype = gallery.column("embeddings", 0, 0).dtype
    start = 0
    with Reporter("export", gallery.rows, unit="embeddings", listener=listener) as reporter:
        for vectors in gallery.blocks():
            for low in range(0, len(vectors), most):
                part = vectors[low : low + most]  # (n, D)
                stop = start + len(part)
                paths = gallery.column("image_paths", start, stop).tolist()
                yield Block(
                    start,
                    part.astype(dtype, copy=False),  # exact: float16 came from float16
                    [raw.get(row, path) for row, path in enumerate(paths, start)],
                    {name: gallery.column(dataset, start, stop) for name, dataset in datasets.items()},
                )
                start = stop
                reporter.advance(len(part))


def path_text(path: bytes) -> str:
    """A path as text that any program can hold, as in `/image_paths`: bytes that are not UTF-8 become `\\xNN`."""
    return path.decode("utf-8", "backslashreplace")


def exact_bytes(path: bytes) -> bytes | None:
    """The path where its text does not say it all; None where it is UTF-8."""
    return None if path_text(path).encode() == path else path


def metadata_of(gallery: EmbeddingFile) -> dict[str, Any]:
    """What the file says of itself, for JSON: the attributes of `/metadata`, `contract` as an object.

    A root that is not UTF-8 is text as of `path_text` in both, and `root_hex` its bytes.
    """
    root, exact = path_text(gallery.root), exact_bytes(gallery.root)
    more = {} if exact is None else {"root_hex": exact.hex()}
    return {**gallery.metadata, "root": root, "contract": {**gallery.contract.to_dict(), "root": root}, **more}


def same_file(gallery: EmbeddingFile, path: os.PathLike[str]) -> bool:
    """Whether a path is that of the embedding file itself."""
    return os.path.realpath(path) == os.path.realpath(gallery.path)
