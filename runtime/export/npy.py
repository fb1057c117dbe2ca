"""An embedding file as a folder of NumPy arrays, each of which can be memory-mapped. docs/export.md describes it."""

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
from ..records import FACE_DATASETS
from ..storage.derived import record_page, record_start
from ..storage.file import EmbeddingFile
from .rows import Block, columns_of, exact_bytes, metadata_of, path_text, read_blocks

_PATHS, _METADATA = "paths.jsonl", "metadata.json"
_NAMES = _PATHS, _METADATA, *(f"{name}.npy" for name in ("embeddings", *FACE_DATASETS, "cluster"))
_ENTRIES = "|".join(map(re.escape, _NAMES))


def export_npy(gallery: EmbeddingFile, folder: Path, *, force: bool = False) -> None:
    """Write a folder of NumPy arrays, whole or not at all, in bounded memory.

    Args:
        gallery: an open embedding file.
        folder: to be made.
        force: replace an earlier export there; a folder that holds anything else is refused.
    Raises:
        ConfigError, OutputExistsError, LockedError: as their messages say.
        DiskFullError, StorageError: nothing appears, and an earlier export stays.
    """
    if not gallery.rows:
        raise ConfigError(
            f"{gallery.path} holds no embeddings; wanted: one or more, since no empty array can be mapped"
        )
    with replace_folder(folder, "NumPy arrays", _ENTRIES, force=force, like=gallery.path) as temporary:
        record_start(gallery.path, folder)
        _write(gallery, temporary)
    record_page(gallery.path, folder)


def _write(gallery: EmbeddingFile, folder: Path) -> None:
    datasets = {"embeddings": "embeddings", **columns_of(gallery)}
    with ExitStack() as files:

        def create(name: str) -> IO[bytes]:
            return files.enter_context(synced_file(folder / name, like=gallery.path))

        arrays = {name: create(f"{name}.npy") for name in datasets}
        paths = create(_PATHS)
        for name, dataset in datasets.items():
            _begin(arrays[name], gallery.rows, gallery.column(dataset, 0, 0))
        for block in read_blocks(gallery):
            for name, values in {"embeddings": block.vectors, **block.columns}.items():
                arrays[name].write(np.ascontiguousarray(values).data)
            paths.write(_lines(block))
        create(_METADATA).write(json.dumps(metadata_of(gallery), indent=2).encode("ascii"))


def _begin(file: IO[bytes], rows: int, like: NDArray[np.generic]) -> None:
    """The header of NumPy's format, version 1.0, for so many rows like those of an array."""
    shape = (rows, *like.shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _lines(block: Block) -> bytes:
    """One object a row, in ASCII: whatever a name holds, a line stays a line."""
    lines = []
    for path in block.paths:
        exact = exact_bytes(path)
        entry = {"path": path_text(path)} | ({} if exact is None else {"path_hex": exact.hex()})
        lines.append(json.dumps(entry) + "\n")
    return "".join(lines).encode("ascii")
