"""Sources of photos: their names, and the bytes of each photo by its scan row."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from ..defaults import MAX_BYTES
from ..errors import MachineError, SourceError
from ..records import Status
from .disks import Disks
from .kinds import Patterns
from .reader import ReadError, is_folder, read_file, read_file_and_device

Self = TypeVar("Self", bound="Source")
InMemory = TypeVar("InMemory", bound="MemorySource")


class Source(Protocol):
    """Encoded photos, by scan row. `read` is called from several threads at once.

    With several devices, each process gets a copy by pickle.
    """

    @property
    def root(self) -> bytes:
        """An absolute path that the names are below, and that stays the same: for files the folder above all of them.

        It is part of the settings of a run, so that a resumed run must have the same.
        """

    @property
    def names(self) -> Sequence[bytes]:
        """The names of the photos by scan row, as stored in the embedding file: relative, sorted bytewise, each once.

        They have no empty part and no `.` or `..`, so that `remove` can name each photo and each folder.
        """

    def with_names(self: Self, names: Sequence[bytes]) -> Self:
        """The same source with other rows: those of an earlier scan, or none to save memory while they are not needed.

        Every photo stays within reach of a later call, by its name.
        """

    def read(self, row: int) -> bytes:
        """Read the encoded photo of a scan row.

        Raises:
            ReadError: this photo cannot be read, or is too large. It becomes an outcome.
            SourceError: no photo can be read any more. The run ends.
            MachineError: the machine cannot read this photo now. The same call may succeed later.
        """


@dataclass(frozen=True, slots=True)
class FileSource:
    """Photos in files, from a scan of folders, files and list files.

    Attributes:
        root: absolute folder above all files.
        names: paths relative to `root`, sorted bytewise; a list file may name one path several times.
        max_bytes: larger files are not read.
        passed_over: kinds of files and folders that the scan left out, with their numbers.
        patterns: names that the scan left out; those of an earlier scan are not read if --exclude names them now.
        disks: what the photos lie on; None if nobody looked.
    """

    root: bytes
    names: Sequence[bytes]
    max_bytes: int = MAX_BYTES
    passed_over: tuple[tuple[str, int], ...] = ()
    patterns: Patterns = field(default_factory=Patterns, compare=False)
    disks: Disks | None = field(default=None, compare=False)

    def with_names(self, names: Sequence[bytes]) -> FileSource:
        """See `Source`."""
        return replace(self, names=names)

    def check_same_disks(self, before: Sequence[bytes]) -> None:
        """Check that folders that were disks of their own in an earlier scan still are, except those left out.

        Raises:
            SourceError: one is not.
        """
        if self.disks is not None:
            self.disks.check_same([folder for folder in before if not self.patterns.excluding_path(folder)])

    def read(self, row: int) -> bytes:
        """See `Source`. A single unreadable file becomes an outcome; a disk that disappears ends the run."""
        name = self.names[row]
        path = os.path.join(self.root, name)
        pattern = self.patterns.exclude and self.patterns.excluding_path(path)
        if pattern:
            raise ReadError(Status.UNREADABLE, f"left out by --exclude {pattern}")
        try:
            data, device = read_file_and_device(path, self.max_bytes)
        except MachineError as err:
            raise MachineError(
                f"{err.message}. To go on without this photo, add --exclude {shlex.quote(_as_pattern(name))}"
            ) from err
        except ReadError as err:
            if isinstance(err.__cause__, OSError):
                self._check_disks(path, err)
            raise
        if self.disks is not None:
            self.disks.read(path, device)
        return data

    def _check_disks(self, path: bytes, error: ReadError) -> None:
        """End the run if a photo cannot be opened because its disk went away."""
        if not is_folder(self.root):
            raise SourceError(
                f"the folder of the photos, {os.fsdecode(self.root)}, disappeared during the run. "
                f"Finished photos are kept: restore it and run the same command again to resume"
            ) from None
        if self.disks is not None:
            self.disks.check(self.root, self.names, path, error)


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Photos in memory.

    Attributes:
        photos: encoded photos, or pixels, (H, W, 3) uint8, RGB.
        names: names of the photos; by default their numbers.
        root: root of the names.
        by_name: all photos of the first source, of which this one has some; None in the first.
    """

    photos: Sequence[Any]
    names: Sequence[bytes] = ()
    root: bytes = b"/"
    by_name: Mapping[bytes, Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.names and self.by_name is None:
            digits = len(str(max(0, len(self.photos) - 1)))  # with leading zeros, so that they are sorted
            object.__setattr__(self, "names", [b"%0*d" % (digits, number) for number in range(len(self.photos))])

    def with_names(self: InMemory, names: Sequence[bytes]) -> InMemory:
        """See `Source`. Each name keeps its photo; a name without a photo is unreadable."""
        photos = dict(zip(self.names, self.photos, strict=True)) if self.by_name is None else self.by_name
        return replace(self, names=names, photos=[photos.get(name) for name in names], by_name=photos)

    def read(self, row: int) -> bytes:
        """See `Source`. Pixels are encoded without loss."""
        photo = self.photos[row]
        if photo is None:
            raise ReadError(Status.UNREADABLE, "the source has no photo of this name")
        return photo if isinstance(photo, bytes) else _encode(photo)


@dataclass(frozen=True, slots=True)
class PhotoList(MemorySource):
    """Photos in files or in memory: each may be a path, encoded bytes or pixels.

    Attributes:
        max_bytes: larger files and larger encoded photos are rejected.
    """

    max_bytes: int = MAX_BYTES

    def read(self, row: int) -> bytes:
        """See `Source`."""
        photo = self.photos[row]
        if isinstance(photo, (str, os.PathLike)):
            return read_file(os.fsencode(photo), self.max_bytes)
        if isinstance(photo, bytes) and len(photo) > self.max_bytes:
            raise ReadError(Status.UNSUPPORTED, f"{len(photo)} bytes, over the limit of {self.max_bytes}")
        return MemorySource.read(self, row)


def check_names(source: Source) -> None:
    """Refuse a source whose names an embedding file cannot hold; see `Source.names`.

    Raises:
        SourceError: there are no names, or one is wrong.
    """
    names = source.names
    if not len(names):
        raise SourceError("the source has no photos; expected: at least one")
    if not isinstance(source.root, bytes) or not source.root.startswith(b"/"):
        raise SourceError(f"the root of the source is {source.root!r:.200}; expected: an absolute path, as bytes")
    before = b""
    for name in names:
        if not isinstance(name, bytes):
            raise SourceError(f"the name {name!r:.200} of a photo is a {type(name).__name__}; expected: bytes")
        if b"\0" in name or not {b"", b".", b".."}.isdisjoint(name.split(b"/")):
            raise SourceError(
                f"{name!r:.200} is the name of a photo; expected: a relative path without empty parts, `.` and `..`, "
                f"such as b'person/1.jpg'"
            )
        if name <= before:
            raise SourceError(f"{name!r:.200} follows {before!r:.200}; expected: names sorted bytewise, each once")
        before = name


def _as_pattern(name: bytes) -> str:
    """The pattern that matches one path below the root."""
    return "/" + re.sub(r"([*?[])", r"[\1]", os.fsdecode(name))


def _encode(pixels: Any) -> bytes:
    """Encode pixels as a BMP file, which is lossless and fast to write and read."""
    import cv2
    import numpy as np

    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ReadError(Status.UNSUPPORTED, f"not an image: expected bytes, or an array (H, W, 3) uint8, got {got}")
    if not pixels.size:
        raise ReadError(Status.UNSUPPORTED, f"an image without pixels: got an array {pixels.shape}")
    return cv2.imencode(".bmp", pixels[..., ::-1])[1].tobytes()
