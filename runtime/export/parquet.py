"""Export an embedding file as Parquet, for pandas, DuckDB or Spark. docs/export.md describes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contents import PARQUET
from ..errors import ConfigError
from ..extras import require
from ..outputs import check_output
from ..storage.derived import derived_file
from ..storage.file import EmbeddingFile
from .rows import Block, column_values, columns_of, exact_bytes, is_same_file, metadata_of, path_text, read_blocks

_EDGES = ("left", "top", "right", "bottom")


def export_parquet(embeddings: EmbeddingFile, output: Path, *, force: bool = False) -> None:
    """Write a Parquet file, atomically, a row group at a time.

    Args:
        embeddings: an open embedding file.
        output: ends in .parquet.
        force: replace an existing file.
    Raises:
        ConfigError: the name does not end in .parquet, or is that of the embedding file.
        OutputExistsError: the file exists and `force` is false.
        LockedError: another export writes the file.
        MissingDependencyError: pyarrow is not installed.
        DiskFullError, StorageError: writing failed; an existing file is unchanged.
    """
    if output.suffix.lower() != ".parquet" or is_same_file(embeddings, output):
        raise ConfigError(f"the Parquet file would be {output}; expected: a name ending in .parquet, other than FILE's")
    require("pyarrow", extra="parquet", purpose="writing Parquet")
    import pyarrow.parquet as pq

    schema = _schema(embeddings)
    settings = {
        "compression": {name: "zstd" for name in schema.names if name not in ("embedding", "landmarks")},
        "use_dictionary": False,  # values hardly repeat
        "write_statistics": ["row", "path", "cluster"],  # columns that readers may filter by
    }
    target = Path(os.path.realpath(output))  # replaces the target of a link, and keeps the link
    check_output(target, "the Parquet file", force=force, kind=PARQUET, other="another file")
    with (
        derived_file(embeddings, target, "the Parquet file") as file,
        pq.ParquetWriter(file, schema, **settings) as writer,
    ):
        for block in read_blocks(embeddings):
            writer.write_batch(_record_batch(block, schema))


def _schema(embeddings: EmbeddingFile) -> Any:
    import pyarrow as pa

    vectors = embeddings.column("embeddings", 0, 0)
    fields = [
        ("row", pa.int64()),
        ("path", pa.string()),
        ("path_bytes", pa.binary()),
        ("embedding", pa.list_(pa.from_numpy_dtype(vectors.dtype), embeddings.dimension)),
    ]
    for name, dataset in columns_of(embeddings).items():
        like = column_values(embeddings, dataset, 0, 0)
        kind = pa.string() if like.dtype.kind == "U" else pa.from_numpy_dtype(like.dtype)
        if name == "box":
            fields += [(edge, kind) for edge in _EDGES]
        else:
            width = int(np.prod(like.shape[1:]))
            fields.append((name, kind if like.ndim == 1 else pa.list_(kind, width)))
    metadata = metadata_of(embeddings)
    texts = {name: str(metadata.get(name, "")) for name in ("model", "model_sha256")}
    texts |= {"contract": json.dumps(metadata["contract"]), "facemill": json.dumps(metadata)}
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
    """Make an Arrow array; (n, ...) becomes n lists of one length."""
    import pyarrow as pa

    if isinstance(values, list) or values.ndim == 1:
        return pa.array(values, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind.value_type), kind.list_size)
