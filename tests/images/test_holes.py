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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["codestream", "AVIF", "transparent AVIF"])
@pytest.mark.parametrize("seed", range(4))
def test_damage_that_the_decoder_of_other_formats_meets_is_corrupt(kind: str, seed: int) -> None:
    pixels = noisy(seed)
    if kind == "transparent AVIF":
        pixels = np.dstack([pixels, pixels[..., :1]])
    data = make.encode(pixels, "AVIF" if kind.endswith("AVIF") else "JPEG2000")
    if kind == "codestream":
        data = data[data.index(b"jp2c") + 4 :]
    decode_image(data, size=112)
    start = len(data) * (seed + 2) // 7
    damaged = data[:start] if kind == "codestream" else data[:start] + b"\x5a" * 3000 + data[start + 3000 :]
    with pytest.raises(ImageError) as caught:
        decode_image(damaged, size=112)
    assert caught.value.status is Status.CORRUPT


def test_a_jpeg_2000_file_of_many_channels_is_unsupported() -> None:
    data = make.encode(noisy(), "JPEG2000")
    at = data.index(b"\xff\x4f\xff\x51")
    many = data[: at + 4] + b"\0\x3b" + data[at + 6 : at + 40] + b"\0\7" + b"\7\1\1" * 7 + data[at + 51 :]
    with pytest.raises(ImageError) as caught:
        decode_image(many, size=112)
    assert caught.value.status is Status.UNSUPPORTED


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_zeros_of_a_page_to_the_end_of_plain_pixels_are_damage(kind: str, share: float) -> None:
    data = make.encode(np.maximum(noisy(), 1), kind)
    decode_image(data, size=112)
    page = int(len(data) * share) // 4096 * 4096
    with pytest.raises(ImageError) as caught:
        decode_image(data[:page] + bytes(len(data) - page), size=112)
    assert caught.value.status is Status.CORRUPT


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
@pytest.mark.parametrize("width", [280, 1024, 4096])
def test_black_areas_of_plain_pixels_are_whole(kind: str, width: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 256, (64, width, 3), np.uint8)
    black = pixels.copy()
    black[:20] = black[-20:] = 0
    within = pixels.copy()
    within[:19] = within[-19:] = 0
    within[19, : width // 3] = within[-20, width // 3 :] = 0
    grey = pixels[..., 0].copy()
    grey[32:] = 0
    grey[:20] = 0
    for picture in (black, within, grey, pixels * 0):
        assert decode_image(make.encode(picture, kind), size=112).shape == (112, 112, 3)
