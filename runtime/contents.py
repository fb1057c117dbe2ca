"""Tell what a file is by its first bytes.

Example:
    >>> kind_of(b"path,score\\n"), kind_of(b"\\x89HDF\\r\\n"), kind_of(b"")
    ('text', 'an HDF5 file', '')
"""

from __future__ import annotations

import codecs
import re

SNIFF_BYTES = 4096  # that `kind_of` wants to see
PHOTO, HDF5, PARQUET, TEXT = "a photo", "an HDF5 file", "a Parquet file", "text"

_PHOTO = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|II\*\0|MM\0\*|II\+\0\x08\0|MM\0\+\0\x08"
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51"
    rb"|BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|....ftypavi[fs]",
    re.DOTALL,
)
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive", b"\x1f\x8b": "a gzip archive", b"\xfd7zXZ": "an xz archive", b"%PDF": "a PDF file",
    b"\x89HDF": HDF5, b"GIF8": "a GIF picture", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive",
    b"PAR1": PARQUET, b"SQLite format 3\0": "an SQLite database",
}  # fmt: skip


def is_photo(start: bytes) -> bool:
    """Whether these are the first bytes of a photo; 32 are enough."""
    return _PHOTO.match(start) is not None


def is_text(start: bytes) -> bool:
    """Whether these are the first bytes of UTF-8 text, cut anywhere."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return b"\0" not in start


def kind_of(start: bytes) -> str:
    """What a file with these first bytes is; empty for an empty file and for bytes that are nothing known."""
    if is_photo(start):
        return PHOTO
    if start[257:262] == b"ustar":
        return "a tar archive"
    known = next((kind for mark, kind in _OTHERS.items() if start.startswith(mark)), "")
    return known or (TEXT if start and is_text(start) else "")
