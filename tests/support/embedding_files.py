"""Compare two embedding files: every dataset byte by byte, and all metadata except what names the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

OF_THE_RUN = frozenset({"run_id", "plan_id", "started_utc", "finished_utc"})


def contents(path: Path) -> dict[str, Any]:
    """Shape, type, chunks and bytes of every dataset; the value of every attribute."""
    found: dict[str, Any] = {}
    with h5py.File(path) as file:

        def take(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = (item.shape, str(item.dtype), item.chunks, _bytes(np.asarray(item[()])))

        file.visititems(take)
        found |= {f"@{k}": v for k, v in file["metadata"].attrs.items() if k not in OF_THE_RUN}
    return found


def _bytes(values: Any) -> bytes | list[bytes]:
    """Bytes of an array; for lists of variable length, whose entries are pointers, the bytes of each."""
    return [item.tobytes() for item in values.ravel()] if values.dtype == object else values.tobytes()


def differences(one: Path, other: Path) -> list[str]:
    """Names of the datasets and attributes that differ; empty if the files are equal."""
    a, b = contents(one), contents(other)
    return sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or a[name] != b[name])
