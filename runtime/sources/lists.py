"""Read list files as people write them, and say what a list looks like that names nothing."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes

from ..errors import SourceError
from ..regular import LIST_BYTES
from ..retries import retried
from .reader import ReadError, read_file

_SAMPLE = 1000  # lines that are looked for on the disk
_UTF_16 = 3  # bytes for each NUL byte below which a list is UTF-16 text; paths that end with one are longer
_FEW = 0.05  # with a smaller share of these, the list is a mistake
# A line that may not be a plain path: blanks or quotes at its ends, a table, a home folder, a URL.
_ODD = re.compile(rb"^\s|\s$|^[\"'~]|[,;\t]|^[A-Za-z][A-Za-z0-9+.-]*://")


def read_list(path: bytes) -> list[bytes]:
    """Read a list file: one path per line, blank lines ignored, relative to the list's folder. Returns absolute paths.

    NUL bytes may end the paths instead, as those of `find -print0`.

    Blanks and quotes around a path, further columns behind it, `~` and `file://` are taken off if only what is left is
    the path of a file.

    Raises:
        SourceError: the list cannot be read, or (nearly) nothing in it exists.
    """
    name = os.fsdecode(path)
    try:
        data = retried(lambda: read_file(path, LIST_BYTES)).removeprefix(codecs.BOM_UTF8)
    except ReadError as err:
        folder = f". To name the folder @{name}, write ./@{name}" if os.path.isdir(b"@" + path) else ""
        raise SourceError(
            f"the list file {name} cannot be read: {err.detail}; expected: a text file, one path per line{folder}"
        ) from err
    nuls = data.count(b"\0")
    if nuls and not (data.endswith(b"\0") and len(data) >= _UTF_16 * nuls):
        raise SourceError(
            f"the list file {name} contains NUL bytes; expected: UTF-8 text, one path per line, or a NUL byte behind "
            f"every path. Convert a UTF-16 file with: iconv -f UTF-16 -t UTF-8"
        )
    lines = data.split(b"\0") if nuls else data.splitlines()
    lines = [line for line in lines if line.strip()]
    base = os.path.dirname(absolute(path))
    paths = [absolute(_plain(line, base) if _ODD.search(line) else line, base) for line in lines]
    _check(name, lines, paths)
    return paths


def absolute(path: bytes, base: bytes = b"") -> bytes:
    """The absolute path that the kernel would open: `link/..` is the folder above the target of the link.

    Args:
        path: the path.
        base: absolute folder that it is relative to; empty for the working folder.
    """
    if not path.startswith(b"/"):
        path = os.path.join(base or os.getcwdb(), path)  # a deleted working folder only matters here
    if b".." in path:
        parts = path.split(b"/")
        above = max((i for i, part in enumerate(parts) if part == b".."), default=-1) + 1
        path = os.path.join(os.path.realpath(b"/".join(parts[:above])), *parts[above:]) if above else path
    return os.path.normpath(path)


def _plain(line: bytes, base: bytes) -> bytes:
    """The path in an odd line: the line itself if it exists, else the first of its readings that does."""
    return next((path for path in (line, *_readings(line)) if os.path.lexists(os.path.join(base, path))), line.strip())


def _readings(line: bytes) -> Iterator[bytes]:
    text = line.strip()
    for part in (text, *(text.split(separator)[0].strip() for separator in (b"\t", b",", b";"))):
        for quote in (b'"', b"'"):
            if len(part) > 1 and part.startswith(quote) and part.endswith(quote):
                part = part[1:-1].replace(quote * 2, quote)
        yield part
        yield os.path.expanduser(part)
        if part.startswith(b"file://"):
            yield unquote_to_bytes(part.removeprefix(b"file://").removeprefix(b"localhost"))
    closed = re.match(rb'"((?:[^"]|"")*)"\s*[,;\t]', text)  # a quoted path may hold the separator
    if closed:
        yield closed[1].replace(b'""', b'"')


def _check(name: str, lines: Sequence[bytes], paths: Sequence[bytes]) -> None:
    """Refuse a list of which (nearly) nothing exists: that is a mistake of the command, and not of each photo."""
    rows = range(0, len(paths), max(1, len(paths) // _SAMPLE))
    missing = [row for row in rows if not os.path.lexists(paths[row])]
    if not missing or len(rows) - len(missing) > _FEW * len(rows):
        return
    row = missing[0]
    raise SourceError(
        f"{len(missing):,} of {len(rows):,} paths of the list file {name} do not exist. Its line "
        f"{os.fsdecode(lines[row])[:100]!r} means {os.fsdecode(paths[row])}. {_look([lines[row] for row in missing])}"
    )


def _look(lines: Sequence[bytes]) -> str:
    """What the lines of a list look like, and what to do."""
    looks = (
        (rb"^\s*[\"']?https?://", "They look like URLs; expected: files on this machine. Download them first"),
        (rb"^[\"']?[A-Za-z]:\\|\\", "They look like paths of Windows; expected: paths with / as this machine has them"),
        (
            rb"[,;\t]",
            "They look like a table; expected: one path per line. Keep its column of paths: cut -d, -f1",
        ),
        (rb"^\s*[\"']|[\"']\s*$", "They look quoted; expected: paths without quotes"),
    )
    for pattern, text in looks:
        if sum(re.search(pattern, line) is not None for line in lines) * 2 > len(lines):
            return text
    return "Check whether a disk must be mounted, and that paths are absolute or relative to the folder of the list"
