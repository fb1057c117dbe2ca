"""Read the markers of a JPEG file: size, density, orientation, scans, and signs that image data are missing.

Source: ITU T.81; JFIF 1.02; EXIF 2.32.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from .exif import exif_orientation
from .header_fields import Header, UnsupportedImageError, pixel_ratio

MAX_SCANS = 100  # a usual progressive file has ten; each scan walks over the whole picture
MAX_SEGMENTS = 10_000
ZERO_RUN = bytes(64)  # so long a run of zeros in image data is rare, and a sign of a hole

_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SOS, _EOI, _TABLES, _RESTARTS, _LINES = 0xDA, 0xD9, 0xC4, 0xDD, 0xDC
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_ZEROS = re.compile(rb"\0+")
_MOST_ZEROS = 4096  # between two segments; more are a hole, in which a segment may have been
_NO_FILL = re.compile(rb"[^\xff]")
_END_OF_IMAGE = b"\xff\xd9"
_TAIL_BYTES = 64  # the end marker is among the last bytes of nearly every file


def read_jpeg(data: bytes) -> Header:
    """The header of a JPEG file.

    Raises:
        UnsupportedImageError: it has too many scans or segments.
        ValueError, struct.error, IndexError: it is truncated or damaged.
    """
    frame: tuple[int, int, int, int, int] | None = None  # marker, bits, height, width, components
    orientation: int | None = None
    ratio, adobe = 1.0, -1  # the transform of the Adobe marker; -1 without
    sampling, restarts, before, gaps = b"", False, 2, False
    for marker, at, end in _segments(data):
        gaps, before = gaps or b"\0" in data[before : at - 4], end
        if marker in _SOF:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at)
            frame, sampling = (marker, bits, height, width, components), data[at + 7 : at + 6 + 3 * components : 3]
        elif marker == 0xE0 and data[at : at + 5] == b"JFIF\0":
            ratio = pixel_ratio(*struct.unpack_from(">HH", data, at + 8))
        elif marker == 0xE1 and data[at : at + 6] == b"Exif\0\0" and orientation is None:
            orientation = exif_orientation(data[at + 6 : end])
        elif marker == _RESTARTS:
            restarts = data[at : at + 2] != b"\0\0"
        elif marker == 0xEE and data[at : at + 5] == b"Adobe":
            adobe = data[at + 11] if at + 11 < end else 0
        elif marker == _SOS:
            if frame is None:
                raise ValueError("the image data begins before the size")
            break
    else:
        raise ValueError("the image data is missing")
    marker, bits, height, width, components = frame
    scan, interleaved = end, data[at] == components
    coefficients = 0.0
    if marker in _PROGRESSIVE or not interleaved:
        _count_scans(data)
        coefficients = _coefficient_bytes(sampling)
    return Header(
        "jpeg",
        width,
        height,
        orientation=orientation or 1,
        channels=components,
        depth=bits,
        pixel_ratio=ratio,
        coefficients=coefficients,
        plain_cmyk=components == 4 and adobe < 0,
        stored_rgb=components == 3 and adobe == 0,
        doubtful=gaps
        or _END_OF_IMAGE not in data[-_TAIL_BYTES:]
        or data.find(ZERO_RUN, scan) >= 0
        or (not coefficients and _is_broken(data, scan, restarts)),
        feature=_feature(marker, bits),
    )


def without_gaps(data: bytes) -> bytes:
    """A file without the zeros between the segments of its header, of which some cameras write hundreds."""
    parts, start, before = [], 0, 2
    for marker, at, end in _segments(data):
        if b"\0" in data[before : at - 4]:
            parts.append(data[start:before])
            start = at - 4
        before = end
        if marker == _SOS:
            break
    return b"".join([*parts, data[start:]]) if parts else data


def scan_ends(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of the image data of each scan; the last one ends with the file if the end marker is missing."""
    for marker, _, end in _segments(data):
        if marker == _SOS:
            found = _END_OF_SCAN.search(data, end)
            yield end, found.start() if found else len(data)


def marker_within(data: bytes, end: int) -> bool:
    """Whether the only scan of a file is broken off by a marker that neither ends the image nor states its height."""
    return end < len(data) and data[end + 1] not in (_EOI, _LINES)


def _is_broken(data: bytes, start: int, restarts: bool) -> bool:
    """Whether the image data of a file with one scan show noise: markers that should not be there, or are missing."""
    found = _END_OF_SCAN.search(data, start)
    end = found.start() if found else len(data)
    return marker_within(data, end) or (restarts and restarts_missing(data, start, end))


def has_end(data: bytes) -> bool:
    """Whether the end marker follows the image data."""
    return any(marker == _EOI for marker, *_ in _segments(data))


def zeros_are_flat(data: bytes) -> bool:
    """Whether zeros in image data may stand for an area of one colour: in all tables, the shortest code ends a block.

    With other tables, such as those that most writers use, zeros stand for noise that no picture has.
    """
    for marker, at, end in _segments(data):
        while marker == _TABLES and at + 17 < end:
            if data[at] >> 4 and data[at + 17] != 0:  # a table for all but the mean of a block
                return False
            at += 17 + sum(data[at + 1 : at + 17])
    return True


def restarts_missing(data: bytes, start: int, end: int) -> bool:
    """Whether restart markers of a scan are missing: they count from 0 to 7, again and again."""
    numbers = [found.group()[1] & 7 for found in re.finditer(rb"\xff[\xd0-\xd7]", data[start:end])]
    return any(number != i % 8 for i, number in enumerate(numbers))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the content of each segment, through all scans to the end of the image."""
    at, scanned = 2, False
    for _ in range(MAX_SEGMENTS):
        if scanned:  # a decoder skips what stands between image data and the next marker
            found = _END_OF_SCAN.search(data, at)
            if found is None:
                return
            at = found.start()
        if data[at] != 0xFF:
            zeros = _ZEROS.match(data, at, at + _MOST_ZEROS)
            if zeros is None or data[zeros.end()] != 0xFF:
                raise ValueError(f"no JPEG marker at byte {at}")
            at = zeros.end()
        marker, at = data[at + 1], at + 2
        if marker == 0xFF:  # fill bytes
            found = _NO_FILL.search(data, at)
            if found is None:
                raise ValueError("the header is truncated")
            marker, at = data[found.start()], found.start() + 1
        if marker in _BARE:
            continue
        if marker == _EOI:
            yield marker, at, at
            return
        length = data[at] << 8 | data[at + 1]
        yield marker, at + 2, at + length
        at += max(2, length)
        scanned = scanned or marker == _SOS
    raise UnsupportedImageError(f"a JPEG of more than {MAX_SEGMENTS} segments")


def _count_scans(data: bytes) -> None:
    count = sum(marker == _SOS for marker, *_ in _segments(data))
    if count > MAX_SCANS:
        raise UnsupportedImageError(f"a JPEG of {count} scans, over the limit of {MAX_SCANS}")


def _coefficient_bytes(sampling: bytes) -> float:
    """Bytes per pixel of the coefficients of all components, two bytes each."""
    factors = [divmod(value, 16) for value in sampling]
    largest = max(h for h, _ in factors) * max(v for _, v in factors)
    return 2 * sum(h * v for h, v in factors) / max(1, largest)


def _feature(marker: int, bits: int) -> str:
    """What not every decoder reads; empty for an ordinary file."""
    if bits != 8:
        return f"a JPEG of {bits} bits a sample; expected: 8"
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "a lossless JPEG"
    if marker in (0xC5, 0xC6, 0xCD, 0xCE):
        return "a hierarchical JPEG"
    return "a JPEG with arithmetic coding" if marker in (0xC9, 0xCA) else ""
