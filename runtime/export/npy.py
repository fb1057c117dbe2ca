"""Export an embedding file as a folder of NumPy arrays that can be memory-mapped. docs/export.md describes it."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..files import synced_file
from ..folders import replace_folder
from ..records import ALL_FACE_DATASETS, ATTRIBUTE_DATASETS
from ..storage.derived import record_page, record_start, take_fingerprint
from ..storage.file import EmbeddingFile
from .rows import Block, column_values, columns_of, exact_bytes, metadata_of, path_text, read_blocks

_PATHS, _METADATA = "paths.jsonl", "metadata.json"
_NAMES = (
    _PATHS,
    _METADATA,
    *(f"{name}.npy" for name in ("embeddings", *ALL_FACE_DATASETS, *ATTRIBUTE_DATASETS, "cluster")),
)
_ENTRIES = "|".join(map(re.escape, _NAMES))


def export_npy(embeddings: EmbeddingFile, folder: Path, *, force: bool = False) -> None:
    """Write a folder of NumPy arrays, atomically and in bounded memory.

    Args:
        embeddings: an open embedding file.
        folder: the folder to create.
        force: replace an earlier export; a folder with any other content is refused.
    Raises:
        ConfigError: the file holds no embeddings.
        OutputExistsError: the folder exists and may not be replaced.
        LockedError: another export writes the folder.
        DiskFullError, StorageError: writing failed; an earlier export is unchanged.
    """
    if not embeddings.rows:
        raise ConfigError(
            f"{embeddings.path} holds no embeddings; expected: at least one, because an empty array cannot be mapped"
        )
    with replace_folder(folder, "NumPy arrays", _ENTRIES, force=force, like=embeddings.path) as temporary:
        record_start(embeddings, folder)
        _write(embeddings, temporary)
        record_page(embeddings, folder, take_fingerprint(temporary))
    record_page(embeddings, folder)  # again: an earlier export was inside for a moment


def _write(embeddings: EmbeddingFile, folder: Path) -> None:
    datasets = {"embeddings": "embeddings", **columns_of(embeddings)}
    with ExitStack() as files:

        def create(name: str) -> IO[bytes]:
            return files.enter_context(synced_file(folder / name, like=embeddings.path))

        arrays = {name: create(f"{name}.npy") for name in datasets}
        paths = create(_PATHS)
        for name, dataset in datasets.items():
            _write_header(arrays[name], embeddings.rows, column_values(embeddings, dataset, 0, 0))
        for block in read_blocks(embeddings):
            for name, values in {"embeddings": block.vectors, **block.columns}.items():
                arrays[name].write(np.ascontiguousarray(values).data)
            paths.write(_lines(block))
        create(_METADATA).write(json.dumps(metadata_of(embeddings), indent=2).encode("ascii"))


def _write_header(file: IO[bytes], rows: int, like: NDArray[np.generic]) -> None:
    """Write the header of NumPy's format, version 1.0, for `rows` rows with the shape and dtype of those of `like`."""
    shape = (rows, *like.shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _lines(block: Block) -> bytes:
    """Return one JSON object per row, in ASCII, so that no path can break a line."""
    lines = []
    for path in block.paths:
        exact = exact_bytes(path)
        entry = {"path": path_text(path)} | ({} if exact is None else {"path_hex": exact.hex()})
        lines.append(json.dumps(entry) + "\n")
    return "".join(lines).encode("ascii")
