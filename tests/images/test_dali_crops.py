"""The DALI decoder's CPU graph gives the crops and verdicts of `decode_image`, for any mix of files."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import ConfigError, EngineError
from runtime.images.dali_crops import DaliDecoder
from runtime.images.decode import ImageError, Limits, decode_image
from runtime.images.jpeg_runs import DaliOptions, JpegRuns
from runtime.records import Status
from tests.oracles.preprocess import preprocess_bytes
from tests.support import encoded_images as make
from tests.support.errors import raises

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations in DALI's dependencies cannot be fixed here
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

UPRIGHT = make.scene(160, 120)
GOOD = [make.encode(make.scene(160, 120, seed)) for seed in range(8)]
CUT = make.encode(make.scene(400, 300))[:6000]


def damage(data: bytes) -> bytes:
    """Return a JPEG with an impossible Huffman table. Header and end are intact; only decoding shows the damage."""
    at = data.index(b"\xff\xc4") + 5
    return data[:at] + bytes([255] * 16) + data[at + 16 :]


def with_frame(marker: int, bits: int) -> bytes:
    """A JPEG whose header says that it is of another kind."""
    at = GOOD[0].index(b"\xff\xc0")
    return GOOD[0][: at + 1] + bytes([marker]) + GOOD[0][at + 2 : at + 4] + bytes([bits]) + GOOD[0][at + 5 :]


def as_stored_rgb(data: bytes) -> bytes:
    """A JPEG with an Adobe marker that says that its colours are RGB."""
    return data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0" + data[2:]


DAMAGED = damage(GOOD[0])
HOLED = GOOD[1][:4000] + GOOD[1][4400:]  # part of the scan is missing: DALI continues after the gap


@pytest.fixture(scope="module")
def decoder() -> Iterator[DaliDecoder]:
    with DaliDecoder(112, options=DaliOptions(batch_size=8)) as decoder:
        yield decoder


class HostCrops:
    """Crops in a host array; DALI's graph may be on the CPU or the GPU.

    Attributes:
        runs: the number of crops of each DALI call, without those of the CPU decoder.
        waits: the number of DALI calls before each wait for their crops.
    """

    stream = None

    def __init__(self, count: int) -> None:
        self.images = np.empty((count, 112, 112, 3), np.uint8)
        self.runs: list[int] = []
        self.waits: list[int] = []

    def put_run(self, place: int, photos: Any) -> None:
        photos = photos.as_cpu()
        crops = preprocess_bytes([np.array(photos[i]) for i in range(len(photos))], size=112)
        self.images[place : place + len(crops)] = crops
        self.runs.append(len(crops))

    def before_next_run(self) -> None:
        self.waits.append(len(self.runs))

    def put(self, place: int, crop: NDArray[np.uint8]) -> None:
        self.images[place] = crop


class DecodeResult(NamedTuple):
    """The outcome of a batch: crops and their files, in the order of the files."""

    images: NDArray[np.uint8]
    indices: list[int]
    failures: list[tuple[int, Status, str]]
    runs: list[int]


def decode(decoder: DaliDecoder, files: Sequence[bytes]) -> DecodeResult:
    crops = HostCrops(len(files))
    placed = decoder.decode(files, crops)
    order = np.argsort(placed.indices).astype(int)
    return DecodeResult(crops.images[order], sorted(placed.indices), placed.failures, crops.runs)


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def decode_by_dali(decoder: DaliDecoder, data: bytes) -> NDArray[np.uint8]:
    """Return the crop of a file that DALI alone decoded."""
    got = decode(decoder, [data])
    assert got.runs == [1], "DALI was not asked, or refused"
    return got.images[0]


def check(decoder: DaliDecoder, files: list[bytes], limits: Limits | None = None) -> None:
    """Check that every file has the verdict of decode_image, in the same order, and nearly the same crop."""
    crops, indices, failures = [], [], []
    for i, data in enumerate(files):
        try:
            crops.append(decode_image(data, size=112, limits=limits))
            indices.append(i)
        except ImageError as err:
            failures.append((i, err.status, err.detail))
    got = decode(decoder, files)
    assert got.indices == indices
    assert got.failures == failures
    for got_crop, expected in zip(got.images, crops, strict=True):
        assert difference(got_crop, expected) < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations(decoder: DaliDecoder, orientation: int) -> None:
    data = make.encode(make.STORED[orientation](UPRIGHT), orientation=orientation)
    assert difference(decode_by_dali(decoder, data), decode_image(data, size=112)) < 1.0
    assert difference(decode_by_dali(decoder, data), decode_image(make.encode(UPRIGHT), size=112)) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [(112, 112), (113, 113), (223, 250), (400, 300), (3001, 1999), (40, 60), (300, 80), (112, 300)]
)
@pytest.mark.parametrize("noise", [0, 12])
def test_images_of_all_sizes_are_scaled_in_the_same_way(
    decoder: DaliDecoder, shape: tuple[int, int], noise: int
) -> None:
    pixels = make.scene(*shape) + np.random.default_rng(1).normal(0, noise, (*shape, 1))
    data = make.encode(np.clip(pixels, 0, 255).astype(np.uint8), subsampling=2)
    assert difference(decode_by_dali(decoder, data), decode_image(data, size=112)) < 1.0


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(make.encode(UPRIGHT[..., 1]), id="grey"),
        pytest.param(make.encode(UPRIGHT, progressive=True), id="progressive"),
        pytest.param(make.encode(UPRIGHT, subsampling=1), id="4:2:2"),
        pytest.param(make.encode(UPRIGHT, subsampling=2, quality=60), id="4:2:0"),
        pytest.param(make.encode(UPRIGHT) + bytes(32), id="padded"),
    ],
)
def test_all_kinds_of_jpeg(decoder: DaliDecoder, data: bytes) -> None:
    assert difference(decode_by_dali(decoder, data), decode_image(data, size=112)) < 2.0


def test_bgr_is_rgb_reversed(decoder: DaliDecoder) -> None:
    with DaliDecoder(112, "bgr") as bgr:
        got = decode(bgr, [GOOD[0], make.encode(UPRIGHT, "PNG")])
    assert (got.images[0] == decode_by_dali(decoder, GOOD[0])[..., ::-1]).all()
    assert (got.images[1] == decode_image(make.encode(UPRIGHT, "PNG"), size=112, channel_order="bgr")).all()


def test_files_unfit_for_dali_equal_the_cpu_decoder_exactly(decoder: DaliDecoder) -> None:
    files = [make.encode(UPRIGHT, kind) for kind in ("PNG", "BMP", "WEBP", "TIFF")]
    files.append(make.encode(np.dstack([UPRIGHT, UPRIGHT[..., 0]]), "PNG"))
    files += [make.cmyk_jpeg(UPRIGHT), as_stored_rgb(GOOD[0])]
    got = decode(decoder, files)
    assert (got.indices, got.runs) == (list(range(7)), [])
    assert (got.images == np.stack([decode_image(data, size=112) for data in files])).all()


@pytest.mark.slow
@pytest.mark.parametrize("bad", [CUT, DAMAGED, b"", b"\xff\xd8\xff", b"text", GOOD[0][:-1]])
@pytest.mark.parametrize("index", range(8))
def test_a_bad_file_does_not_affect_the_others(decoder: DaliDecoder, bad: bytes, index: int) -> None:
    files = list(GOOD)
    files[index] = bad
    check(decoder, files)


def test_damage_that_only_decoding_shows_does_not_affect_the_others() -> None:
    with DaliDecoder(112, options=DaliOptions(batch_size=8)) as decoder:
        files = [*GOOD[:3], DAMAGED, *GOOD[3:6], DAMAGED]
        check(decoder, files)
        assert decode(decoder, files).runs == [6]  # in one run without the two that DALI names


def test_pixels_that_dali_makes_up_change_no_other_photo(decoder: DaliDecoder) -> None:
    with pytest.raises(ImageError):
        decode_image(HOLED, size=112)  # its decoder warns
    got = decode(decoder, [*GOOD[:3], HOLED])
    assert (got.indices, got.failures) == ([0, 1, 2, 3], [])
    np.testing.assert_array_equal(got.images[:3], decode(decoder, GOOD[:3]).images)


@pytest.mark.parametrize(("marker", "bits"), [(0xC3, 8), (0xC5, 8), (0xC9, 8), (0xCA, 8), (0xC0, 12), (0xC1, 12)])
def test_dali_gets_no_lossless_hierarchical_arithmetic_or_deep_jpeg(
    decoder: DaliDecoder, marker: int, bits: int
) -> None:
    data = with_frame(marker, bits)
    check(decoder, [*GOOD[:2], data])
    assert decode(decoder, [*GOOD[:2], data]).runs == [2]


def test_a_failure_that_names_no_file_is_traced_to_the_damaged_files(monkeypatch: pytest.MonkeyPatch) -> None:
    execute = JpegRuns._execute

    def execute_in_silence(pipe: Any, files: list[bytes], stream: int | None) -> Any:
        try:
            return execute(pipe, files, stream)
        except RuntimeError:
            raise RuntimeError("something failed") from None

    with DaliDecoder(112, options=DaliOptions(batch_size=8)) as decoder:
        monkeypatch.setattr(JpegRuns, "_execute", staticmethod(execute_in_silence))
        files = [*GOOD[:3], DAMAGED, *GOOD[3:6], DAMAGED]
        check(decoder, files)
        assert decode(decoder, files).runs == [6]


def test_a_pipeline_first_decodes_a_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    execute, counts = JpegRuns._execute, list[int]()

    def execute_and_count(pipe: Any, files: list[bytes], stream: int | None) -> Any:
        counts.append(len(files))
        return execute(pipe, files, stream)

    monkeypatch.setattr(JpegRuns, "_execute", staticmethod(execute_and_count))
    with DaliDecoder(112, options=DaliOptions(batch_size=8)):
        assert counts == [8]


def test_dali_decodes_again_only_after_the_crops_were_made() -> None:
    with DaliDecoder(112, options=DaliOptions(batch_size=3)) as decoder:
        crops = HostCrops(8)
        decoder.decode(GOOD, crops)
    assert (crops.runs, crops.waits) == ([3, 3, 2], [1, 2])


def test_only_bad_files(decoder: DaliDecoder) -> None:
    check(decoder, [DAMAGED, CUT, b"", DAMAGED, b"GIF89a" + bytes(50)])
    check(decoder, [DAMAGED] * 9)
    check(decoder, GOOD)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_order_is_kept_for_any_batch_size(batch_size: int) -> None:
    files = [*GOOD, DAMAGED, make.encode(UPRIGHT, "PNG"), *reversed(GOOD), CUT, make.cmyk_jpeg(UPRIGHT)]
    with DaliDecoder(112, options=DaliOptions(batch_size=batch_size)) as decoder:
        check(decoder, files)
        check(decoder, files[::-1])
        check(decoder, [])


def test_limits_equal_those_of_decode_image() -> None:
    files = [make.encode(make.scene(160, 120)), make.encode(make.scene(400, 300)), make.encode(make.scene(40, 60))]
    for limits in (Limits(max_pixels=160 * 120), Limits(max_bytes=len(files[0])), Limits(max_pixels=1)):
        with DaliDecoder(112, options=DaliOptions(limits=limits)) as decoder:
            check(decoder, files, limits)


@pytest.mark.parametrize(
    ("batch_pixels", "runs"), [(1, []), (160 * 120, [1] * 8), (2 * 160 * 120 + 1, [2] * 4), (10**6, [9])]
)
def test_a_dali_run_is_limited_in_pixels(batch_pixels: int, runs: list[int]) -> None:
    files = [*GOOD, make.encode(make.scene(400, 300))]
    with DaliDecoder(112, options=DaliOptions(batch_pixels=batch_pixels)) as decoder:
        check(decoder, files)
        assert decode(decoder, files).runs == runs


def resident_bytes() -> int:
    """Current memory of this process, in bytes (the peak would hide growth below it)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth() -> int:
    """Measure the memory growth in 160 batches, in bytes, after the first batches allocated every buffer."""
    files = [*GOOD, DAMAGED]
    with DaliDecoder(112, options=DaliOptions(batch_size=16)) as decoder:
        for _ in range(40):
            decode(decoder, files)
        before = resident_bytes()
        for _ in range(160):
            decode(decoder, files)
        return resident_bytes() - before


@pytest.mark.slow
def test_memory_does_not_grow_with_the_batches() -> None:
    code = "import test_dali_crops as here; print(here.growth())"
    folders = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, Path(__file__).parents[2]))
    result = subprocess.run(  # a separate process, because here memory of other tests would be counted
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    grown = int(result.stdout.split()[-1])
    # A leaked pipeline holds 16 images of 12,288 bytes and a thread pool; each batch rebuilds a pipeline.
    assert grown < 32 << 20, f"{grown} bytes more after 160 batches"


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"batch_size": 0}, {"batch_pixels": 0}, {"threads": 0}])
def test_wrong_arguments_are_named(wrong: dict[str, object]) -> None:
    with raises(ConfigError, next(iter(wrong))):
        DaliDecoder(112, options=DaliOptions(**wrong))  # type: ignore[arg-type]


def test_a_missing_gpu_is_an_error_with_the_next_step() -> None:
    with (
        raises(EngineError, "DALI", "GPU 4095", "facemill doctor"),
        DaliDecoder(112, options=DaliOptions(device="mixed", device_id=4095)),
    ):
        pass


@pytest.mark.gpu
def test_the_gpu_gives_the_crops_of_the_cpu() -> None:
    try:
        decoder = DaliDecoder(112, options=DaliOptions(device="mixed", batch_size=8)).__enter__()
    except EngineError as err:
        pytest.skip(f"no GPU for DALI: {err}")
    with decoder:
        sizes = [
            make.encode(make.scene(h, w), subsampling=2) for h, w in ((112, 112), (400, 300), (3000, 2000), (40, 60))
        ]
        turned = [make.encode(make.STORED[o](UPRIGHT), orientation=o) for o in range(1, 9)]
        kinds = [make.encode(UPRIGHT[..., 1]), make.cmyk_jpeg(UPRIGHT), make.encode(UPRIGHT, progressive=True)]
        check(decoder, [*sizes, CUT, *turned, DAMAGED, *kinds])


def test_status_of_damage_is_corrupt(decoder: DaliDecoder) -> None:
    ((index, status, detail),) = decode(decoder, [GOOD[0], DAMAGED]).failures
    assert (index, status) == (1, Status.CORRUPT)
    assert "damaged or truncated" in detail
