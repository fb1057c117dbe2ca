"""A source of photos: their names, and the bytes of each by its scan row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from ..defaults import MAX_BYTES
from ..errors import SourceError
from ..records import Status
from .reader import ReadError, read_file

Self = TypeVar("Self", bound="Source")


class Source(Protocol):
    """Encoded photos, by scan row. `read` is called from several threads at once."""

    @property
    def root(self) -> bytes:
        """Where the names begin: for files the absolute folder that all of them are below."""

    @property
    def names(self) -> Sequence[bytes]:
        """The photos by scan row, as the embedding file will name them."""

    def with_names(self: Self, names: Sequence[bytes]) -> Self:
        """The same source with the rows of an earlier scan, which a resumed run keeps to."""

    def read(self, row: int) -> bytes:
        """The encoded photo of a scan row.

        Raises:
            ReadError: this photo cannot be read, or is larger than allowed. It becomes an outcome.
            SourceError: no photo can be read any more. It ends the run.
        """


@dataclass(frozen=True, slots=True)
class FileSource:
    """Photos in files: what a scan of folders, files and list files gives.

    Attributes:
        root: absolute folder that all files are below.
        names: paths relative to `root`, sorted bytewise; a list file may name one path several times.
        max_bytes: larger files are not read.
    """

    root: bytes
    names: Sequence[bytes]
    max_bytes: int = MAX_BYTES

    def with_names(self, names: Sequence[bytes]) -> FileSource:
        """See `Source`."""
        return replace(self, names=names)

    def read(self, row: int) -> bytes:
        """See `Source`. Files become unreadable one by one; a disk that goes away ends the run."""
        try:
            return read_file(os.path.join(self.root, self.names[row]), self.max_bytes)
        except ReadError:
            if not os.path.isdir(self.root):
                raise SourceError(
                    f"the folder of the photographs, {os.fsdecode(self.root)}, went away during the run. "
                    f"What is complete stays: bring it back and run the same command again"
                ) from None
            raise


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Photos that a caller has in memory.

    Attributes:
        photos: encoded photos, or pixels, (H, W, 3) uint8, RGB.
        names: of the photos; where none are given, their numbers.
        root: of the names.
    """

    photos: Sequence[Any]
    names: Sequence[bytes] = ()
    root: bytes = b"/"

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", [b"%d" % number for number in range(len(self.photos))])

    def with_names(self, names: Sequence[bytes]) -> MemorySource:
        """See `Source`."""
        return replace(self, names=names)

    def read(self, row: int) -> bytes:
        """See `Source`. Pixels are encoded without loss."""
        photo = self.photos[row]
        return photo if isinstance(photo, bytes) else _encode(photo)


@dataclass(frozen=True, slots=True)
class PhotoList(MemorySource):
    """Photos of a caller, in files or in memory: a path may take the place of each.

    Attributes:
        max_bytes: larger files are not read, and larger encoded photos are refused.
    """

    max_bytes: int = MAX_BYTES

    def with_names(self, names: Sequence[bytes]) -> PhotoList:
        """See `Source`."""
        return replace(self, names=names)

    def read(self, row: int) -> bytes:
        """See `Source`."""
        photo = self.photos[row]
        if isinstance(photo, (str, os.PathLike)):
            return read_file(os.fsencode(photo), self.max_bytes)
        if isinstance(photo, bytes) and len(photo) > self.max_bytes:
            raise ReadError(Status.UNSUPPORTED, f"{len(photo)} bytes, over the limit of {self.max_bytes}")
        return MemorySource.read(self, row)


def _encode(pixels: Any) -> bytes:
    """Pixels to a BMP file, which holds them unchanged and takes no time to write or read."""
    import cv2
    import numpy as np

    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ReadError(Status.UNSUPPORTED, f"not an image: expected bytes, or an array (H, W, 3) uint8, got {got}")
    if not pixels.size:
        raise ReadError(Status.UNSUPPORTED, f"an image without pixels: got an array {pixels.shape}")
    return cv2.imencode(".bmp", pixels[..., ::-1])[1].tobytes()
