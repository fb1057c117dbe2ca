"""The work of each stage: read, skip duplicates, decode, embed.

A failed photograph is an outcome, never an exception.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..engines.runner import Runner
from ..errors import OutOfMemoryError, SourceError
from ..images.decode import ImageError, Limits, decode_image
from ..records import SAME_FILE, Batch, Crops, Embedded, Encoded, Outcome, Status
from ..sources.reader import ReadError, read_file
from .duplicates import DigestTable, file_digest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Read:
    """Files into memory.

    Attributes:
        root: absolute folder of the paths.
        paths: by scan row, relative to the root.
        limits: larger files are refused.
    """

    root: bytes
    paths: Sequence[bytes]
    limits: Limits

    def __call__(self, batch: Batch) -> Encoded:
        rows, files, outcomes = [], [], list(batch.outcomes)
        for row in batch.rows.tolist():
            try:
                files.append(read_file(os.path.join(self.root, self.paths[row]), self.limits.max_bytes))
                rows.append(row)
            except ReadError as err:
                self._check_root()
                outcomes.append(Outcome(row, err.status, err.detail))
        return Encoded(np.array(rows, np.int64), tuple(outcomes), files=tuple(files))

    def _check_root(self) -> None:
        """Stop rather than call millions of photographs unreadable because a disk went away."""
        if not os.path.isdir(self.root):
            raise SourceError(
                f"the folder of the photographs, {os.fsdecode(self.root)}, went away during the run. "
                f"What is complete stays: bring it back and run the same command again"
            )


@dataclass(frozen=True, slots=True)
class SkipDuplicates:
    """Files seen before, to the byte, leave the journey. One thread, in scan order: the first one stays.

    Attributes:
        table: digests of all earlier rows.
        paths: by scan row, for the detail.
    """

    table: DigestTable
    paths: Sequence[bytes]

    def __call__(self, batch: Encoded) -> Encoded:
        rows, files, outcomes, digests = [], [], list(batch.outcomes), {}
        for row, data in zip(batch.rows.tolist(), batch.files, strict=True):
            digests[row] = file_digest(data)
            first = self.table.first(digests[row], row)
            if first == row:
                rows.append(row)
                files.append(data)
            else:
                same = self.paths[first].decode("utf-8", "backslashreplace")
                outcomes.append(Outcome(row, Status.DUPLICATE, f"{SAME_FILE}{same}"))
        return Encoded(np.array(rows, np.int64), tuple(outcomes), digests, files=tuple(files))


@dataclass(frozen=True, slots=True)
class Decode:
    """Encoded files to the crops that the engine takes.

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


class Slices:
    """Work in slices of the engine's batch size. Out of memory halves the slice for good.

    Attributes:
        size: the slice in force.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()

    def each(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, stop)` until all of `count` are done.

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

    def __init__(self, runner: Runner, slices: Slices) -> None:
        self._runner = runner
        self.slices = slices

    def warm_up(self) -> None:
        """Run one batch of nothing, which may halve the batch size."""
        size, count = self._runner.info.size, self.slices.size
        self(Crops(np.arange(count), images=np.zeros((count, size, size, 3), np.uint8)))

    def __call__(self, batch: Crops) -> Embedded:
        images = batch.images
        vectors = np.empty((len(images), self._runner.info.dimension), np.float32)  # (n, D)

        def embed(start: int, stop: int) -> None:
            vectors[start:stop] = self._runner.infer(images[start:stop])

        self.slices.each(len(images), embed)
        return Embedded(
            batch.rows,
            batch.outcomes,
            batch.digests,
            embeddings=vectors,
            faces=batch.faces,
            face_counts=batch.face_counts,
        )
