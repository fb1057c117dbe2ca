"""Photos whose faces are red squares, for the detector of red squares."""

from __future__ import annotations

from tests.support import encoded_images as make
from tests.support.red_square_detector import picture


def squares(count: int, seed: int = 0) -> bytes:
    """A photo with so many squares in a row, as a PNG file. The detector finds three faces in one with three."""
    places = [(40 + 160 * i, 40, 60) for i in range(count)]
    return make.encode(picture(160, 60 + 160 * count, *places, seed=seed), "PNG")
