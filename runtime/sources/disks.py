"""Tell a photo that is missing from a disk that went away.

A mount that goes away leaves its empty folder, and every photo below it becomes "no such file": millions of wrong
outcomes within seconds. So the scan notes which folders exist and what they lie on, and each photo that cannot be
opened is a reason to look there. A photo may be a link: then the folder that it leads to counts too.
"""

from __future__ import annotations

import os
import re
import stat
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..retries import retried
from .reader import ReadError, is_folder, is_machine_fault, read_error

_MOUNTS = "/proc/self/mountinfo"
_SAMPLE = 1000  # photos that are tried when the last good one cannot be opened any more
_FEW = 0.05  # with a smaller share of these, the disk is the reason; as for lists
_TOO_FEW = 20  # of so few photos, all may be missing
_RESUME = "Finished photos are kept, and no photo is recorded as unreadable for it"


class Disks:
    """What the photos of a scan lie on. Several threads may use it at once.

    Attributes:
        folders: absolute folders that lie on a disk other than that of the folder above, with the device and inode;
            also those to which photos lead that are links.
    """

    def __init__(self, root: bytes, names: Sequence[bytes], *, walked: bool, links: Iterable[bytes] = ()) -> None:
        """Look at the folders now.

        Args:
            root: absolute folder above all photos.
            names: their sorted paths below it.
            walked: whether all photos were seen in their folders; a list may name what never existed.
            links: absolute paths of the photos that are links, among others.
        Raises:
            MachineError: a folder cannot be looked at because of its disk.
        """
        self._good = b""  # the photo that was read last
        self._walked = walked
        self.folders: dict[bytes, tuple[int, int]] = {}
        self._root_device = os.stat(root).st_dev
        self._existing = _Folders(root, names, self._root_device, walked=walked, links=links)
        self._devices = {self._root_device, *self._existing.devices()}
        for folder in {*_mounts_below(root, names), *self._existing.crossings}:
            self._note(folder)

    def check_same(self, before: Sequence[bytes]) -> None:
        """Check that the disks of an earlier scan are there.

        Raises:
            SourceError: a folder is no disk of its own any more.
        """
        for folder in before:
            if folder not in self.folders and not os.path.ismount(folder):
                raise SourceError(
                    f"{os.fsdecode(folder)} was a disk of its own when the run began, and is not now; expected: the "
                    f"same disks. {_RESUME}. Mount it and run the same command again, or leave its photos out with "
                    f"--exclude {os.fsdecode(folder)!r}"
                )

    def read(self, path: bytes, device: int) -> None:
        """Note a photo that could be read, and the device of its file."""
        if not self._walked:
            folder = os.path.dirname(path)
            if folder != os.path.dirname(self._good):  # threads read from several folders in turn
                self._existing.note_read(folder)
        self._good = path
        if device not in self._devices:  # behind a link that the scan did not see, such as one of a list
            self._devices.add(device)
            with suppress(OSError):
                self._note(_mount_above(os.path.dirname(os.path.realpath(path))))

    def _note(self, folder: bytes) -> None:
        with suppress(OSError):
            info = os.stat(folder)
            self.folders[folder] = info.st_dev, info.st_ino

    def check(self, root: bytes, names: Sequence[bytes], path: bytes, error: ReadError) -> None:
        """Look whether a photo that cannot be opened says something about its disk.

        Args:
            root, names: the photos of the run.
            path: the photo, absolute.
            error: why it cannot be opened.
        Raises:
            SourceError: a disk or folder went away, or hardly any photo can be opened any more.
            MachineError: the disk does not answer.
        """
        real = os.path.realpath(path)
        for place in (path, real) if os.path.islink(path) else (path,):
            folder = os.path.dirname(place)
            changed = self._changed_folder(root, place)
            if changed:
                raise SourceError(
                    f"{os.fsdecode(changed)} does not lie on the disk any more on which it lay when the run began. "
                    f"{_RESUME}. Mount the disk and run the same command again to resume"
                )
            if self._existing.device(folder) is None:
                continue
            if not is_folder(folder):
                raise SourceError(
                    f"the folder {os.fsdecode(folder)} disappeared during the run. {_RESUME}. Run the same command "
                    f"again: it resumes with the photos of that folder if it is back, and else without them"
                )
            if self._had_several(root, names, path, folder) and _is_empty(folder):
                raise SourceError(
                    f"all photos of the folder {os.fsdecode(folder)} disappeared during the run: it is empty. "
                    f"{_RESUME}. Mount its disk if it has one, then run the same command again: it resumes with the "
                    f"photos of that folder if they are back, and else without them"
                )
        if not self._others_open(root, names):
            raise SourceError(
                f"{os.fsdecode(path)} cannot be read ({error.detail}), and neither can the others of {len(names):,} "
                f"photos below {os.fsdecode(root)}. {_RESUME}. Check the disk, its mount and the permissions, then run "
                f"the same command again to resume"
            )

    def _changed_folder(self, root: bytes, path: bytes) -> bytes:
        """A folder above a photo that lies on another device than it did; empty for none."""
        for folder in _folders_above(path):
            if folder in self.folders:
                try:
                    info = os.stat(folder)
                except OSError:
                    return folder
                if (info.st_dev, info.st_ino) != self.folders[folder]:
                    return folder
        try:
            if os.stat(root).st_dev != self._root_device:
                return root
        except OSError:
            return root
        folder = os.path.dirname(path)
        device, device_now = self._existing.device(folder), _device_of(folder)
        return b"" if device is None or device_now in (device, None) else folder

    def _had_several(self, root: bytes, names: Sequence[bytes], path: bytes, folder: bytes) -> bool:
        """Whether a folder had other photos too when the run began. A list may name what never existed."""
        if folder != os.path.dirname(path):
            return True  # links lead to it: only such with several are known
        if not self._walked and not self._existing.was_read(folder):
            return False
        at = bisect_left(names, os.path.relpath(path, root))
        beside = [os.path.join(root, names[row]) for row in (at - 1, at + 1) if 0 <= row < len(names)]
        return any(other.startswith(os.path.join(folder, b"")) for other in beside)

    def _others_open(self, root: bytes, names: Sequence[bytes]) -> bool:
        """Whether the photo that was read last, or else more than a few of a sample, can still be opened."""
        good = self._good
        if good and _opens(good):
            return True
        rows = range(0, len(names), max(1, len(names) // _SAMPLE))
        if not good and len(rows) < _TOO_FEW:
            return True
        opened = 0
        for row in rows:
            opened += _opens(os.path.join(root, names[row]))
            if opened > _FEW * len(rows):
                return True
        return False


class _Folders:
    """The folders above photos that exist, each with its device: 17 bytes a folder, since there may be millions.

    Attributes:
        crossings: absolute folders, also behind links, that lie on another device than the folder above.
    """

    def __init__(
        self, root: bytes, names: Iterable[bytes], root_device: int, *, walked: bool, links: Iterable[bytes]
    ) -> None:
        """Look at each folder once. The names are sorted, so that all names below a folder follow each other."""
        self.crossings: list[bytes] = []
        keys, devices = array("Q"), array("Q")
        above: list[tuple[bytes, int | None]] = [(b"", root_device)]  # down to the folder in hand; None: missing
        for name in names:
            folder = name[: name.rfind(b"/") + 1]
            while not folder.startswith(above[-1][0]):
                above.pop()
            while folder != above[-1][0]:
                upper, upper_device = above[-1]
                lower = folder[: folder.index(b"/", len(upper)) + 1]
                path = os.path.join(root, lower[:-1])
                device = None if upper_device is None else retried(partial(_device_of, path))
                if device is None and walked:
                    device = upper_device  # it disappeared after the walk had seen it
                above.append((lower, device))
                if device is not None:
                    keys.append(_key(path))
                    devices.append(device)
                    if device != upper_device:
                        self.crossings.append(path)
        self._add_targets(links, root_device, keys, devices)
        order = np.argsort(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.int64)
        self._keys: NDArray[np.uint64] = np.array(keys, np.uint64)[order]
        self._devices: NDArray[np.uint64] = np.array(devices, np.uint64)[order]
        self._read: NDArray[np.bool_] = np.zeros(len(order), np.bool_)

    def _add_targets(self, links: Iterable[bytes], root_device: int, keys: array[int], devices: array[int]) -> None:
        """Add the folders to which several links lead, and the mount points of their disks."""
        mounted = {root_device}
        for folder, photos in Counter(map(_folder_of_target, links)).items():
            device = retried(partial(_device_of, folder)) if folder else None
            if device is None:
                continue
            if device not in mounted:
                mounted.add(device)
                with suppress(OSError):
                    self.crossings.append(_mount_above(os.path.realpath(folder)))
            if photos > 1:
                keys.append(_key(os.path.realpath(folder)))
                devices.append(device)

    def devices(self) -> list[int]:
        """The devices of all folders, each once."""
        return [int(device) for device in np.unique(self._devices)]

    def device(self, folder: bytes) -> int | None:
        """The device of an absolute folder; None if it did not exist, or has no photos."""
        at = self._position(folder)
        return None if at is None else int(self._devices[at])

    def note_read(self, folder: bytes) -> None:
        """Note that a photo of an absolute folder could be read."""
        at = self._position(folder)
        if at is not None:
            self._read[at] = True

    def was_read(self, folder: bytes) -> bool:
        """Whether a photo of an absolute folder could be read."""
        at = self._position(folder)
        return at is not None and bool(self._read[at])

    def _position(self, folder: bytes) -> int | None:
        key = np.uint64(_key(folder))
        at = int(np.searchsorted(self._keys, key))
        return at if at < len(self._keys) and self._keys[at] == key else None


def _key(folder: bytes) -> int:
    """A number for a path, the same in every process."""
    return int.from_bytes(blake2b(folder, digest_size=8).digest(), "little")


def _folders_above(path: bytes) -> Iterator[bytes]:
    """Every folder above an absolute path, the highest first."""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at] or b"/"
        at = path.find(b"/", at + 1)


def _device_of(folder: bytes) -> int | None:
    """The device of a folder, behind links too; None if it is missing or no folder, or this user may not look at it.

    Raises:
        MachineError: its disk does not answer.
    """
    try:
        info = os.stat(folder)
        return info.st_dev if stat.S_ISDIR(info.st_mode) else None
    except OSError as err:
        if is_machine_fault(err):
            raise read_error(err, folder) from err
        return None


def _folder_of_target(link: bytes) -> bytes:
    """The folder of the file to which a photo leads by links, if it is one; else empty. The folder may have links."""
    path = link
    for _ in range(40):  # as the kernel
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            break
    return b"" if path is link else os.path.dirname(path)


def _mount_above(folder: bytes) -> bytes:
    """The highest folder at or above a real one that lies on the same device.

    Raises:
        OSError: one cannot be looked at.
    """
    device = os.stat(folder).st_dev
    while folder != b"/" and os.stat(os.path.dirname(folder)).st_dev == device:
        folder = os.path.dirname(folder)
    return folder


def _is_empty(folder: bytes) -> bool:
    """Whether a folder has no entry; False if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _opens(path: bytes) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _mounts_below(root: bytes, names: Sequence[bytes]) -> list[bytes]:
    """Mount points at or below a folder that hold photos, as paths that begin with the folder."""
    try:
        with open(_MOUNTS, "rb") as file:
            lines = file.read().splitlines()
    except OSError:  # no /proc: the devices of the walk must do
        return []
    real, mounts = os.path.realpath(root), []
    for line in lines:
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split()[4])
        if point == real:
            mounts.append(root)
        elif point.startswith(os.path.join(real, b"")):
            name = os.path.relpath(point, real)
            start = bisect_left(names, name + b"/")
            if start < len(names) and names[start].startswith(name + b"/"):
                mounts.append(os.path.join(root, name))
    return mounts
