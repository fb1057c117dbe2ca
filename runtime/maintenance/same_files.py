"""Photographs that were added to a file which has them already, under another name and to the byte."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..records import SAME_FILE, Status
from ..storage.ledger import Ledger

_BLOCK_ROWS = 65_536
_HAVE_NONE = (Status.PENDING, Status.UNREADABLE)  # whose files were never read


def settle_duplicates(ledger: Ledger, paths: Sequence[bytes]) -> None:
    """Where duplicates are skipped: make duplicates of the photographs of later files that the first one has.

    Args:
        ledger: over two finished files, the first being the one that the other is added to.
        paths: of its rows.
    """
    if not ledger.has_digests:
        return
    has = ~np.isin(ledger.status, _HAVE_NONE)
    added: dict[bytes, list[int]] = {}
    for rows in _blocks(np.flatnonzero(has & (ledger.source > 0))):
        for row, digest in zip(rows.tolist(), ledger.digests(rows), strict=True):
            added.setdefault(digest.tobytes(), []).append(row)
    first8 = np.array([int.from_bytes(digest[:8], "little") for digest in added], np.uint64)
    originals: dict[bytes, int] = {}
    for rows in _blocks(np.flatnonzero(has & (ledger.source == 0) & (ledger.status != Status.DUPLICATE))):
        digests = ledger.digests(rows)
        likely = np.flatnonzero(np.isin(np.ascontiguousarray(digests[:, :8]).view("<u8")[:, 0], first8))
        originals |= {digests[i].tobytes(): int(rows[i]) for i in likely}
    for digest, original in originals.items():
        rows = np.array(added.get(digest, []), np.int64)
        same = SAME_FILE + paths[original].decode("utf-8", "backslashreplace")
        ledger.set_outcomes(rows, Status.DUPLICATE, [same] * len(rows))


def _blocks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(rows, range(_BLOCK_ROWS, len(rows), _BLOCK_ROWS)) if len(rows) else []
