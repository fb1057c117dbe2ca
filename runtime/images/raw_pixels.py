"""Find out whether uncompressed pixels end in a hole: zeros of a disk or a download, and not a black area."""

from __future__ import annotations

_PAGE = 4096  # bytes: holes of disks, file systems and downloads begin at a multiple
_SHARE = 4  # a hole is at least this part of the pixels
_TAIL = bytes(64)


def check_tail(data: bytes, start: int, stop: int, row: int) -> None:
    """Check that pixels do not end in zeros that begin with a page of the file, within a row.

    A black area begins with a row, or after the last pixel of another colour: one in 4096 of these at a page.

    Args:
        data: the file.
        start, stop: where its pixels begin and end.
        row: bytes of a row.
    Raises:
        ValueError: they do.
    """
    if stop > len(data) or data[max(start, stop - len(_TAIL)) : stop] != _TAIL:
        return
    end = start + len(data[start:stop].rstrip(b"\0"))
    if _SHARE * (stop - end) >= stop - start and end % _PAGE == 0 and (end - start) % row:
        raise ValueError(f"the last {stop - end} of {stop - start} bytes of the pixels are zeros")
