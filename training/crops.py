"""Training crops: tars of JPEGs, decoded once and cached as uint8."""

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
from omegaconf import DictConfig
from torch import Tensor

from .command import require_file

logger = logging.getLogger(__name__)

CROP = 112  # side, pixels


def find_sources(config: DictConfig) -> tuple[list[Path], Path | None]:
    """Find the tars of a run, and its list of names to leave out, if there is one.

    Raises:
        ValueError: a file does not exist or is not a tar, or `tars` is not a list.
    """
    data = Path(config.data)
    if not data.is_dir():
        raise ValueError(f"data is {data}, which is not a folder; expected: the folder with the tars")
    if isinstance(config.tars, str) or not config.tars:
        raise ValueError(f"tars is {config.tars!r}; expected: a list, such as tars='[people.tar]'")
    tars = [require_file(data / name, "a tar", f"one of {data}, such as tars='[mine.tar]'") for name in config.tars]
    for tar in tars:
        if not tarfile.is_tarfile(tar):
            raise ValueError(f"{tar} is not a tar; expected: a tar of {CROP}x{CROP} JPEGs")
    if not config.left_out:
        return tars, None
    return tars, require_file(data / config.left_out, "left_out", "a list of names, or left_out=null for none")


def crops_key(tars: Sequence[Path], left_out: Path | None) -> str:
    """Hash the tars and the names left out; it changes whenever the crops change."""
    facts = [(tar.name, tar.stat().st_size, tar.stat().st_mtime_ns) for tar in tars]  # tars are padded: sizes repeat
    return hashlib.sha256(repr((facts, sorted(_names(left_out)))).encode()).hexdigest()[:16]


def _names(left_out: Path | None) -> set[str]:
    return set(left_out.read_text().split()) if left_out else set()


def load_crops(tars: Sequence[Path], left_out: Path | None, cache: Path, size: int = CROP) -> NDArray[np.uint8]:
    """Load all crops of the tars as one memory-mapped array.

    Args:
        tars: tars of JPEGs of size x size.
        left_out: text file with the member names to leave out, one per line.
        cache: folder that keeps the decoded array for the next run.
        size: side of a crop, pixels.
    Returns:
        (N, size, size, 3) uint8 RGB, in the order of the tars and of their members.
    Raises:
        ValueError: there is no crop, or a JPEG is damaged or has another size.
    """
    path = cache / f"crops-{size}-{crops_key(tars, left_out)}.npy"
    if not path.exists():
        logger.info("decoding the crops of %s, once for this run's folder", ", ".join(tar.name for tar in tars))
        images = list(_decode(tars, _names(left_out), size))
        if not images:
            raise ValueError(f"{', '.join(map(str, tars))} hold no crops; expected: {size}x{size} *.jpg")
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, np.stack(images))
        partial.rename(path)
    crops: NDArray[np.uint8] = np.load(path, mmap_mode="c")  # copy on write, because PyTorch expects writable memory
    logger.info("%d crops of %dx%d", len(crops), size, size)
    return crops


def to_device(crops: NDArray[np.uint8]) -> Tensor:
    """Move (N, S, S, 3) uint8 to the run's device: all of it to a GPU; on a CPU it stays memory-mapped."""
    return torch.from_numpy(crops).to(torch.get_default_device())


def load_names(tars: Sequence[Path], left_out: Path | None) -> list[str]:
    """Read the file name of each crop, without its folder; see `load_persons`."""
    names = _names(left_out)
    file_names = []
    for tar in tars:
        with tarfile.open(tar) as archive:
            file_names += [Path(member.name).name for member in _members(archive, names)]
    return file_names


def load_persons(tars: Sequence[Path], left_out: Path | None) -> NDArray[np.int64]:
    """Number the persons of tars with members `<person>/<file>.jpg`.

    Args:
        tars: tars that were given to `load_crops`; the rows are the same.
        left_out: text file with the member names to leave out, one per line.
    Returns:
        (N,) int64: number of each crop's folder, 0..P-1 in order of appearance. Folders of the same name in several
        tars are the same person.
    Raises:
        ValueError: a crop is not in a folder.
    """
    numbers: dict[str, int] = {}
    persons = []
    for tar, name in crop_names(tars, left_out):
        folder = str(Path(name).parent)
        if folder == ".":
            raise ValueError(f"{name} in {tar} is not in a folder; expected: <person>/<file>.jpg")
        persons.append(numbers.setdefault(folder, len(numbers)))
    logger.info("%d crops of %d persons", len(persons), len(numbers))
    return np.array(persons, np.int64)


def crop_names(tars: Iterable[Path], left_out: Path | None) -> Iterator[tuple[Path, str]]:
    """The tar and the member's name of each row of `load_crops`, which was given the same tars and list."""
    names = _names(left_out)
    for tar in tars:
        with tarfile.open(tar) as archive:
            yield from ((tar, member.name) for member in _members(archive, names))


def _members(archive: tarfile.TarFile, left_out: set[str]) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        is_jpeg = member.isfile() and member.name.endswith(".jpg")
        if is_jpeg and member.name not in left_out and Path(member.name).name not in left_out:
            yield member


def _decode(tars: Iterable[Path], left_out: set[str], size: int) -> Iterator[NDArray[np.uint8]]:
    for tar in tars:
        with tarfile.open(tar) as archive:
            for member in _members(archive, left_out):
                file = archive.extractfile(member)
                assert file is not None
                image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
                if image is None or image.shape != (size, size, 3):
                    raise ValueError(f"{member.name} in {tar} is not a {size}x{size} photo; expected: aligned crops")
                yield image
