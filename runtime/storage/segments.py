"""Segments: the results of a run in pieces, each durable before the next one starts.

A segment is a small HDF5 file with the layout of the finished one, plus `/outcomes/row`. A photo is in one segment with
all of its faces. A kill at any moment loses only the open segment. Later segments override earlier ones (a retried
photo).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import defaults
from ..counts import check_count
from ..files import is_temporary
from ..records import ALL_FACE_DATASETS, ATTRIBUTE_DATASETS, FACE_DATASETS, Embedded, Status
from .format import append_attributes, append_faces, create_attributes, create_faces, read_vector_counts
from .h5write import DurableH5
from .layout import check_layout
from .opening import DAMAGE, open_steadily, read_attribute, refuse_system_error

DETAIL_BYTES = 500
_OUTCOMES = [int(status) for status in Status if status is not Status.PENDING]
_BLOCK_ROWS = 4096
# A photo of the open segment; lists and tuples of Python objects would need several times the memory.
_PHOTO = np.dtype(
    [
        ("row", np.int64),
        ("status", np.uint8),
        ("detail", np.object_),  # bytes
        ("digest", np.uint8, (16,)),
        ("embeddings", np.uint16),
        ("faces", np.uint16),
    ]
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """The limits of a segment.

    Attributes:
        max_rows: maximum number of photos in a segment.
        max_seconds: maximum age of a segment.
    Raises:
        ConfigError: the number of photos is no whole number from 1.
    """

    max_rows: int = defaults.SEGMENT_ROWS
    max_seconds: float = defaults.SEGMENT_SECONDS

    def __post_init__(self) -> None:
        check_count("max_rows", self.max_rows)


class SegmentWriter:
    """Writes outcomes and embeddings to one segment after another. Call `commit` at the end."""

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
        pages: bool = False,
        attributes: Sequence[str] = (),
        process: int = 0,
    ) -> None:
        self._folder = folder
        self._suffix = f"-{process}" if process else ""
        self._plan_id = plan_id
        self._dimension = dimension
        self._dtype = dtype
        self._digests = digests
        self._faces, self._pages, self._attributes = faces, pages, attributes
        self._rules = rules
        self._number = max((_number(p) for p in segment_files(folder)), default=0)
        self._open: DurableH5 | None = None
        self._opened_at = 0.0
        self._photos: list[NDArray[np.void]] = []  # of _PHOTO
        self._rows = 0
        self._block: list[NDArray[np.float32]] = []
        self._face_block: list[NDArray[np.void]] = []
        self._attribute_block: list[NDArray[np.void]] = []
        self._block_rows = 0

    def append(self, batch: Embedded) -> None:
        """Add one batch, and end the segment if it reaches a limit.

        Args:
            batch: with `faces` and `attributes` if this writer was made for them, else without them.
        Raises:
            DiskFullError, StorageError: a write failed; the open segment is lost, earlier ones stay.
        """
        rows, faces, attributes = batch.rows, batch.faces, batch.attributes
        assert (faces is not None) == self._faces
        assert (attributes is not None) == bool(self._attributes)
        photos = self._photos_of(batch)
        if self._rows and self._rows + len(photos) > self._rules.max_rows:
            self.commit()
        if self._open is None:
            self._start()
        self._photos.append(photos)
        self._rows += len(photos)
        if len(rows):
            self._block.append(batch.embeddings)
            self._block_rows += len(rows)
            if faces is not None:
                self._face_block.append(faces)
            if attributes is not None:
                self._attribute_block.append(attributes)
        if self._block_rows >= _BLOCK_ROWS:
            self._flush()
        self.commit_when_due()

    def _photos_of(self, batch: Embedded) -> NDArray[np.void]:
        """(n,) _PHOTO of a batch, in scan order."""
        embedded, counts = np.unique(batch.rows, return_counts=True)
        assert self._faces or len(embedded) == len(batch.rows)
        photos = np.zeros(len(embedded) + len(batch.outcomes), _PHOTO)
        photos["row"] = [*embedded.tolist(), *(outcome.row for outcome in batch.outcomes)]
        photos["status"] = [Status.EMBEDDED] * len(embedded) + [outcome.status for outcome in batch.outcomes]
        details = [batch.notes.get(row, "") for row in embedded.tolist()] + [
            outcome.detail for outcome in batch.outcomes
        ]
        photos["detail"] = [clip_detail(detail) for detail in details]
        photos["embeddings"][: len(embedded)] = counts
        photos = photos[np.argsort(photos["row"])]
        rows = photos["row"].tolist()
        if self._digests:
            digests = b"".join(batch.digests.get(row, b"").ljust(16, b"\0") for row in rows)
            photos["digest"] = np.frombuffer(digests, np.uint8).reshape(-1, 16)
        if self._faces:
            photos["faces"] = [batch.face_counts.get(row, 0) for row in rows]
        return photos

    def commit_when_due(self) -> None:
        """End the open segment if it is large or old enough.

        Raises:
            DiskFullError, StorageError: a write failed; the open segment is lost, earlier ones stay.
        """
        if self._rows >= self._rules.max_rows or self.age_s() >= self._rules.max_seconds:
            self.commit()

    def age_s(self) -> float:
        """Seconds since the open segment was created; 0 without one."""
        return time.monotonic() - self._opened_at if self._open is not None else 0.0

    def commit(self) -> None:
        """End the open segment, durably.

        Raises:
            DiskFullError, StorageError: a write failed; the open segment is lost, earlier ones stay.
        """
        if self._open is None:
            return
        self._flush()
        segment, self._open = self._open, None
        with segment.writing():
            group = segment.file.create_group("outcomes")
            photos = np.concatenate(self._photos)
            columns = {"row": photos["row"], "status": photos["status"]}
            if self._digests:
                columns["digest"] = photos["digest"]
            if self._faces:
                columns |= {"embeddings": photos["embeddings"], "faces": photos["faces"]}
            for name, values in columns.items():  # a checksum for each: a vector of another person is worse than none
                group.create_dataset(name, data=values, chunks=True, fletcher32=True)
            details = np.array(photos["detail"].tolist(), "S")
            group.create_dataset("detail", data=details, compression="gzip", compression_opts=1, fletcher32=True)
        self._photos.clear()
        self._rows = 0
        segment.commit()

    def discard(self) -> None:
        """Drop the open segment."""
        if self._open is not None:
            self._open.discard()
            self._open = None

    def _start(self) -> None:
        self._number += 1
        path = self._folder / f"segment-{self._number:06d}{self._suffix}.h5"
        self._open = DurableH5(path, "the segment", like=self._folder)
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
            create_faces(self._open.file, pages=self._pages)
        create_attributes(self._open.file, self._attributes)

    def _flush(self) -> None:
        """Pass the buffered rows to HDF5, so that memory does not grow with the segment."""
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
            if self._attributes:
                append_attributes(target.file, np.concatenate(self._attribute_block))
        self._open = target
        self._block.clear()
        self._face_block.clear()
        self._attribute_block.clear()
        self._block_rows = 0


def segment_files(folder: Path) -> list[Path]:
    """Complete segments, oldest first."""
    return sorted(folder.glob("segment-*.h5"))


@dataclass(frozen=True, slots=True)
class Segment:
    """The facts about a complete segment that the ledger needs.

    Attributes:
        path: the file.
        rows: (n,) int64, scan rows.
        status: (n,) uint8.
        vector_counts: (n,) uint16, number of rows of `/embeddings` for each.
        digests: whether it has `/outcomes/digest`.
        faces: whether it has faces.
    """

    path: Path
    rows: NDArray[np.int64]
    status: NDArray[np.uint8]
    vector_counts: NDArray[np.uint16]
    digests: bool
    faces: bool


def read_segments(folder: Path, plan_id: str, rows: int) -> Iterator[Segment]:
    """Yield every complete segment of a plan, oldest first.

    A segment that is damaged, or belongs to a different plan, is set aside: its photos run again.

    Args:
        folder: the run folder.
        plan_id: identifies the plan.
        rows: number of photos of the plan.
    Raises:
        StorageError: a segment cannot be read for a reason outside the file.
    """
    for path in filter(is_temporary, folder.glob("segment-*")):  # left by a killed run
        path.unlink()
    for path in segment_files(folder):
        try:
            with open_steadily(path) as file:
                check_layout(file)
                segment = _segment(path, file)
                right = read_attribute(file, "plan_id") == plan_id and _adds_up(segment, file, rows)
        except DAMAGE as err:
            refuse_system_error(err, path)
            set_aside(path, str(err))
            continue
        if right:
            yield segment
        else:
            set_aside(path, "it belongs to a different run or is incomplete")


def _segment(path: Path, file: Any) -> Segment:
    group = file["outcomes"]
    rows, status = group["row"][:], group["status"][:]
    return Segment(path, rows, status, read_vector_counts(group, status), "digest" in group, "faces" in group)


def _adds_up(segment: Segment, file: Any, plan_rows: int) -> bool:
    """Whether a segment holds photos of the plan, each once, every embedded one its vectors, every vector its face."""
    rows = segment.rows
    if not len(rows) or len(rows) != len(segment.status) or not (np.diff(rows) > 0).all():
        return False
    if rows[0] < 0 or rows[-1] >= plan_rows or not np.isin(segment.status, _OUTCOMES).all():
        return False
    # Older versions wrote no exposure, and most runs write no pages.
    faces = [name for name in ALL_FACE_DATASETS.values() if name in file or name in FACE_DATASETS.values()]
    attributes = [name for name in ATTRIBUTE_DATASETS.values() if name in file]
    datasets = ["embeddings", *(faces if segment.faces else ()), *attributes]
    total = int(segment.vector_counts.sum())
    embedded = segment.status == Status.EMBEDDED
    return bool(((segment.vector_counts > 0) == embedded).all()) and all(len(file[name]) == total for name in datasets)


def set_aside(path: Path, reason: str) -> None:
    """Rename a damaged segment, to keep it for inspection without using it again."""
    logger.warning("setting segment %s aside (%s): its photos run again", path, reason)
    path.rename(path.with_suffix(".damaged"))


def clip_detail(detail: str) -> bytes:
    """Convert a detail to the stored text: at most DETAIL_BYTES of UTF-8, never cut inside a character."""
    return detail.encode("utf-8", "backslashreplace")[:DETAIL_BYTES].decode("utf-8", "ignore").encode()


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])
