"""Whether two embedding files hold the same: every dataset to the byte, and all metadata that does not name the run."""

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
    """What an array holds; of lists of any length, which are addresses in memory, each one's."""
    return [one.tobytes() for one in values.ravel()] if values.dtype == object else values.tobytes()


def differences(one: Path, other: Path) -> list[str]:
    """Names of what differs; empty when the two hold the same."""
    a, b = contents(one), contents(other)
    return sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or a[name] != b[name])
