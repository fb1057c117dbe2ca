"""A JPEG with missing image data is corrupt; one with all of its pixels is not, whatever stands around them."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.images.decode import ImageError, decode_image, decode_photo
from runtime.images.header import read_header
from runtime.records import Status
from tests.support import encoded_images as make


def noisy(seed: int = 0) -> np.ndarray:
    """A picture with film grain, as cameras make."""
    rng = np.random.default_rng(seed)
    pixels = make.scene(340, 280, seed=seed).astype(int) + rng.normal(0, 6, (340, 280, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


KINDS = {
    "plain": {},
    "optimised": {"optimize": True},
    "subsampled": {"subsampling": 2},
    "restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}
WHITE = noisy()
WHITE[200:] = 255  # a white wall: the last image data are runs of zeros where the tables are optimised
GREY = np.full((2000, 2000, 3), 128, np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.28, 0.6, 0.9])
def test_a_tail_of_zeros_is_corrupt(kind: str, share: float) -> None:
    data = make.encode(noisy(), **KINDS[kind])
    kept = len(data) * round(100 * share) // 100
    with pytest.raises(ImageError) as caught:
        decode_photo(data[:kept] + bytes(len(data) - kept), long_side=640)
    assert caught.value.status is Status.CORRUPT


@pytest.mark.parametrize("kind", ["plain", "optimised", "subsampled", "restarts"])
@pytest.mark.parametrize("seed", range(6))
def test_a_hole_of_one_sector_is_corrupt(kind: str, seed: int) -> None:
    data = make.encode(noisy(seed), **KINDS[kind])
    start = len(data) * (20 + 10 * seed) // 100
    with pytest.raises(ImageError) as caught:
        decode_photo(data[:start] + bytes(4096) + data[start + 4096 :], long_side=640)
    assert caught.value.status is Status.CORRUPT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [3, 100, 5000])
def test_a_file_that_was_cut_short_is_corrupt(kind: str, cut: int) -> None:
    data = make.encode(noisy(), **KINDS[kind])
    with pytest.raises(ImageError) as caught:
        decode_photo(data[:-cut] if cut > 3 else data[:-50], long_side=640)
    assert caught.value.status is Status.CORRUPT


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [b"", b"\0", bytes(5000), b"\xff" * 700])
def test_only_the_end_marker_missing_is_harmless(kind: str, after: bytes) -> None:
    data = make.encode(noisy(), **KINDS[kind])
    np.testing.assert_array_equal(decode_image(data[:-2] + after, size=112), decode_image(data, size=112))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [b"abc" * 500, bytes(100_000), make.encode(noisy(1)), b"\xff\xd8\xff" + bytes(500)])
def test_bytes_after_the_end_are_harmless(kind: str, after: bytes) -> None:
    data = make.encode(noisy(), **KINDS[kind])
    np.testing.assert_array_equal(decode_image(data + after, size=112), decode_image(data, size=112))


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_before_the_end_marker_are_harmless(kind: str) -> None:
    data = make.encode(noisy(), **KINDS[kind])
    np.testing.assert_array_equal(
        decode_image(data[:-2] + bytes(200) + data[-2:], size=112), decode_image(data, size=112)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixels", [WHITE, WHITE[::-1], WHITE[:, ::-1], GREY, GREY // 128, GREY + 127])
def test_areas_of_one_colour_are_whole(kind: str, pixels: np.ndarray) -> None:
    assert decode_image(make.encode(pixels, **KINDS[kind]), size=112).shape == (112, 112, 3)


def test_an_ordinary_file_needs_no_closer_look() -> None:
    for options in KINDS.values():
        header = read_header(make.encode(noisy(), **options))
        assert header is not None
        assert not header.doubtful


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "optimised", "subsampled", "restarts"])
@pytest.mark.parametrize("hole", ["noise", "ones"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_sector_of_other_bytes_is_damage(kind: str, hole: str, share: float) -> None:
    data = make.encode(noisy(), **KINDS[kind])
    start = int(len(data) * share)
    other = np.random.default_rng(7).bytes(4096) if hole == "noise" else b"\xff" * 4096
    with pytest.raises(ImageError) as caught:
        decode_image(data[:start] + other + data[start + 4096 :], size=112)
    assert caught.value.status is Status.CORRUPT
