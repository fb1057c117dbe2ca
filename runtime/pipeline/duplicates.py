"""Photographs whose files are the same to the byte, found with bounded memory."""

from __future__ import annotations

import errno
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from ..files import storage_error

DIGEST_BYTES = 16


def file_digest(data: bytes) -> bytes:
    """BLAKE2b of a file, 16 bytes: two different files among 10^9 agree with probability below 10^-20."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


class DigestTable:
    """First row of every digest seen, in a scratch table on disk: as a dict, five million would fill a gigabyte.

    Used by one thread at a time, in scan order. It is rebuilt from the segments when a run resumes, so it need not
    survive anything.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "digests"
        with self._words():
            self._path.unlink(missing_ok=True)  # of a run that was killed
            self._db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536", "locking_mode=EXCLUSIVE"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID")

    def load(self, entries: Iterable[tuple[bytes, int]]) -> None:
        """Add known (digest, row) pairs.

        Raises:
            DiskFullError, StorageError: the table cannot be written.
        """
        with self._words():
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", entries)
            self._db.execute("COMMIT")

    def first(self, digest: bytes, row: int) -> int:
        """The row that first had this digest: `row` itself when it is new.

        Raises:
            DiskFullError, StorageError: the table cannot be written.
        """
        with self._words():
            self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (digest, row))
            found: int = self._db.execute("SELECT row FROM seen WHERE digest = ?", (digest,)).fetchone()[0]
        return found

    @contextmanager
    def _words(self) -> Iterator[None]:
        """SQLite's errors to ours."""
        try:
            yield
        except sqlite3.Error as err:
            # SQLite says "full" for a full disk and "disk I/O error" for a quota.
            number = errno.ENOSPC if "full" in str(err) or "I/O" in str(err) else errno.EIO
            raise storage_error(OSError(number, str(err)), "the table of duplicates", self._path) from err

    def __enter__(self) -> DigestTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)
