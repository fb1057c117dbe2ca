"""Read what became of each photo of a finished file, block by block."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..records import Status
from .file import EmbeddingFile

NOT_EMBEDDED = tuple(status for status in Status if status not in (Status.PENDING, Status.EMBEDDED))

_BLOCK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class PhotoOutcome:
    """What became of one photo.

    Attributes:
        photo: its number in scan order, from 0: its row in `/outcomes`.
        path: its path below the root, as text; bytes that are not UTF-8 are `\\xNN`.
        status: its outcome.
        detail: the reason, for people; of an embedded photo a note, mostly empty.
    """

    photo: int
    path: str
    status: Status
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """The outcome for JSON, with the status by its name: `no-face`."""
        return {"photo": self.photo, "path": self.path, "status": self.status.label, "detail": self.detail}


def read_outcomes(
    file: EmbeddingFile, statuses: Collection[Status] = NOT_EMBEDDED, *, last: int | None = None
) -> Iterator[PhotoOutcome]:
    """Yield the photos that have one of some outcomes, in scan order.

    Args:
        file: an open embedding file.
        statuses: the outcomes; by default all but EMBEDDED.
        last: only so many photos, from the end of the scan order; None for all.
    Raises:
        StorageError: the outcomes are damaged.
    """
    wanted = np.flatnonzero(np.isin(file.status, list(statuses)))
    wanted = wanted if last is None else wanted[max(0, len(wanted) - last) :]
    blocks = np.split(wanted, np.flatnonzero(np.diff(wanted // _BLOCK_ROWS)) + 1) if len(wanted) else []
    for photos in blocks:
        start, stop = int(photos[0]), int(photos[-1]) + 1
        paths, details = (file.column(f"outcomes/{name}", start, stop) for name in ("path", "detail"))
        for photo in photos.tolist():
            path, detail = (column[photo - start].decode("utf-8", "replace") for column in (paths, details))
            yield PhotoOutcome(photo, path, Status(int(file.status[photo])), detail)
