"""Put a CMYK JPEG into a TIFF file, whose decoder takes its inks as they are.

The decoder of JPEGs expects the inverted inks of Adobe's programs, and would show a file without Adobe's marker as a
negative. In a TIFF file, 0 is no ink.
Source: TIFF 6.0, sections 16 and 22; TIFF Technical Note 2.
"""

from __future__ import annotations

import struct

from .header_fields import Header

_SHORT, _LONG = 3, 4


def tiff_of_jpeg(data: bytes, header: Header) -> bytes:
    """A TIFF file with the JPEG as its one strip.

    Args:
        data: a JPEG of four components, all of the same size.
        header: its header.
    """
    entries = [
        (256, _LONG, 1, header.width),
        (257, _LONG, 1, header.height),
        (258, _SHORT, 4, 0),  # bits of a sample; the place is set below
        (259, _SHORT, 1, 7),  # JPEG
        (262, _SHORT, 1, 5),  # inks
        (273, _LONG, 1, 0),  # the strip; the place is set below
        (274, _SHORT, 1, header.orientation),
        (277, _SHORT, 1, 4),
        (278, _LONG, 1, header.height),
        (279, _LONG, 1, len(data)),
        (284, _SHORT, 1, 1),
    ]
    after = 8 + 2 + 12 * len(entries) + 4
    places = {258: after, 273: after + 8}
    directory = b"".join(
        struct.pack("<HHII", tag, kind, count, places.get(tag, value)) for tag, kind, count, value in entries
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + directory + struct.pack("<I4H", 0, 8, 8, 8, 8) + data
