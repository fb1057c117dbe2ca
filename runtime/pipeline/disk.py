"""The disk space that a run needs."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np

from ..errors import DiskFullError
from ..records import ATTRIBUTES, FACE
from ..storage.contract import EmbeddingContract
from ..text import size

logger = logging.getLogger(__name__)


def check_disk(output: Path, rows: int, contract: EmbeddingContract, longest: int) -> None:
    """Check that the disk has space for the segments of a run and for the finished file.

    Args:
        output: the embedding file.
        rows: number of photos.
        contract: the contract of the run.
        longest: length of the longest name, in bytes.
    Raises:
        DiskFullError: less space is free than the run needs.
    """
    needed = disk_bytes_while_running(
        rows,
        contract.dimension,
        contract.dtype,
        faces=contract.detects_faces,
        skip_duplicates=bool(contract.skip_duplicates),
        attributes=bool(contract.attributes_read),
        longest=longest,
    )
    free = shutil.disk_usage(output.parent).free
    logger.info("disk: %s needed while running, %s afterwards; %s free", size(needed), size(needed // 2), size(free))
    if needed > free:
        raise DiskFullError(
            f"{rows:,} photos need about {size(needed)} on the disk of {output} during the run, and half of that "
            f"afterwards; {size(free)} are free. Free some space, choose another disk with -o, or halve the need "
            f"with --dtype float16"
        )


def disk_bytes_while_running(
    rows: int,
    dimension: int,
    dtype: str,
    *,
    faces: bool,
    skip_duplicates: bool = False,
    attributes: bool = False,
    longest: int = 64,
) -> int:
    """Disk space that a run needs, in bytes: its segments, and the finished file made from them.

    The finished file is half of it.

    Args:
        rows: number of photos.
        dimension: D, length of a vector.
        dtype: dtype of the finished file, "float32" or "float16".
        faces: whether faces are detected.
        skip_duplicates: whether digests are kept.
        attributes: whether age or gender is read.
        longest: length of the longest path, in bytes. Bytes beyond 64 hardly count, because paths are compressed.
    """
    vectors = rows * dimension * np.dtype(dtype).itemsize
    face_bytes = 2 * (FACE.itemsize - FACE["page"].itemsize) * rows if faces else 0  # pages compress to nothing
    face_bytes += 2 * ATTRIBUTES.itemsize * rows * attributes
    return int(2.02 * vectors) + face_bytes + 3 * rows * min(longest, 64) + 64 * rows * skip_duplicates + (1 << 20)
