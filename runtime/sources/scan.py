"""Folders, single files and list files to one ordered list of photographs.

The order is decided here, once: bytewise by the path below the common root. No later stage reorders.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator

from ..defaults import MAX_BYTES
from ..errors import ConfigError, SourceError
from .source import FileSource

EXTENSIONS = frozenset({b".jpg", b".jpeg", b".png", b".bmp", b".webp", b".tif", b".tiff"})


def scan(inputs: Iterable[str], *, limit: int | None = None, max_bytes: int = MAX_BYTES) -> FileSource:
    """List every photograph of `inputs`, in the order of the rows to come.

    Args:
        inputs: folders (searched recursively for EXTENSIONS, any case; links are followed, loops survived),
            single files (any name) and `@list.txt` (one path a line, relative to the list's folder).
        limit: keep only the first so many in scan order.
        max_bytes: see FileSource.
    Raises:
        SourceError: an input does not exist or cannot be read, or no photograph is found.
        ConfigError: no inputs, or a limit below 1.
    """
    names = [os.fsencode(name) for name in inputs]
    if not names:
        raise ConfigError("no photographs were named; wanted: folders, files or @list.txt")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit is {limit}; wanted: 1 or more")
    listed = [path for name in names if name.startswith(b"@") for path in read_list(name[1:])]
    folders = [name for name in names if not name.startswith(b"@")]
    found = [path for name in folders for path in _expand(name)]
    if len(folders) > 1:
        found = list(set(found))  # folders that overlap; only a list may name a photograph twice
    found += listed
    if not found:
        kinds = ", ".join(sorted(e.decode()[1:] for e in EXTENSIONS))
        raise SourceError(
            f"no photographs found in {', '.join(os.fsdecode(n) for n in names)}; wanted: {kinds} "
            f"(any case) in the folder or below it. Check the path, or name files with @list.txt"
        )
    found.sort()
    single_folder = len(names) == 1 and not names[0].startswith(b"@") and os.path.isdir(names[0])
    root = os.path.abspath(names[0]) if single_folder else _common_folder(found[0], found[-1])
    if not os.path.isdir(root):
        raise SourceError(
            f"the folder that all listed photographs are below, {os.fsdecode(root)}, does not exist. "
            f"Check the list, or whether a disk has to be mounted"
        )
    cut = len(root) + (not root.endswith(b"/"))
    return FileSource(root, [path[cut:] for path in found[:limit]], max_bytes)


def _common_folder(first: bytes, last: bytes) -> bytes:
    """The folder above all of a sorted list, which the first and last entries alone decide."""
    return os.path.commonpath([os.path.dirname(first), os.path.dirname(last)])


def _expand(name: bytes) -> Iterator[bytes]:
    """Absolute paths of one input, unordered."""
    if os.path.isdir(name):
        yield from _walk(os.path.abspath(name))
    elif os.path.lexists(name):
        yield os.path.abspath(name)
    else:
        raise SourceError(
            f"{os.fsdecode(name)} does not exist; wanted: a folder, a photograph or @list.txt. "
            f"The working folder is {os.getcwd()}"
        )


def read_list(path: bytes) -> list[bytes]:
    """Absolute paths named in a list file: one a line, blank lines ignored, relative to the list's folder.

    Raises:
        SourceError: the list cannot be read.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as err:
        raise SourceError(
            f"the list file {os.fsdecode(path)} cannot be read: {err.strerror}; wanted: a text file, one path a line"
        ) from err
    for number, line in enumerate(lines, 1):
        if b"\0" in line:
            raise SourceError(
                f"line {number} of the list file {os.fsdecode(path)} holds a NUL byte; wanted: UTF-8 text, one path a "
                f"line (a UTF-16 file can be converted: iconv -f UTF-16 -t UTF-8)"
            )
    base = os.path.dirname(os.path.abspath(path))
    join, normal = os.path.join, os.path.normpath
    return [normal(join(base, line)) for line in lines if line.strip()]


def _walk(top: bytes) -> Iterator[bytes]:
    """Photographs below `top`. Each real folder is entered once, so links cannot loop or multiply.

    Real folders go before links to folders, so that what a photograph is called does not depend on which
    link was met first. A folder that cannot be listed is yielded itself: it becomes an `unreadable` row, so
    that nothing is lost in silence.
    """
    seen: set[tuple[int, int]] = set()
    folders: list[bytes] = [top]
    links: list[bytes] = []
    while folders or links:
        if not folders:
            links.sort(reverse=True)
        folder = folders.pop() if folders else links.pop()
        try:
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
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
                raise SourceError(f"the folder {os.fsdecode(top)} cannot be listed; wanted: read permission") from None
            yield folder


def _is_dir(entry: os.DirEntry[bytes]) -> bool:
    """Whether a link leads to a folder; a link that loops or leads nowhere does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False
