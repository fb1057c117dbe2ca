"""Complete segments, read back: each is right, or set aside so that its photographs run again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import FACE_DATASETS, Status
from .format import read_vector_counts
from .salvage import DAMAGE, refuse_system_error

logger = logging.getLogger(__name__)


def segment_files(folder: Path) -> list[Path]:
    """Complete segments, oldest first."""
    return sorted(folder.glob("segment-*.h5"))


@dataclass(frozen=True, slots=True)
class Segment:
    """A complete segment, as the ledger needs it.

    Attributes:
        path: the file.
        rows: (n,) int64, scan rows.
        status: (n,) uint8.
        vector_counts: (n,) uint16, how many rows of `/embeddings` each has.
        digests: whether it holds `/outcomes/digest`.
        faces: whether it holds what is known of each face.
    """

    path: Path
    rows: NDArray[np.int64]
    status: NDArray[np.uint8]
    vector_counts: NDArray[np.uint16]
    digests: bool
    faces: bool


def read_segments(folder: Path, plan_id: str) -> Iterator[Segment]:
    """Every complete segment of a plan, oldest first.

    A segment that cannot be read, or is of another plan, is set aside: its photographs run again.

    Raises:
        StorageError: the system, not the file, is the reason that one cannot be read.
    """
    import h5py

    for leftover in folder.glob("segment-*.partial"):
        leftover.unlink()
    for path in segment_files(folder):
        try:
            with h5py.File(path, "r") as file:
                found = _segment(path, file)
                right = file.attrs["plan_id"] == plan_id and len(found.rows) and _adds_up(found, file)
        except DAMAGE as err:
            refuse_system_error(err, path)
            set_aside(path, str(err))
            continue
        if right:
            yield found
        else:
            set_aside(path, "it is of another run or incomplete")


def _segment(path: Path, file: Any) -> Segment:
    group = file["outcomes"]
    rows, status = group["row"][:], group["status"][:]
    return Segment(path, rows, status, read_vector_counts(group, status), "digest" in group, "faces" in group)


def _adds_up(found: Segment, file: Any) -> bool:
    """Whether every embedded photograph of a segment has its vectors, and every vector its face."""
    datasets = ["embeddings", *(FACE_DATASETS.values() if found.faces else ())]
    total = int(found.vector_counts.sum())
    embedded = found.status == Status.EMBEDDED
    return bool(((found.vector_counts > 0) == embedded).all()) and all(len(file[name]) == total for name in datasets)


def set_aside(path: Path, reason: str) -> None:
    """Rename a segment, so that it is kept for whoever wants to look and used no more."""
    logger.warning("segment %s is set aside (%s): its photographs run again", path, reason)
    path.rename(path.with_suffix(".damaged"))
