"""The work of each stage that looks for no faces: read, skip duplicates, decode, embed.

A failed photo is an outcome, never an exception.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engines.runner import Runner
from ..errors import OutOfMemoryError
from ..files import create_empty, storage_error
from ..images.decode import ImageError, Limits, decode_image
from ..records import SAME_FILE, Batch, Crops, Embedded, Encoded, Outcome, Status
from ..sources.reader import ReadError
from ..sources.source import Source

logger = logging.getLogger(__name__)

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Read:
    """Rows to encoded photos.

    Attributes:
        source: of the photos.
    """

    source: Source

    def __call__(self, batch: Batch) -> Encoded:
        rows, files, outcomes = [], [], list(batch.outcomes)
        for row in batch.rows.tolist():
            try:
                files.append(self.source.read(row))
                rows.append(row)
            except ReadError as err:
                outcomes.append(Outcome(row, err.status, err.detail))
        return Encoded(np.array(rows, np.int64), tuple(outcomes), files=tuple(files))


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
        with self._our_errors():
            self._path.unlink(missing_ok=True)  # of a run that was killed
            create_empty(self._path, like=folder)  # as private as the run folder
            self._db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536", "locking_mode=EXCLUSIVE"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID")

    def load(self, entries: Iterable[tuple[bytes, int]]) -> None:
        """Add known (digest, row) pairs.

        Raises:
            DiskFullError, StorageError: the table cannot be written.
        """
        with self._our_errors():
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", entries)
            self._db.execute("COMMIT")

    def first(self, digest: bytes, row: int) -> int:
        """The row that first had this digest: `row` itself when it is new.

        Raises:
            DiskFullError, StorageError: the table cannot be written.
        """
        with self._our_errors():
            self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (digest, row))
            earliest: int = self._db.execute("SELECT row FROM seen WHERE digest = ?", (digest,)).fetchone()[0]
        return earliest

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.Error as err:
            # SQLite says "full" for a full disk and "disk I/O error" for a quota.
            number = errno.ENOSPC if "full" in str(err) or "I/O" in str(err) else errno.EIO
            raise storage_error(OSError(number, str(err)), "the table of duplicates", self._path) from err

    def __enter__(self) -> DigestTable:
        return self

    def __exit__(self, *exc: object) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class SkipDuplicates:
    """Drops files that are the same, to the byte, as an earlier one. One thread, in scan order: the first one stays.

    Attributes:
        table: digests of all earlier rows.
        source: of the photos; its names are for the detail.
    """

    table: DigestTable
    source: Source

    def __call__(self, batch: Encoded) -> Encoded:
        rows, files, outcomes, digests = [], [], list(batch.outcomes), {}
        for row, data in zip(batch.rows.tolist(), batch.files, strict=True):
            digests[row] = file_digest(data)
            first = self.table.first(digests[row], row)
            if first == row:
                rows.append(row)
                files.append(data)
            else:
                same = self.source.names[first].decode("utf-8", "backslashreplace")
                outcomes.append(Outcome(row, Status.DUPLICATE, f"{SAME_FILE}{same}"))
        return Encoded(np.array(rows, np.int64), tuple(outcomes), digests, files=tuple(files))


@dataclass(frozen=True, slots=True)
class Decode:
    """Encoded photos, whole, to the crops that the engine takes.

    Attributes:
        size: side of the crop.
        channel_order: "rgb" or "bgr".
        limits: what is refused before it is decoded.
    """

    size: int
    channel_order: str
    limits: Limits

    def __call__(self, batch: Encoded) -> Crops:
        images = np.empty((len(batch.files), self.size, self.size, 3), np.uint8)  # (n, S, S, 3)
        rows: list[int] = []
        outcomes = list(batch.outcomes)
        for row, data in zip(batch.rows.tolist(), batch.files, strict=True):
            try:
                images[len(rows)] = decode_image(
                    data, size=self.size, channel_order=self.channel_order, limits=self.limits
                )
                rows.append(row)
            except ImageError as err:
                outcomes.append(Outcome(row, err.status, err.detail))
        return Crops(np.array(rows, np.int64), tuple(outcomes), batch.digests, images=images[: len(rows)])


class BatchLimit:
    """The most that an engine takes at once. Out of memory halves it for good.

    Attributes:
        size: photos or faces, now.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()

    def each(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, stop)`, `size` at a time, until all of `count` are done.

        Raises:
            OutOfMemoryError: one alone does not fit.
        """
        start = 0
        while start < count:
            size = self.size
            try:
                work(start, min(start + size, count))
            except OutOfMemoryError:
                self._halve(size)
                continue
            start += size

    def _halve(self, failed: int) -> None:
        """Half of the size that failed, unless another thread has done so already."""
        with self._lock:
            if failed <= 1:
                raise OutOfMemoryError(
                    "out of memory even at batch size 1; wanted: memory for one photograph. "
                    "Close other programs that use this device, or build the engine for another backend"
                )
            if self.size >= failed:
                self.size = failed // 2
                logger.warning("out of memory at batch size %d: going on with %d", failed, self.size)


class Embed:
    """Crops to unit vectors."""

    def __init__(self, runner: Runner, limit: BatchLimit) -> None:
        self._runner = runner
        self.limit = limit

    def warm_up(self) -> None:
        """Run one batch of nothing, which may halve the batch size."""
        size, count = self._runner.info.size, self.limit.size
        self(Crops(np.arange(count), images=np.zeros((count, size, size, 3), np.uint8)))

    def __call__(self, batch: Crops) -> Embedded:
        images = batch.images
        vectors = np.empty((len(images), self._runner.info.dimension), np.float32)  # (n, D)

        def embed(start: int, stop: int) -> None:
            vectors[start:stop] = self._runner.infer(images[start:stop])

        self.limit.each(len(images), embed)
        return Embedded(
            batch.rows,
            batch.outcomes,
            batch.digests,
            embeddings=vectors,
            faces=batch.faces,
            face_counts=batch.face_counts,
        )
