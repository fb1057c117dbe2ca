"""What the header of an image file says, for all formats."""

from __future__ import annotations

from dataclasses import dataclass

_LEAST_RATIO, _MOST_RATIO = 0.4, 2.5  # of pixels that are not square: faxes have 0.48 and 2.08
_NEARLY_SQUARE = 0.05  # 204 by 196 dots an inch, the fine mode of a fax, changes no face


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image file.

    Attributes:
        kind: "jpeg", "png", "bmp", "webp", "tiff", "jp2" or "avif".
        width, height: pixels as stored, before any rotation.
        alpha: whether it may have transparency.
        orientation: EXIF orientation, 1 to 8; of an AVIF file, what its own properties mean.
        channels: samples of a pixel.
        depth: bits of a sample.
        pixel_ratio: width of a pixel relative to its height; 1.0 for square pixels.
        max_value: the largest sample that the file states; 0 if it states none.
        is_float: whether samples are floating-point numbers.
        coefficients: bytes per pixel that the decoder of a JPEG of several scans keeps besides the picture.
        block_pixels: pixels of a strip or tile, which a decoder keeps besides the picture.
        plain_cmyk: whether it is a CMYK JPEG without an Adobe marker, whose inks are not inverted.
        stored_rgb: whether it is a JPEG of three colours that an Adobe marker says are RGB, not luminance and colour.
        doubtful: whether image data may be missing, so that a closer look is needed.
        image_at: where the chunk with the image data of a doubtful WebP file begins; else 0.
        note: something that the outcome should say of a good photo; empty for none.
        directory: offset of the directory of the main page of a TIFF file; None for the first.
        feature: what not every decoder reads, for the reason if it cannot be decoded; empty for an ordinary file.
    """

    kind: str
    width: int
    height: int
    alpha: bool = False
    orientation: int = 1
    channels: int = 3
    depth: int = 8
    pixel_ratio: float = 1.0
    max_value: int = 0
    is_float: bool = False
    coefficients: float = 0.0
    block_pixels: int = 0
    plain_cmyk: bool = False
    stored_rgb: bool = False
    doubtful: bool = False
    image_at: int = 0
    note: str = ""
    directory: int | None = None
    feature: str = ""

    def squared(self) -> tuple[int, int]:
        """Width and height with square pixels: the side with the wider spacing becomes longer."""
        if self.pixel_ratio > 1:
            return round(self.width * self.pixel_ratio), self.height
        return self.width, round(self.height / self.pixel_ratio)


class UnsupportedImageError(ValueError):
    """A file is whole, as far as it was read, but facemill does not take it."""


def pixel_ratio(across: float, down: float) -> float:
    """Width of a pixel relative to its height, from the resolutions; 1.0 if it is implausible or nearly square.

    Args:
        across, down: pixels a unit of length.
    """
    if not (across > 0 and down > 0):
        return 1.0
    ratio = down / across
    if not _LEAST_RATIO <= ratio <= _MOST_RATIO or abs(ratio - 1) < _NEARLY_SQUARE:
        return 1.0
    return ratio
