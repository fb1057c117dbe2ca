"""Stop where very many photos in a row cannot be read: that says something about a disk, not about photos."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from ..errors import MachineError
from ..records import Outcome, Status
from .reader import ReadError
from .source import Source


class Streaks:
    """Looks ahead where photos cannot be read. Any thread may use it.

    Args:
        source: the photos.
        most: photos in a row, in scan order, that may be unreadable; 0 for no limit.
    """

    def __init__(self, source: Source, most: int) -> None:
        self._source, self._most = source, most
        self._known = 0  # this photo can be read, and photos before it need no further look
        self._lock = threading.Lock()

    def check(self, rows: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """Look ahead from photos of a batch that cannot be read, before anything is recorded for them.

        Args:
            rows: the rows of the batch, ascending.
            outcomes: outcomes of the rows that could not be read.
        Raises:
            MachineError: more photos in a row cannot be read than may be.
        """
        unreadable = {outcome.row: outcome.detail for outcome in outcomes if outcome.status is Status.UNREADABLE}
        if not self._most or not unreadable:
            return
        first = -1
        for row in rows:
            if row not in unreadable:
                continue
            if row - 1 not in unreadable:
                first = row
            if row - first >= self._most or row == rows[-1]:
                with self._lock:
                    self._look_ahead(first, unreadable[row])

    def _look_ahead(self, first: int, reason: str) -> None:
        names, end = self._source.names, first + self._most
        if first < self._known or end >= len(names):
            return
        for row in range(first, end + 1):
            try:
                self._source.read(row)
            except ReadError as err:
                if err.status is Status.UNREADABLE:
                    continue
            self._known = row
            return
        raise MachineError(
            f"more than {self._most:,} photos in a row cannot be read, from {os.fsdecode(names[first])} to "
            f"{os.fsdecode(names[end])} ({reason}), so that nothing is recorded for them; expected: a "
            f"disk and folders that are there. Bring them back, then run the same command again to go on. If the "
            f"photos are gone for good: --max-unreadable 0"
        )
