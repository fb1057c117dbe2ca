"""The boundary around one photo: what a photo causes is its outcome, what the machine causes passes."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from runtime.errors import EngineError, OutOfMemoryError
from runtime.images.decode import ImageError, decode_image, decode_photo
from runtime.images.one_photo import each_photo, one_photo
from runtime.images.resize import shrink
from runtime.records import Status
from tests.support import encoded_images as make
from tests.support.facemill_command import ROOT

SIDES = [(1, 300), (1, 2000), (1, 3000), (2, 1300), (3, 4000), (5, 5000), (10, 10_000), (1, 65_000)]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("tall", [False, True])
def test_a_thin_photo_is_decoded_in_every_format(kind: str, sides: tuple[int, int], tall: bool) -> None:
    if kind == "WEBP" and max(sides) > 16_383:
        return  # the format has no longer sides
    pixels = np.full((*(sides[::-1] if tall else sides), 3), 90, np.uint8)
    data = make.encode(pixels, kind)
    assert decode_image(data, size=112).shape == (112, 112, 3)
    photo = decode_photo(data, long_side=640)
    assert min(photo.pixels.shape[:2]) >= 1
    assert max(photo.pixels.shape[:2]) >= 640 or max(sides) < 640
    assert (photo.height, photo.width) == pixels.shape[:2]
    assert np.abs(photo.pixels.astype(int) - 90).max() < 4


def test_shrink_never_makes_a_side_below_one_pixel() -> None:
    assert shrink(np.zeros((1, 2000, 3), np.uint8), 0, 250).shape == (1, 250, 3)


@pytest.mark.parametrize("error", [ValueError("x"), cv2.error("x"), IndexError("x"), ZeroDivisionError(), KeyError(1)])
def test_any_exception_becomes_the_outcome_of_the_photo(error: Exception) -> None:
    with pytest.raises(ImageError) as caught, one_photo("decode", b"a.jpg"):
        raise error
    assert caught.value.status is Status.CORRUPT
    assert type(error).__name__ in caught.value.detail


def test_no_memory_is_an_outcome_that_is_tried_again() -> None:
    with pytest.raises(ImageError) as caught, one_photo("decode"):
        np.empty((1 << 50,), np.uint8)
    assert caught.value.status is Status.UNREADABLE


def test_no_memory_of_opencv_is_tried_again_too() -> None:
    error = cv2.error("Failed to allocate 12 bytes")
    error.code = cv2.Error.STS_NO_MEM
    with pytest.raises(ImageError) as caught, one_photo("warp"):
        raise error
    assert caught.value.status is Status.UNREADABLE


@pytest.mark.slow
def test_a_machine_without_memory_is_no_outcome_of_a_photo() -> None:
    """In a process of its own, whose address space is full."""
    script = """
import resource
import numpy as np
from runtime.errors import MachineError
from runtime.images.one_photo import one_photo

pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (32 << 20),) * 2)
try:
    with one_photo("warp", b"a.jpg"):
        np.empty(48 << 20, np.uint8)
except MachineError as err:
    print(err)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert "E-MACHINE" in result.stdout, result.stderr
    assert "a.jpg" in result.stdout


@pytest.mark.parametrize(
    "error",
    [EngineError("x"), OutOfMemoryError("x"), OSError(errno.EMFILE, "x"), ImportError("libGL"), KeyboardInterrupt()],
)
def test_a_fault_of_the_machine_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, one_photo("decode"):
        raise error
    assert caught.value is error


def test_one_traceback_is_logged_with_the_name(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ArithmeticError("only here")

    for name in (b"a.jpg", b"b.jpg", b"c.jpg"):
        with pytest.raises(ImageError), one_photo("decode", name):
            fail()
    logged = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(logged) == 1
    assert logged[0].exc_info is not None
    assert "a.jpg" in logged[0].getMessage()


def test_only_the_photo_that_fails_in_a_batch_is_lost() -> None:
    def halve(photos: Sequence[int]) -> list[float]:
        return [1 / photo for photo in photos]

    results = each_photo("halve", halve, [1, 0, 2], [b"a", b"b", b"c"])
    assert (results[0], results[2]) == (1.0, 0.5)
    assert isinstance(results[1], ImageError)
    assert "ZeroDivisionError" in results[1].detail


def test_a_fault_of_the_machine_in_a_batch_passes() -> None:
    def fail(photos: Sequence[int]) -> list[int]:
        raise EngineError("the engine broke")

    with pytest.raises(EngineError):
        each_photo("detect", fail, [1, 2], [b"", b""])
