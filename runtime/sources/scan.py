"""Scan folders, single files and list files into one ordered list of photos.

The order is set here: bytewise by the path below the common root. No later stage reorders.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator

from ..defaults import MAX_BYTES
from ..errors import ConfigError, SourceError
from .reader import ReadError, read_file
from .source import FileSource, Source

Inputs = tuple[str, ...] | Source
EXTENSIONS = frozenset({b".jpg", b".jpeg", b".png", b".bmp", b".webp", b".tif", b".tiff"})


def scan(inputs: Iterable[str], *, limit: int | None = None, max_bytes: int = MAX_BYTES) -> FileSource:
    """List every photo of `inputs`, in the order of the rows.

    Args:
        inputs: folders (searched recursively for EXTENSIONS in any case; links are followed, even in loops), single
            files (with any name) and `@list.txt` (one path per line, relative to the list's folder).
        limit: maximum number of photos, in scan order; None for all.
        max_bytes: larger files are not read.
    Raises:
        SourceError: an input does not exist or cannot be read, or there are no photos.
        ConfigError: there are no inputs, or the limit is below 1.
    """
    names = [os.fsencode(name) for name in inputs]
    if not names:
        raise ConfigError("no photos were given; expected: folders, files or @list.txt")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit is {limit}; expected: 1 or more")
    listed = [path for name in names if name.startswith(b"@") for path in read_list(name[1:])]
    folders = [name for name in names if not name.startswith(b"@")]
    paths = [path for name in folders for path in _expand(name)]
    if len(folders) > 1:
        paths = list(set(paths))  # folders may overlap; only a list may name a photo twice
    paths += listed
    if not paths:
        kinds = ", ".join(sorted(e.decode()[1:] for e in EXTENSIONS))
        raise SourceError(
            f"no photos in {', '.join(os.fsdecode(n) for n in names)}; expected: {kinds} "
            f"(any case) in the folder or below it. Check the path, or name files with @list.txt"
        )
    paths.sort()
    single_folder = len(names) == 1 and not names[0].startswith(b"@") and os.path.isdir(names[0])
    root = os.path.abspath(names[0]) if single_folder else _common_folder(paths[0], paths[-1])
    if not os.path.isdir(root):
        raise SourceError(
            f"the common folder of all listed photos, {os.fsdecode(root)}, does not exist. "
            f"Check the list, or whether a disk must be mounted"
        )
    cut = len(root) + (not root.endswith(b"/"))
    return FileSource(root, [path[cut:] for path in paths[:limit]], max_bytes)


def digest_inputs(inputs: Inputs) -> str:
    """A digest of the photos that are named: folders and files by path, lists by content, a source by its names.

    The content of a folder does not count: a run is resumed even if photos appeared in it.

    Raises:
        SourceError: a list cannot be read.
    """
    digest = hashlib.sha256()
    if isinstance(inputs, tuple):
        for name in map(os.fsencode, inputs):
            listed = read_list(name[1:]) if name.startswith(b"@") else [os.path.join(os.getcwdb(), name)]
            digest.update(b"\0".join([*listed, b"", b""]))
    else:
        for name in (inputs.root, *inputs.names):
            digest.update(name + b"\0")
    return digest.hexdigest()


def _common_folder(first: bytes, last: bytes) -> bytes:
    """The folder above all paths of a sorted list: the first and last path determine it."""
    return os.path.commonpath([os.path.dirname(first), os.path.dirname(last)])


def _expand(name: bytes) -> Iterator[bytes]:
    """Absolute paths of an input, unordered."""
    if os.path.isdir(name):
        yield from _walk(os.path.abspath(name))
    elif os.path.lexists(name):
        yield os.path.abspath(name)
    else:
        raise SourceError(
            f"{os.fsdecode(name)} does not exist; expected: a folder, a photo or @list.txt. "
            f"The working folder is {os.getcwd()}"
        )


def read_list(path: bytes) -> list[bytes]:
    """Read a list file: one path per line, blank lines ignored, relative to the list's folder. Returns absolute paths.

    Raises:
        SourceError: the list cannot be read.
    """
    try:
        lines = read_file(path, sys.maxsize).removeprefix(codecs.BOM_UTF8).splitlines()
    except ReadError as err:
        raise SourceError(
            f"the list file {os.fsdecode(path)} cannot be read: {err.detail}; expected: a text file, one path per line"
        ) from err
    for number, line in enumerate(lines, 1):
        if b"\0" in line:
            raise SourceError(
                f"line {number} of the list file {os.fsdecode(path)} contains a NUL byte; expected: UTF-8 text, one "
                f"path per line. Convert a UTF-16 file with: iconv -f UTF-16 -t UTF-8"
            )
    base = os.path.dirname(os.path.abspath(path))
    join, normal = os.path.join, os.path.normpath
    return [normal(join(base, line)) for line in lines if line.strip()]


def _walk(top: bytes) -> Iterator[bytes]:
    """Yield the photos below `top`. Each real folder is entered once, so links cannot loop or multiply photos.

    Real folders come before links to folders, so that the name of a photo does not depend on the order of links. A
    folder that cannot be listed is yielded itself: it becomes an `unreadable` row, so that its photos are not lost
    silently.
    """
    visited: set[tuple[int, int]] = set()
    folders: list[bytes] = [top]
    links: list[bytes] = []
    while folders or links:
        if not folders:
            links.sort(reverse=True)
        folder = folders.pop() if folders else links.pop()
        try:
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in visited:
                continue
            visited.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                        yield entry.path
                    elif entry.is_symlink() and _is_dir(entry):
                        links.append(entry.path)
        except OSError:
            if folder == top:
                raise SourceError(
                    f"the folder {os.fsdecode(top)} cannot be listed; expected: read permission"
                ) from None
            yield folder


def _is_dir(entry: os.DirEntry[bytes]) -> bool:
    """Whether a link points to a folder; False for a broken link or a loop."""
    try:
        return entry.is_dir()
    except OSError:
        return False
