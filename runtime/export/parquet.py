"""An embedding file as a Parquet file, for pandas, DuckDB, Spark and the like. docs/export.md describes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..extras import require
from ..files import check_output, durable_file
from ..storage.derived import recording
from ..storage.file import EmbeddingFile
from .rows import Block, columns_of, exact_bytes, metadata_of, path_text, read_blocks, same_file

_EDGES = ("left", "top", "right", "bottom")


def export_parquet(gallery: EmbeddingFile, output: Path, *, force: bool = False) -> None:
    """Write a Parquet file, whole or not at all, a row group at a time.

    Args:
        gallery: an open embedding file.
        output: ends in .parquet.
        force: replace an existing file.
    Raises:
        ConfigError, OutputExistsError, LockedError: as their messages say.
        MissingDependencyError: pyarrow is not installed.
        DiskFullError, StorageError: nothing appears, and an existing file stays.
    """
    if output.suffix.lower() != ".parquet" or same_file(gallery, output):
        raise ConfigError(f"the Parquet file would be {output}; wanted: another name than FILE's, ending in .parquet")
    require("pyarrow", extra="parquet", purpose="writing Parquet")
    import pyarrow.parquet as pq

    schema = _schema(gallery)
    settings = {
        "compression": {name: "zstd" for name in schema.names if name not in ("embedding", "landmarks")},
        "use_dictionary": False,  # hardly two values are the same
        "write_statistics": ["row", "path", "cluster"],  # by these somebody may filter
    }
    target = Path(os.path.realpath(output))  # a link stays, and its file is replaced
    check_output(target, "the Parquet file", force=force, other="another file")
    with (
        recording(gallery.path, output),
        durable_file(target, "the Parquet file", like=gallery.path) as file,
        pq.ParquetWriter(file, schema, **settings) as writer,
    ):
        for block in read_blocks(gallery):
            writer.write_batch(_record_batch(block, schema))


def _schema(gallery: EmbeddingFile) -> Any:
    import pyarrow as pa

    vectors = gallery.column("embeddings", 0, 0)
    fields = [
        ("row", pa.int64()),
        ("path", pa.string()),
        ("path_bytes", pa.binary()),
        ("embedding", pa.list_(pa.from_numpy_dtype(vectors.dtype), gallery.dimension)),
    ]
    for name, dataset in columns_of(gallery).items():
        like = gallery.column(dataset, 0, 0)
        kind = pa.from_numpy_dtype(like.dtype)
        if name == "box":
            fields += [(edge, kind) for edge in _EDGES]
        else:
            width = int(np.prod(like.shape[1:]))
            fields.append((name, kind if like.ndim == 1 else pa.list_(kind, width)))
    said = metadata_of(gallery)
    texts = {name: str(said.get(name, "")) for name in ("model", "model_sha256")}
    texts |= {"contract": json.dumps(said["contract"]), "facemill": json.dumps(said)}
    return pa.schema([pa.field(*field) for field in fields], metadata=texts)


def _record_batch(block: Block, schema: Any) -> Any:
    import pyarrow as pa

    count = len(block.paths)
    columns: dict[str, Any] = {
        "row": np.arange(block.start, block.start + count),
        "path": [path_text(path) for path in block.paths],
        "path_bytes": [exact_bytes(path) for path in block.paths],
        "embedding": block.vectors,
        **block.columns,
    }
    if "box" in columns:
        columns |= dict(zip(_EDGES, columns.pop("box").T, strict=True))
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.record_batch(arrays, schema=schema)


def _array(values: NDArray[Any] | list[Any], kind: Any) -> Any:
    """An Arrow array; (n, ...) becomes n lists of one length."""
    import pyarrow as pa

    if isinstance(values, list) or values.ndim == 1:
        return pa.array(values, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind.value_type), kind.list_size)
