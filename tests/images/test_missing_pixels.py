"""A JPEG whose decoder warns is corrupt if pixels are missing, and whole if the warning is about something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from runtime.images.decode import ImageError, decode_image, decode_photo
from runtime.records import Status
from tests.support import encoded_images as make

END = b"\xff\xd9"


def noisy(seed: int = 0) -> np.ndarray:
    """A picture with film grain, as cameras make."""
    rng = np.random.default_rng(seed)
    pixels = make.scene(340, 280, seed=seed).astype(int) + rng.normal(0, 6, (340, 280, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


KINDS = {
    "plain": make.encode(noisy()),
    "optimised": make.encode(noisy(), optimize=True),
    "subsampled": make.encode(noisy(), subsampling=2),
    "restarts": make.encode(noisy(), restart_marker_rows=1),
    "short restarts": make.encode(noisy(), restart_marker_blocks=3),
    "progressive": make.encode(noisy(), progressive=True),
    "grey": make.encode(noisy()[..., 1]),
    "CMYK": make.cmyk_jpeg(noisy()),
}
CMYK_WITHOUT_MARKER = re.sub(rb"\xff\xee\0\x0eAdobe.{7}", b"", KINDS["CMYK"], flags=re.DOTALL)


def part(data: bytes, share: float) -> int:
    """A place in the image data."""
    start = data.index(b"\xff\xda")
    return start + int(share * (len(data) - start))


def restart(data: bytes, number: int) -> int:
    """Where a restart marker is, counted from 0."""
    return [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)][number]


def noise(data: bytes, count: int) -> bytes:
    """The file with random bytes in the middle, none of which is a marker."""
    start = part(data, 0.4)
    return data[:start] + np.random.default_rng(3).bytes(count).replace(b"\xff", b"\xfe") + data[start + count :]


PAGE = b"<html><body><h1>503 Service Unavailable</h1></body></html>" * 20
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut, then an end marker": lambda data: data[: part(data, 1 / 3)] + END,
    "cut, then bytes of ones": lambda data: data[: part(data, 1 / 3)] + b"\xff" * 5000 + END,
    "cut, then a page": lambda data: data[: part(data, 1 / 3)] + PAGE + END,
    "cut, then spaces": lambda data: data[: part(data, 1 / 3)] + b" " * 50_000 + END,
    "a block lost": lambda data: data[: part(data, 0.5)] + data[part(data, 0.5) + 4096 :],
    "a block of noise": lambda data: noise(data, 4096),
}


def check_corrupt(data: bytes) -> None:
    """Check that a file is corrupt, at each reduction."""
    for long_side in (340, 42):
        with pytest.raises(ImageError) as caught:
            decode_photo(data, long_side=long_side)
        assert caught.value.status is Status.CORRUPT


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", [*KINDS, "CMYK without a marker"])
def test_a_jpeg_with_missing_pixels_is_corrupt(kind: str, damage: str) -> None:
    check_corrupt(DAMAGE[damage](KINDS.get(kind, CMYK_WITHOUT_MARKER)))


@pytest.mark.parametrize("kind", ["restarts", "short restarts"])
def test_missing_restart_intervals_are_damage_also_if_their_numbers_go_on(kind: str) -> None:
    data = KINDS[kind]
    check_corrupt(data[: restart(data, 8)] + END)
    for lost in (8, 16):
        check_corrupt(data[: restart(data, 4)] + data[restart(data, 4 + lost) :])
    inside = (restart(data, 10) + restart(data, 11)) // 2
    check_corrupt(data[: inside - 60] + data[inside:])


def test_a_progressive_file_that_ends_within_a_scan_or_its_tables_is_damage() -> None:
    data = KINDS["progressive"]
    check_corrupt(data[: part(data, 0.3)] + END)
    last_tables = data.rindex(b"\xff\xc4")
    check_corrupt(data[: last_tables + 8] + END)
    check_corrupt(data[: last_tables + 8])


@pytest.mark.parametrize("count", [200, 2000])
def test_noise_in_a_jpeg_within_a_tiff_is_damage(count: int) -> None:
    data = make.encode(noisy(), "TIFF", compression="jpeg")
    start = len(data) // 2
    filling = np.random.default_rng(2).bytes(count).replace(b"\xff", b"\xfe")
    check_corrupt(data[:start] + filling + data[start + count :])


def check_whole(data: bytes, like: bytes) -> None:
    """Check that a file is embedded with the pixels of another."""
    np.testing.assert_array_equal(decode_photo(data, long_side=340).pixels, decode_photo(like, long_side=340).pixels)


@pytest.mark.parametrize("kind", [*KINDS, "CMYK without a marker"])
@pytest.mark.parametrize(
    "padding", [b"abcdefgh" * 20, b"\0" * 200, b"\xff" * 9, b"\x20" * 40, bytes(range(16)), b"\0" * 30 + b"\xff" * 30]
)
def test_padding_after_the_last_pixel_is_harmless(kind: str, padding: bytes) -> None:
    data = KINDS.get(kind, CMYK_WITHOUT_MARKER)
    check_whole(data[:-2] + padding + END, data)
    check_whole(data[:-2] + padding + END + b"bytes after the end" * 9, data)


@pytest.mark.parametrize("count", [1, 3, 14])
def test_the_bytes_that_webcams_leave_before_restart_markers_are_harmless(count: int) -> None:
    data = KINDS["restarts"]
    padded = re.sub(rb"(\xff[\xd0-\xd7])", b"Z" * count + rb"\1", data)
    check_whole(padded, data)
    check_corrupt(padded[: part(padded, 0.6)] + END)  # they hide no damage


@pytest.mark.parametrize("kind", ["plain", "restarts"])
def test_a_warning_about_something_else_is_harmless_and_hides_no_damage(kind: str) -> None:
    data = KINDS[kind]
    version = data.index(b"JFIF\0") + 5
    newer = data[:version] + b"\2" + data[version + 1 :]
    check_whole(newer, data)
    check_corrupt(newer[: part(newer, 0.6)] + END)


@pytest.mark.parametrize("kind", ["plain", "progressive", "restarts"])
@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4", b"\xff\xda"])
def test_zeros_between_the_segments_of_a_header_are_harmless(kind: str, marker: bytes) -> None:
    data = KINDS[kind]  # cameras of Dahua write 608
    at = data.index(marker)
    found = decode_image(data[:at] + bytes(608) + data[at:], size=112)
    assert np.array_equal(found, decode_image(data, size=112))
    with pytest.raises(ImageError):
        decode_image(data[:at] + bytes(5000) + data[at:], size=112)
    with pytest.raises(ImageError):
        decode_image(data[:at] + bytes(608) + b"x" + data[at:], size=112)


def test_a_file_without_end_before_another_is_whole() -> None:
    check_whole(KINDS["plain"][:-2] + KINDS["subsampled"], KINDS["plain"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("long_side", [340, 170, 85, 42])
@pytest.mark.parametrize("orientation", [1, 6])
def test_pixels_are_those_of_opencv(kind: str, long_side: int, orientation: int) -> None:
    data = KINDS[kind]
    if orientation != 1:
        header = make.encode(noisy()[:8, :8], orientation=orientation)
        start = header.index(b"\xff\xe1")
        data = data[:2] + header[start : start + 2 + int.from_bytes(header[start + 2 : start + 4], "big")] + data[2:]
    flags = {340: 0, 170: cv2.IMREAD_REDUCED_COLOR_2, 85: cv2.IMREAD_REDUCED_COLOR_4, 42: cv2.IMREAD_REDUCED_COLOR_8}
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR | flags[long_side])
    np.testing.assert_array_equal(decode_photo(data, long_side=long_side, channel_order="bgr").pixels, expected)
    np.testing.assert_array_equal(decode_photo(data, long_side=long_side).pixels, expected[..., ::-1])


def test_a_subsampling_that_few_decoders_know_is_read() -> None:
    data = bytearray(make.encode(np.full((48, 48, 3), 90, np.uint8), subsampling=2))
    data[data.index(b"\xff\xc0") + 11] = 0x31
    rows = bytes(data)
    at = rows.index(b"\xff\xda") + 14
    assert decode_image(rows[:at] + rows[at:-2] * 3 + END, size=112).shape == (112, 112, 3)


def test_a_warning_belongs_to_its_photo() -> None:
    files = [KINDS["plain"], DAMAGE["a block lost"](KINDS["plain"]), KINDS["plain"][:-2] + bytes(50) + END] * 30

    def outcome(data: bytes) -> bool:
        try:
            return decode_photo(data, long_side=340).height == 340
        except ImageError:
            return False

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(outcome, files)) == [True, False, True] * 30
