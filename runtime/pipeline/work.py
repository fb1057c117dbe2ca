"""The work of the stages without face detection: read, skip duplicates, decode, embed.

A photo that fails becomes an outcome, never an exception.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..attributes.answers import read_answers
from ..attributes.head import Head
from ..engines.backends import backend_of
from ..engines.fixed_batch import FixedBatch
from ..engines.runner import Runner
from ..errors import OutOfMemoryError
from ..files import create_empty, storage_error
from ..images.decode import ImageError, Limits, decode_crop
from ..images.one_photo import one_photo
from ..images.slow import SlowPhotos
from ..records import SAME_FILE, Batch, Crops, Embedded, Encoded, Outcome, Photo, Photos, Status
from ..sources.reader import ReadError
from ..sources.source import Source
from ..sources.streaks import Streaks

logger = logging.getLogger(__name__)

DIGEST_BYTES = 16
_ATTRIBUTE_CROPS = 64  # in one call of the engine


@dataclass(frozen=True, slots=True)
class Read:
    """Read rows: row numbers to encoded photos.

    Attributes:
        source: the photos.
        streaks: stops the run where very many in a row cannot be read; None for a few photos.
    """

    source: Source
    streaks: Streaks | None = None

    def __call__(self, batch: Batch) -> Encoded:
        rows, files, outcomes = [], [], list(batch.outcomes)
        for row in batch.rows.tolist():
            try:
                with one_photo("read", self.source.names[row]):
                    files.append(self.source.read(row))
                rows.append(row)
            except (ReadError, ImageError) as err:
                outcomes.append(Outcome(row, err.status, err.detail))
        if self.streaks is not None:
            self.streaks.check(batch.rows.tolist(), outcomes)
        return Encoded(np.array(rows, np.int64), tuple(outcomes), files=tuple(files), names=self.source.names)


def file_digest(data: bytes) -> bytes:
    """BLAKE2b of a file, 16 bytes: any two of 10^9 different files collide with probability below 10^-20."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


class DigestTable:
    """The first row of every digest, in a scratch table on disk: a dict of five million would take a gigabyte.

    Use it from one thread at a time, in scan order. A resumed run rebuilds it from the segments, so it need not survive
    a crash.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "digests"
        with self._translate_errors():
            self._path.unlink(missing_ok=True)  # left by a run that was killed
            create_empty(self._path, like=folder)  # as private as the run folder
            self._db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536", "locking_mode=EXCLUSIVE"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID")

    def load(self, entries: Iterable[tuple[bytes, int]]) -> None:
        """Add (digest, row) pairs of earlier rows.

        Raises:
            DiskFullError, StorageError: the table cannot be written.
        """
        with self._translate_errors():
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", entries)
            self._db.execute("COMMIT")

    def first_row(self, digest: bytes, row: int) -> int:
        """Record a digest and return the first row that had it: `row` itself if the digest is new.

        Raises:
            DiskFullError, StorageError: the table cannot be written.
        """
        with self._translate_errors():
            self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (digest, row))
            earliest: int = self._db.execute("SELECT row FROM seen WHERE digest = ?", (digest,)).fetchone()[0]
        return earliest

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise SQLite's errors as errors of facemill."""
        try:
            yield
        except sqlite3.Error as err:
            # SQLite reports a full disk as "full", and an exceeded quota as "disk I/O error".
            number = errno.ENOSPC if "full" in str(err) or "I/O" in str(err) else errno.EIO
            raise storage_error(OSError(number, str(err)), "the table of duplicates", self._path) from err

    def __enter__(self) -> DigestTable:
        return self

    def __exit__(self, *exc: object) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class SkipDuplicates:
    """Drops files whose bytes equal those of an earlier file. Runs in one thread, in scan order, so the first is kept.

    Attributes:
        table: the digests of all earlier rows.
        source: the photos, whose names are used in outcomes.
    """

    table: DigestTable
    source: Source

    def __call__(self, batch: Encoded) -> Encoded:
        rows, files, outcomes, digests = [], [], list(batch.outcomes), {}
        for row, data in zip(batch.rows.tolist(), batch.files, strict=True):
            digests[row] = file_digest(data)
            first = self.table.first_row(digests[row], row)
            if first == row:
                rows.append(row)
                files.append(data)
            else:
                same = self.source.names[first].decode("utf-8", "backslashreplace")
                outcomes.append(Outcome(row, Status.DUPLICATE, f"{SAME_FILE}{same}"))
        return Encoded(np.array(rows, np.int64), tuple(outcomes), digests, files=tuple(files), names=batch.names)


def decode_each(batch: Encoded, decode: Callable[[bytes], Photo]) -> Photos:
    """Decode each photo of a batch. One that takes long is named in the log, and its outcome says so.

    Args:
        batch: encoded photos.
        decode: a file to a photo; raises ImageError.
    """
    rows, files, photos, outcomes, notes = [], [], [], list(batch.outcomes), dict(batch.notes)
    with SlowPhotos() as slow:
        for row, name, data in zip(batch.rows.tolist(), batch.names_of_rows(), batch.files, strict=True):
            slow.begin(name)
            try:
                photo = decode(data)
            except ImageError as err:
                outcomes.append(Outcome(row, err.status, "; ".join(filter(None, (err.detail, slow.note())))))
                continue
            rows.append(row)
            files.append(data)
            photos.append(photo)
            note = "; ".join(filter(None, (photo.note, slow.note())))
            if note:
                notes[row] = note
    return Photos(
        np.array(rows, np.int64),
        tuple(outcomes),
        batch.digests,
        notes,
        photos=tuple(photos),
        files=tuple(files),
        names=batch.names,
    )


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode whole photos: encoded photos to crops for the engine.

    Attributes:
        size: side of the crop, pixels.
        channel_order: "rgb" or "bgr".
        limits: size limits, checked before decoding.
    """

    size: int
    channel_order: str
    limits: Limits

    def __call__(self, batch: Encoded) -> Crops:
        decoded = decode_each(
            batch,
            lambda data: decode_crop(data, size=self.size, channel_order=self.channel_order, limits=self.limits),
        )
        images = np.empty((len(decoded.photos), self.size, self.size, 3), np.uint8)  # (n, S, S, 3)
        for image, photo in zip(images, decoded.photos, strict=True):
            image[:] = photo.pixels
        return Crops(decoded.rows, decoded.outcomes, batch.digests, decoded.notes, images=images)


class BatchLimit:
    """The batch size of an engine. It is halved for good when memory runs out.

    Attributes:
        size: photos or faces per batch.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()

    def each(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, stop)` for `size` items at a time, until all `count` items are done.

        Raises:
            OutOfMemoryError: a single item does not fit.
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
        """Halve the size that failed, unless another thread already did."""
        with self._lock:
            if failed <= 1:
                raise OutOfMemoryError(
                    "out of memory at batch size 1; expected: memory for one photo. "
                    "Close other programs that use this device, or build an engine for another backend"
                )
            if self.size >= failed:
                self.size = failed // 2
                logger.warning("out of memory at batch size %d: continuing with %d", failed, self.size)


class ReadAttributes:
    """Read age and gender from crops."""

    def __init__(self, runner: Runner, names: Sequence[str], channel_order: str) -> None:
        """Take a runner.

        Args:
            runner: runner of an engine for attributes; several threads may use it.
            names: what is read, keys of ATTRIBUTE_FIELDS.
            channel_order: "rgb" or "bgr", of the crops.
        """
        self._runner, self._names = runner, names
        self._reverse = runner.info.channel_order != channel_order
        self._limit = BatchLimit(min(_ATTRIBUTE_CROPS, runner.info.profile[2]))

    def __call__(self, batch: Crops) -> Crops:
        return replace(batch, attributes=self.read(batch.images))

    def read(self, images: NDArray[np.uint8]) -> NDArray[np.void]:
        """Read (n, S, S, 3) uint8 crops: (n,) ATTRIBUTES."""
        answers = np.empty((len(images), self._runner.info.dimension), np.float32)

        def infer(start: int, stop: int) -> None:
            crops = images[start:stop, ..., ::-1] if self._reverse else images[start:stop]
            answers[start:stop] = self._runner.infer(np.ascontiguousarray(crops))

        self._limit.each(len(images), infer)
        return read_answers(answers, self._names)


@dataclass(frozen=True, slots=True)
class ReadEmbeddings:
    """Read age and gender from embeddings, by a head.

    Attributes:
        head: the head for the model of the embeddings.
        names: what is read, keys of ATTRIBUTE_FIELDS.
    """

    head: Head
    names: Sequence[str]

    def __call__(self, batch: Embedded) -> Embedded:
        return replace(batch, attributes=read_answers(self.head.answer(batch.embeddings), self.names))


class Embed:
    """Embed crops: crops to unit vectors."""

    def __init__(self, runner: Runner, limit: BatchLimit) -> None:
        self._runner = runner
        self._on_gpu = backend_of(runner.info.backend).on_gpu
        self.limit = limit

    def warm_up(self) -> None:
        """Run one empty batch, which may halve the batch size."""
        size, count = self._runner.info.size, self.limit.size
        self(Crops(np.arange(count), images=np.zeros((count, size, size, 3), np.uint8)))

    def __call__(self, batch: Crops) -> Embedded:
        images = batch.images
        vectors = np.empty((len(images), self._runner.info.dimension), np.float32)  # (n, D)

        def embed(start: int, stop: int) -> None:
            # On a GPU all batches have one size, so that a row does not depend on its batch.
            runner = FixedBatch(self._runner, self.limit.size) if self._on_gpu else self._runner
            vectors[start:stop] = runner.infer(images[start:stop])

        self.limit.each(len(images), embed)
        return Embedded(
            batch.rows,
            batch.outcomes,
            batch.digests,
            batch.notes,
            embeddings=vectors,
            faces=batch.faces,
            face_counts=batch.face_counts,
            attributes=batch.attributes,
        )
