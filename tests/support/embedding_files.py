"""Compare two embedding files: every dataset byte by byte, and all metadata except what names the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

OF_THE_RUN = frozenset({"run_id", "plan_id", "started_utc", "finished_utc", "content_sha256"})


def contents(path: Path) -> dict[str, Any]:
    """Shape, type, chunks and bytes of every dataset; the value of every attribute."""
    values: dict[str, Any] = {}
    with h5py.File(path) as file:

        def add_dataset(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                values[name] = (item.shape, str(item.dtype), item.chunks, _bytes(np.asarray(item[()])))

        file.visititems(add_dataset)
        values |= {f"@{k}": v for k, v in file["metadata"].attrs.items() if k not in OF_THE_RUN}
    return values


def _bytes(values: Any) -> bytes | list[bytes]:
    """Bytes of an array; for lists of variable length, whose entries are pointers, the bytes of each."""
    return [item.tobytes() for item in values.ravel()] if values.dtype == object else values.tobytes()


def differences(first_path: Path, second_path: Path) -> list[str]:
    """Names of the datasets and attributes that differ; empty if the files are equal."""
    first, second = contents(first_path), contents(second_path)
    return sorted(
        name
        for name in first.keys() | second.keys()
        if name not in first or name not in second or first[name] != second[name]
    )
