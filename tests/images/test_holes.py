"""Damage that a decoder takes for a picture: holes and zeros in files that are not JPEGs, and what is harmless."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.images.decode import ImageError, decode_image
from runtime.records import Status
from tests.support import encoded_images as make


def noisy(seed: int = 0) -> np.ndarray:
    """A picture with film grain, as cameras make."""
    rng = np.random.default_rng(seed)
    pixels = make.scene(340, 280, seed=seed).astype(int) + rng.normal(0, 6, (340, 280, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("hole", [bytes(2000), b"\xff" * 2000])
def test_a_hole_in_a_jpeg_within_a_tiff_is_damage(hole: bytes) -> None:
    data = make.encode(noisy(), "TIFF", compression="jpeg")
    decode_image(data, size=112)
    start = len(data) // 2
    with pytest.raises(ImageError) as caught:
        decode_image(data[:start] + hole + data[start + len(hole) :], size=112)
    assert caught.value.status is Status.CORRUPT


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["WEBP", "lossless WEBP", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_the_zeros_of_a_download_that_broke_off_are_damage(kind: str, share: float) -> None:
    options: dict[str, Any] = {"lossless": True} if kind.startswith("lossless") else {}
    data = make.encode(noisy(), kind.split()[-1], **options)
    decode_image(data, size=112)
    stop = int(len(data) * share)
    for broken in (data[:stop] + bytes(len(data) - stop), data[:stop]):
        with pytest.raises(ImageError) as caught:
            decode_image(broken, size=112)
        assert caught.value.status is Status.CORRUPT


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["WEBP", "JPEG2000", "AVIF", "PNG"])
@pytest.mark.parametrize("after", [bytes(300), b"abc" * 100])
def test_bytes_after_the_image_data_of_other_formats_are_harmless(kind: str, after: bytes) -> None:
    data = make.encode(noisy(), kind)
    np.testing.assert_array_equal(decode_image(data + after, size=112), decode_image(data, size=112))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["WEBP", "lossless WEBP", "JPEG2000", "AVIF"])
def test_large_areas_of_one_colour_are_whole_in_other_formats(kind: str) -> None:
    options: dict[str, Any] = {"lossless": True} if kind.startswith("lossless") else {}
    cut_out = np.full((1000, 1000, 3), 255, np.uint8)
    cut_out[300:640, 300:580] = noisy()
    options |= {"method": 0, "quality": 100} if kind == "WEBP" else {}  # this method writes the most zeros
    for pixels in (np.full((2000, 3000, 3), 7, np.uint8), np.zeros((1500, 1500, 3), np.uint8), cut_out):
        assert decode_image(make.encode(pixels, kind.split()[-1], **options), size=112).shape == (112, 112, 3)


def test_a_hole_over_a_chunk_of_a_png_is_damage() -> None:
    data = make.encode(noisy(), "PNG")
    for start in range(60, len(data) - 5000, len(data) // 7):
        with pytest.raises(ImageError) as caught:
            decode_image(data[:start] + bytes(4096) + data[start + 4096 :], size=112)
        assert caught.value.status is Status.CORRUPT
