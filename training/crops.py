"""Training crops: tars of JPEGs, decoded once and kept as uint8."""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def load_crops(tars: Sequence[Path], left_out: Path | None, cache: Path, size: int = 112) -> NDArray[np.uint8]:
    """All crops of some tars, as one memory-mapped array.

    Args:
        tars: each holds JPEGs of size x size.
        left_out: a list of member names that nothing may learn from, one a line.
        cache: folder that keeps the decoded array for the next run.
        size: side of a crop, pixels.
    Returns:
        (N, size, size, 3) uint8 RGB, in the order of the tars and of their members.
    """
    names = set(left_out.read_text().split()) if left_out else set()
    key = hashlib.sha256(repr([(t.name, t.stat().st_size) for t in tars] + sorted(names)).encode()).hexdigest()[:16]
    path = cache / f"crops-{size}-{key}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        images = np.stack(list(_decode(tars, names, size)))
        partial = path.with_suffix(".partial.npy")
        np.save(partial, images)
        partial.rename(path)
    crops: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    logger.info("%d crops of %dx%d", len(crops), size, size)
    return crops


def _decode(tars: Iterable[Path], left_out: set[str], size: int) -> Iterable[NDArray[np.uint8]]:
    for tar in tars:
        with tarfile.open(tar) as archive:
            for member in archive:
                if not member.isfile() or not member.name.endswith(".jpg"):
                    continue
                if member.name in left_out or Path(member.name).name in left_out:
                    continue
                file = archive.extractfile(member)
                assert file is not None
                image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
                if image is None or image.shape != (size, size, 3):
                    raise ValueError(f"{member.name} in {tar} is no {size}x{size} photograph")
                yield image
