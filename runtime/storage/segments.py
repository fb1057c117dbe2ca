"""Segments: the results of a run, in pieces that are each durable before the next begins.

A segment is a small HDF5 file of the same shape as the finished one, plus `/outcomes/row`. A photograph is in one
segment with all of its faces. A kill at any moment loses the segment in hand and nothing else. Later segments override
earlier ones (a retried photograph).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..records import Embedded, Status
from .format import append_faces, create_faces
from .h5write import DurableH5
from .segment_reader import segment_files

DETAIL_BYTES = 500
_BLOCK_ROWS = 4096

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """When a segment ends.

    Attributes:
        max_rows: photographs in a segment at most.
        max_seconds: age of a segment at most.
    """

    max_rows: int = 250_000
    max_seconds: float = 60.0


class SegmentWriter:
    """Writes outcomes and embeddings to one segment after another. Call `commit` before letting go of it."""

    def __init__(
        self,
        folder: Path,
        *,
        plan_id: str,
        dimension: int,
        dtype: str,
        digests: bool,
        rules: SegmentRules,
        faces: bool = False,
        process: int = 0,
    ) -> None:
        self._folder = folder
        self._suffix = f"-{process}" if process else ""
        self._plan_id = plan_id
        self._dimension = dimension
        self._dtype = dtype
        self._digests = digests
        self._faces = faces
        self._rules = rules
        self._number = max((_number(p) for p in segment_files(folder)), default=0)
        self._open: DurableH5 | None = None
        self._opened_at = 0.0
        self._rows: list[int] = []
        self._status: list[int] = []
        self._detail: list[bytes] = []
        self._digest: list[bytes] = []
        self._vector_count: list[int] = []
        self._face_count: list[int] = []
        self._block: list[NDArray[np.float32]] = []
        self._face_block: list[NDArray[np.void]] = []
        self._block_rows = 0

    def append(self, batch: Embedded) -> None:
        """Add one batch; ends the segment when it is due.

        Args:
            batch: with `faces` if this writer was made for faces, and without them otherwise.
        Raises:
            DiskFullError, StorageError: the segment in hand is lost, the earlier ones stay.
        """
        rows, faces = batch.rows, batch.faces
        assert (faces is not None) == self._faces
        photographs, counts = np.unique(rows, return_counts=True)
        assert self._faces or len(photographs) == len(rows)
        embedded = zip(photographs.tolist(), counts.tolist(), strict=True)
        entries = [(row, int(Status.EMBEDDED), b"", count) for row, count in embedded]
        entries += [(o.row, int(o.status), clip_detail(o.detail), 0) for o in batch.outcomes]
        if self._rows and len(self._rows) + len(entries) > self._rules.max_rows:
            self.commit()
        if self._open is None:
            self._start()
        for row, status, detail, count in sorted(entries):
            self._rows.append(row)
            self._status.append(status)
            self._detail.append(detail)
            self._digest.append(batch.digests.get(row, b""))
            self._vector_count.append(count)
            self._face_count.append(batch.face_counts.get(row, 0))
        if len(rows):
            self._block.append(batch.embeddings)
            self._block_rows += len(rows)
            if faces is not None:
                self._face_block.append(faces)
        if self._block_rows >= _BLOCK_ROWS:
            self._flush()
        self.commit_when_due()

    def commit_when_due(self) -> None:
        """End the segment in hand if it is large or old enough.

        Raises:
            DiskFullError, StorageError: it is lost, the earlier ones stay.
        """
        if len(self._rows) >= self._rules.max_rows or self.age_s() >= self._rules.max_seconds:
            self.commit()

    def age_s(self) -> float:
        """Seconds since the segment in hand was begun; 0 when there is none."""
        return time.monotonic() - self._opened_at if self._open is not None else 0.0

    def commit(self) -> None:
        """End the segment in hand, durably.

        Raises:
            DiskFullError, StorageError: it is lost, the earlier ones stay.
        """
        if self._open is None:
            return
        self._flush()
        done, self._open = self._open, None
        with done.writing():
            group = done.file.create_group("outcomes")
            group["row"] = np.array(self._rows, np.int64)
            group["status"] = np.array(self._status, np.uint8)
            group.create_dataset("detail", data=np.array(self._detail, "S"), compression="gzip", compression_opts=1)
            if self._digests:
                digests = b"".join(d.ljust(16, b"\0") for d in self._digest)
                group["digest"] = np.frombuffer(digests, np.uint8).reshape(-1, 16)
            if self._faces:
                group["embeddings"] = np.array(self._vector_count, np.uint16)
                group["faces"] = np.array(self._face_count, np.uint16)
        columns = self._rows, self._status, self._detail, self._digest, self._vector_count, self._face_count
        for column in columns:
            column.clear()
        done.commit()

    def discard(self) -> None:
        """Drop the segment in hand."""
        if self._open is not None:
            self._open.discard()
            self._open = None

    def _start(self) -> None:
        self._number += 1
        self._open = DurableH5(self._folder / f"segment-{self._number:06d}{self._suffix}.h5", "the segment")
        self._opened_at = time.monotonic()
        self._open.file.attrs["plan_id"] = self._plan_id
        self._open.file.create_dataset(
            "embeddings",
            shape=(0, self._dimension),
            maxshape=(None, self._dimension),
            chunks=(1024, self._dimension),
            dtype=self._dtype,
            fletcher32=True,
        )
        if self._faces:
            create_faces(self._open.file)

    def _flush(self) -> None:
        """Hand the buffered rows to HDF5, so that memory does not grow with the segment."""
        if self._open is None or not self._block_rows:
            return
        target, self._open = self._open, None
        with target.writing():
            data = target.file["embeddings"]
            start = data.shape[0]
            data.resize(start + self._block_rows, axis=0)
            data[start:] = np.concatenate(self._block)
            if self._faces:
                append_faces(target.file, np.concatenate(self._face_block))
        self._open = target
        self._block.clear()
        self._face_block.clear()
        self._block_rows = 0


def clip_detail(detail: str) -> bytes:
    """A detail as it is stored: at most DETAIL_BYTES of UTF-8, never cut inside a character."""
    return detail.encode("utf-8", "backslashreplace")[:DETAIL_BYTES].decode("utf-8", "ignore").encode()


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])
