"""Training crops: tars of JPEGs, decoded once and kept as uint8."""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    crops: NDArray[np.uint8] = np.load(path, mmap_mode="c")  # copied where it is written to, which PyTorch wants
    logger.info("%d crops of %dx%d", len(crops), size, size)
    return crops


def pixels_of(crops: NDArray[np.uint8]) -> Tensor:
    """(N, S, S, 3) uint8 where the run computes: a GPU holds them all; on a CPU they stay the memory-mapped array."""
    return torch.from_numpy(crops).to(torch.get_default_device())


def load_persons(tars: Sequence[Path], left_out: Path | None) -> NDArray[np.int64]:
    """Who is shown, of tars with members `<person>/<file>.jpg`.

    Args:
        tars, left_out: as for `load_crops`, whose rows these are.
    Returns:
        (N,) int64: the number of each crop's folder, 0..P-1 in the order in which they come. A folder of the same name
        in another tar is the same person.
    Raises:
        ValueError: a crop lies in no folder.
    """
    names = set(left_out.read_text().split()) if left_out else set()
    numbers: dict[str, int] = {}
    persons = []
    for tar in tars:
        with tarfile.open(tar) as archive:
            for member in _members(archive, names):
                folder = str(Path(member.name).parent)
                if folder == ".":
                    raise ValueError(f"{member.name} in {tar} is in no folder; wanted: <person>/<file>.jpg")
                persons.append(numbers.setdefault(folder, len(numbers)))
    logger.info("%d crops of %d persons", len(persons), len(numbers))
    return np.array(persons, np.int64)


def _members(archive: tarfile.TarFile, left_out: set[str]) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        wanted = member.isfile() and member.name.endswith(".jpg")
        if wanted and member.name not in left_out and Path(member.name).name not in left_out:
            yield member


def _decode(tars: Iterable[Path], left_out: set[str], size: int) -> Iterator[NDArray[np.uint8]]:
    for tar in tars:
        with tarfile.open(tar) as archive:
            for member in _members(archive, left_out):
                file = archive.extractfile(member)
                assert file is not None
                image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
                if image is None or image.shape != (size, size, 3):
                    raise ValueError(f"{member.name} in {tar} is no {size}x{size} photograph")
                yield image
