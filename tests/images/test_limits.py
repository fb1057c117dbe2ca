"""Memory and time of a decode are bounded before it begins: bytes, scans, chunks, tiles, samples."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from runtime.images.budget import ByteBudget, decode_bytes
from runtime.images.decode import ImageError, decode_image, decode_photo
from runtime.images.header import read_header
from runtime.images.slow import SlowPhotos
from runtime.records import Status
from tests.support import encoded_images as make
from tests.support.errors import raises
from tests.support.facemill_command import ROOT


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def flat_png(width: int, height: int, *, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    """A PNG of one colour, as small as it can be."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = b"\0" + b"\x80" * ((width * samples * depth + 7) // 8)
    deflate = zlib.compressobj(9)
    data = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND")


def progressive_jpeg(scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    data = make.encode(make.scene(64, 64), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + data[-2:]


def tiff(**tags: int) -> bytes:
    """A small TIFF file with some tags replaced."""
    numbers = {"width": 256, "samples": 277, "tile_width": 322, "tile_height": 323}
    out = io.BytesIO()
    Image.fromarray(make.scene(64, 64)).save(out, "TIFF")
    data = bytearray(out.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [list(struct.unpack_from("<HHII", data, start + 2 + 12 * i)) for i in range(count)]
    for name, value in tags.items():
        entries = [entry for entry in entries if entry[0] != numbers[name]]
        entries.append([numbers[name], 4, 1, value])
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + bytes(4)
    return bytes(data[:4] + struct.pack("<I", len(data)) + data[8:] + directory)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans": (lambda: progressive_jpeg(101), "101"),
    "a thousand scans": (lambda: progressive_jpeg(1000), "1000"),
    "chunks before the data": (lambda: flat_png(8, 8, extra=chunk(b"tEXt", b"a\0b") * 2000), "1000"),
    "a million empty chunks": (lambda: flat_png(8, 8, extra=chunk(b"IDAT") * 1_000_000), "100000"),
    "memory of 16 bits and transparency": (lambda: flat_png(9000, 9000, depth=16, colour=6), "9000x9000"),
    "samples": (lambda: tiff(samples=60_000), "60000"),
    "tiles": (lambda: tiff(tile_width=30_000, tile_height=30_000), "bytes"),
    "a side": (lambda: flat_png(1 << 21, 1, depth=1, colour=0), "2097152x1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_takes_too_much_is_refused_before_it_is_decoded(name: str) -> None:
    make_file, value = REFUSED[name]
    with raises(ImageError, value) as caught:
        decode_image(make_file(), size=112)
    assert caught.value.status is Status.UNSUPPORTED


def test_usual_files_are_below_the_limits() -> None:
    for data in (
        progressive_jpeg(99),
        flat_png(8, 8, extra=chunk(b"tEXt", b"a\0b") * 900),
        flat_png(8, 8, extra=chunk(b"IDAT") * 5000),
        make.encode(make.scene(64, 64), progressive=True),
    ):
        assert decode_image(data, size=112).shape == (112, 112, 3)


def test_many_short_segments_and_fill_bytes_of_a_jpeg_are_no_work() -> None:
    data = make.encode(make.scene(64, 64))
    with raises(ImageError, "10000"):
        decode_image(data[:2] + b"\xff\xfe\0\2" * 20_000 + data[2:], size=112)
    with raises(ImageError) as caught:
        decode_image(b"\xff\xd8" + b"\xff" * 5_000_000, size=112)
    assert caught.value.status is Status.CORRUPT
    assert decode_image(data[:2] + b"\xff" * 100_000 + data[2:], size=112).shape == (112, 112, 3)


PEAK = """
import resource, sys
from pathlib import Path
from runtime.images.budget import decode_bytes
from runtime.images.decode import Limits, decode_image, decode_photo
from runtime.images.header import read_header
data = Path(sys.argv[1]).read_bytes()
decode_image(Path(sys.argv[2]).read_bytes(), size=112)
before = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
decode_photo(data, long_side=640, limits=Limits(max_bytes=1 << 30))
after = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
print((after - before) * 1024, decode_bytes(read_header(data), int(sys.argv[3])))
"""


def large(kind: str) -> tuple[bytes, int]:
    """A file of 25 megapixels, and the reduction of its decoder."""
    if kind.startswith("png"):
        depth, colour = {"png": (8, 2), "png alpha": (8, 6), "png 16": (16, 2), "png 16 alpha": (16, 6)}[kind]
        return flat_png(5000, 5000, depth=depth, colour=colour), 1
    pixels = np.zeros((5000, 5000, 3), np.uint8)
    if kind == "progressive":
        return make.encode(pixels, progressive=True), 4
    if kind == "lossless":
        return make.encode(pixels, "WEBP", lossless=True, method=0), 1
    if kind in ("AVIF", "JPEG2000"):
        return make.encode(pixels, kind), 1
    return make.encode(pixels, kind), 4 if kind == "JPEG" else 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *("JPEG", "progressive", "png", "png alpha", "png 16", "png 16 alpha"),
        *("WEBP", "lossless", "BMP", "TIFF", "JPEG2000", "AVIF"),
    ],
)
def test_no_decoder_takes_more_memory_than_was_counted(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("large")
    data, reduction = large(kind)
    (folder / "large").write_bytes(data)
    (folder / "small").write_bytes(make.encode(make.scene(8, 8)))
    result = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder / "large"), str(folder / "small"), str(reduction)],
        capture_output=True, text=True, cwd=ROOT, timeout=120, check=True,
    )  # fmt: skip
    peak, counted = map(int, result.stdout.split())
    assert peak <= counted + (24 << 20)  # what libraries keep for themselves


def test_a_budget_is_never_overdrawn_and_everyone_gets_a_turn() -> None:
    budget, held, most = ByteBudget(100), 0, 0
    lock = threading.Lock()

    def work(nbytes: int) -> None:
        nonlocal held, most
        for _ in range(20):
            with budget.take(nbytes):
                with lock:
                    held += nbytes
                    most = max(most, held)
                time.sleep(0)
                with lock:
                    held -= nbytes

    threads = [threading.Thread(target=work, args=(nbytes,)) for nbytes in (100, 60, 30, 30, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert (held, most <= 100) == (0, True)


def test_the_budget_is_given_back_after_a_failure() -> None:
    budget = ByteBudget(10)
    with pytest.raises(KeyError), budget.take(10):
        raise KeyError
    with budget.take(10):
        pass


def test_memory_is_counted_with_depth_transparency_and_scans() -> None:
    def counted(data: bytes) -> int:
        header = read_header(data)
        assert header is not None
        return decode_bytes(header, 1)

    plain = counted(flat_png(100, 100))
    assert counted(flat_png(100, 100, colour=6)) > plain
    assert counted(flat_png(100, 100, depth=16, colour=6)) > counted(flat_png(100, 100, colour=6))
    assert counted(make.encode(make.scene(), progressive=True)) > counted(make.encode(make.scene()))


def test_a_photo_that_takes_long_is_named_while_it_is_decoded(caplog: pytest.LogCaptureFixture) -> None:
    with SlowPhotos(slow_s=0.05) as slow:
        slow.begin(b"quick.jpg")
        assert slow.note() == ""
        slow.begin(b"album/slow.jpg")
        for _ in range(500):
            if caplog.records:
                break
            time.sleep(0.01)
        named = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(named) == 1
        assert "album/slow.jpg" in named[0]
        assert slow.note()


@pytest.mark.slow
def test_99_megapixels_of_a_palette_with_transparency_are_decoded() -> None:
    palette = chunk(b"PLTE", bytes((200, 180, 160, 20, 30, 40))) + chunk(b"tRNS", b"\x80\xff")
    photo = decode_photo(flat_png(9896, 10_000, depth=1, colour=3, extra=palette), long_side=640)
    assert (photo.height, photo.width, photo.reduction) == (10_000, 9896, 8)
