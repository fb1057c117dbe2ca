"""Scan folders, single files and list files into one ordered list of photos.

The order is set here: bytewise by the path below the common root. No later stage reorders.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ..defaults import MAX_BYTES
from ..errors import AccessError, ConfigError, MachineError, SourceError
from ..retries import retried
from .disks import Disks
from .kinds import (
    EXTENSIONS,
    FIRST_LEFT_OUT,
    Patterns,
    describe_file,
    is_photo,
    is_photo_name,
    kind_of,
    passed_over_text,
)
from .lists import absolute, read_list
from .reader import is_folder, read_error
from .source import FileSource, Source

Inputs = tuple[str, ...] | Source

_LOOKED_AT = 1000  # photos of a list that are looked at for links: a look takes a request of a network disk


def scan(
    inputs: Iterable[str],
    *,
    limit: int | None = None,
    max_bytes: int = MAX_BYTES,
    patterns: Patterns | None = None,
    within: Sequence[str] = (),
) -> FileSource:
    """List every photo of `inputs`, in the order of the rows.

    Args:
        inputs: folders (searched recursively; links are followed, even in loops), single files (with any name) and
            `@list.txt` (one path per line, relative to the list's folder). In a folder, a file is a photo by its ending
            (EXTENSIONS, in any case), or else by its first bytes.
        limit: maximum number of photos, in scan order; None for all.
        max_bytes: larger files are not read.
        patterns: names to take and to leave out; None for the usual ones, see `kinds.LEFT_OUT`.
        within: folders that no input and no link may lead out of; none for no such limit.
    Raises:
        AccessError: an input or a link leads out of `within`.
        SourceError: an input does not exist or cannot be read, or there are no photos.
        MachineError: a folder cannot be listed because of its disk.
        ConfigError: there are no inputs, or the limit is below 1.
    """
    names = [os.fsencode(name) for name in inputs]
    if not names:
        raise ConfigError("no photos were given; expected: folders, files or @list.txt")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit is {limit}; expected: 1 or more")
    walk = _Walk(patterns or Patterns())
    folders = [name for name in names if not name.startswith(b"@")]
    paths = [path for name in folders for path in _expand(name, walk)]
    if len(folders) > 1:
        paths = list(set(paths))  # folders may overlap; only a list may name a photo twice
    listed = [path for name in names if name.startswith(b"@") for path in read_list(name[1:])]
    if within:
        _refuse_outside([*folders, *listed, *walk.links, *walk.linked_folders], within)
    paths += [path for path in listed if walk.takes(path)]
    passed_over = tuple(sorted(walk.passed_over.items()))
    if not paths:
        kinds = ", ".join(sorted(e.decode()[1:] for e in EXTENSIONS))
        over = passed_over_text(passed_over)
        raise SourceError(
            f"no photos in {', '.join(os.fsdecode(n) for n in names)}; expected: {kinds} (any case) in the folder or "
            f"below it{f' ({over})' if over else ''}. Check the path, or name files with @list.txt"
        )
    if len(folders) == len(names) and not any(is_photo_name(path) or os.path.isdir(path) for path in paths):
        _refuse_others(paths)
    paths.sort()
    single_folder = len(names) == 1 and not names[0].startswith(b"@") and is_folder(names[0])
    root = absolute(names[0]) if single_folder else _common_folder(paths[0], paths[-1])
    if not is_folder(root):
        raise SourceError(
            f"the common folder of all listed photos, {os.fsdecode(root)}, does not exist. "
            f"Check the list, or whether a disk must be mounted"
        )
    if paths[0] == root:
        raise SourceError(
            f"a list names {os.fsdecode(root)} as a photo; expected: one photo per line. Delete that line"
        )
    cut = len(root) + (not root.endswith(b"/"))
    relative = [path[cut:] for path in paths[:limit]]
    disks = Disks(root, relative, walked=not listed, links=[*walk.links, *_sample(listed)])
    return FileSource(root, relative, max_bytes, passed_over, walk.patterns, disks)


def _refuse_outside(paths: Iterable[bytes], within: Sequence[str]) -> None:
    """Refuse a path that leads out of some folders. The error does not say where to: a client may not know that."""
    tops = [os.path.realpath(os.fsencode(folder)) for folder in within]
    for path in paths:
        real = os.path.realpath(path)
        if not any(real == top or real.startswith(os.path.join(top, b"")) for top in tops):
            raise AccessError(f"{os.fsdecode(path)} leads elsewhere; expected: photos below {', '.join(within)}")


def source_of_paths(root: bytes, names: Sequence[bytes], max_bytes: int, exclude: Sequence[str] = ()) -> FileSource:
    """The photos of an earlier scan, of which some may be missing by now.

    Args:
        root: absolute folder above them.
        names: their paths below it, sorted bytewise.
        max_bytes: larger files are not read.
        exclude: patterns of photos that are not read, as of --exclude.
    Raises:
        SourceError: there is no such folder.
        MachineError: a folder cannot be looked at because of its disk.
    """
    if not retried(lambda: is_folder(root)):
        raise SourceError(
            f"the folder of the photos, {os.fsdecode(root)}, does not exist; expected: the photos where they were. "
            f"Mount its disk, or restore it"
        )
    disks = Disks(root, names, walked=False, links=(os.path.join(root, name) for name in _sample(names)))
    return FileSource(root, names, max_bytes, patterns=Patterns(exclude=tuple(exclude)), disks=disks)


def _sample(paths: Sequence[bytes]) -> Sequence[bytes]:
    """The paths of a list that are looked at for links."""
    return paths[:: max(1, len(paths) // _LOOKED_AT)]


def _refuse_others(paths: list[bytes]) -> None:
    """Refuse files that are no photos, by ending or content, where nothing else was named."""
    if not any(is_photo(path) for path in paths):
        raise SourceError(
            f"{os.fsdecode(paths[0])} is {describe_file(paths[0])}; expected: a photo, a folder or @list.txt. Unpack "
            f"an archive, convert a picture, or write @ before the name of a list"
        )


def digest_inputs(inputs: Inputs, patterns: Patterns | None = None) -> str:
    """A digest of the photos that are named: folders and files by path, lists by content, a source by its names.

    The content of a folder does not count: a run is resumed even if photos appeared in it.

    Raises:
        SourceError: a list cannot be read.
    """
    chosen = patterns or Patterns()
    digest = hashlib.sha256(repr((chosen.include, chosen.exclude)).encode("utf-8", "surrogateescape"))
    if isinstance(inputs, tuple):
        for name in map(os.fsencode, inputs):
            listed = read_list(name[1:]) if name.startswith(b"@") else [absolute(name)]
            digest.update(b"\0".join([*listed, b"", b""]))
    else:
        for name in (inputs.root, *inputs.names):
            digest.update(name + b"\0")
    return digest.hexdigest()


def _common_folder(first: bytes, last: bytes) -> bytes:
    """The folder above all paths of a sorted list: the first and last path determine it."""
    return os.path.commonpath([os.path.dirname(first), os.path.dirname(last)])


def _expand(name: bytes, walk: _Walk) -> Iterator[bytes]:
    """Absolute paths of an input, unordered."""
    if retried(lambda: is_folder(name)):
        yield from walk.photos(absolute(name))
    elif os.path.lexists(name):
        path = absolute(name)
        if walk.takes(path):
            if os.path.islink(path):
                walk.links.append(path)
            yield path
    else:
        raise SourceError(
            f"{os.fsdecode(name)} does not exist; expected: a folder, a photo or @list.txt. "
            f"The working folder is {os.getcwd()}"
        )


class _Walk:
    """Searches folders for photos, and counts what it passes over.

    Attributes:
        patterns: names to take and to leave out.
        passed_over: number of files by ending, and of files and folders by the pattern that left them out.
        links: photos that are links.
        linked_folders: folders that are links.
    """

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns
        self.links: list[bytes] = []
        self.linked_folders: list[bytes] = []
        self.passed_over: Counter[str] = Counter()

    def takes(self, path: bytes) -> bool:
        """Whether the patterns of the user take a file that is named by its path."""
        pattern = self.patterns.excluding(os.path.basename(path), path, usual=False)
        if not pattern and self.patterns.including(path):
            return True
        self.passed_over[pattern or "not included"] += 1
        return False

    def _leaves_out(self, entry: os.DirEntry[bytes], top: bytes) -> bool:
        """Whether the patterns leave out an entry of a folder below `top`; if so, it is counted."""
        pattern = self.patterns.excluding(entry.name, entry.path, usual=True)
        if not pattern and not entry.is_dir() and not self.patterns.including(entry.path[len(top) + 1 :]):
            pattern = "not included"
        if pattern:
            self.passed_over[pattern] += 1
        return bool(pattern)

    def photos(self, top: bytes) -> Iterator[bytes]:
        """Yield the photos below a folder. Each real folder is entered once, so links cannot loop or multiply photos.

        Real folders come before links to folders, so that the name of a photo does not depend on the order of links. A
        folder that cannot be listed is yielded itself: it becomes an `unreadable` row, so that its photos are not lost
        silently.
        """
        all_names = not self.patterns.usual_only  # else few names have to be compared with patterns
        visited: set[tuple[int, int]] = set()
        folders, links = [top], list[bytes]()
        while folders or links:
            if not folders:
                links.sort(reverse=True)
            folder = folders.pop() if folders else links.pop()
            try:
                info, listing = retried(partial(_open_folder, folder))
                with listing:
                    if (info.st_dev, info.st_ino) in visited:
                        continue
                    visited.add((info.st_dev, info.st_ino))
                    for entry in listing:
                        name = entry.name
                        if (all_names or name[:1] in FIRST_LEFT_OUT) and self._leaves_out(entry, top):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        elif name[name.rfind(b".") :].lower() in EXTENSIONS:  # `is_photo_name`, millions of times
                            if entry.is_symlink():
                                self.links.append(entry.path)
                            yield entry.path
                        elif entry.is_symlink() and _is_dir(entry):
                            links.append(entry.path)
                            self.linked_folders.append(entry.path)
                        elif is_photo(entry.path):
                            if entry.is_symlink():
                                self.links.append(entry.path)
                            yield entry.path
                        else:
                            self.passed_over[kind_of(name)] += 1
            except MachineError:
                raise
            except OSError as err:
                _raise_machine_fault(err, folder)
                if folder == top:
                    raise SourceError(
                        f"the folder {os.fsdecode(top)} cannot be listed; expected: read permission"
                    ) from None
                yield folder


def _open_folder(folder: bytes) -> tuple[os.stat_result, Any]:
    """The facts and the listing of a folder."""
    try:
        return os.stat(folder), os.scandir(folder)
    except OSError as err:
        _raise_machine_fault(err, folder)
        raise


def _is_dir(entry: os.DirEntry[bytes]) -> bool:
    """Whether a link points to a folder; False for a broken link or a loop."""
    try:
        return entry.is_dir()
    except OSError as err:
        _raise_machine_fault(err, entry.path)
        return False


def _raise_machine_fault(err: OSError, path: bytes) -> None:
    """Raise if the machine is the reason: a folder that is passed over would lose its photos without a word."""
    error = read_error(err, path)
    if isinstance(error, MachineError):
        raise error from err
