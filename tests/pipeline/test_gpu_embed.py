"""Decode and embed in slots, tested on the CPU: DALI's CPU graph, and stand-ins for CUDA and TensorRT."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.engines.onnxruntime.runner import OrtRunner
from runtime.errors import EngineError, OutOfMemoryError
from runtime.graphs.prepare import prepare_graph
from runtime.images.decode import Limits
from runtime.images.jpeg_runs import JpegRuns
from runtime.pipeline.gpu_embed import EmbedPhotos
from runtime.pipeline.settings import Settings
from runtime.pipeline.stages import Chain, Pipeline, Stage, StageClock
from runtime.pipeline.tuning import tune_gpu
from runtime.pipeline.work import BatchLimit, Decode, Embed
from runtime.records import Embedded, Encoded, Outcome, Status
from tests.support import encoded_images as make
from tests.support.cuda_stand_in import ShimDriver
from tests.support.errors import raises, warnings_in
from tests.support.gpu_stages import open_crop_stage
from tests.support.late_dali import decode_late
from tests.support.model_files import info, save_cnn, spec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # dependencies of DALI warn about deprecations
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

INFO = info(backend="tensorrt", backend_version="tensorrt shim", profile=(1, 8, 16))
JPEGS = [make.encode(make.scene(130, 120, seed), quality=92) for seed in range(20)]
CUT = make.encode(make.scene(400, 300))[:6000]
PNG = make.encode(make.scene(120, 112, 77), "PNG")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    weights = save_cnn(tmp_path_factory.mktemp("engine") / "m.onnx")
    return prepare_graph(weights, spec(), "fp32").SerializeToString()


@pytest.fixture
def open_stage(engine: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a function that opens an EmbedPhotos on the stand-ins."""

    def open_embed(**options: Any) -> AbstractContextManager[EmbedPhotos]:
        decode_late(monkeypatch)
        return open_crop_stage(ShimDriver(tmp_path), (engine, INFO), **options)

    return open_embed


def embed_on_cpu(engine: bytes, batch: Encoded) -> Embedded:
    """Compute the expected result with the two CPU stages."""
    with OrtRunner(engine, info()) as runner:
        return Embed(runner, BatchLimit(8))(Decode(112, "rgb", Limits())(batch))


def check(actual: Embedded, expected: Embedded) -> None:
    """Assert equal rows and outcomes, and nearly equal vectors."""
    assert actual.rows.tolist() == expected.rows.tolist()
    assert sorted(actual.outcomes, key=lambda o: o.row) == sorted(expected.outcomes, key=lambda o: o.row)
    assert actual.embeddings.shape == expected.embeddings.shape
    assert ((actual.embeddings * expected.embeddings).sum(axis=1) > 0.999).all()


BATCHES = {
    "one": [JPEGS[0]],
    "more than a slot holds": JPEGS,
    "damaged and of other kinds": [CUT, *JPEGS[:3], PNG, b"", JPEGS[3], b"junk", PNG, CUT],
    "only for the other decoder": [PNG, PNG],
    "only bad ones": [CUT, b"", CUT],
    "none": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("files", BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_gives_the_result_of_the_cpu(open_stage: Callable[..., Any], engine: bytes, files: list[bytes]) -> None:
    rows = np.arange(len(files)) * 3 + 100
    batch = Encoded(rows, (Outcome(7, Status.UNREADABLE, "gone"),), files=tuple(files))
    with open_stage() as embed:
        check(embed(batch), embed_on_cpu(engine, batch))


@pytest.mark.slow
def test_photos_in_several_dali_runs_share_a_slot(open_stage: Callable[..., Any], engine: bytes) -> None:
    sizes = [(400, 300), (112, 112), (900, 701), (40, 60), (300, 400), (1700, 300), (120, 130)]
    files = [make.encode(make.scene(*size, seed), subsampling=2) for seed, size in enumerate(sizes)]
    batch = Encoded(np.arange(8), files=(*files[:3], CUT, *files[3:]))
    with open_stage(batch_pixels=640_000) as embed:
        check(embed(batch), embed_on_cpu(engine, batch))


@pytest.mark.slow
def test_many_batches_in_flight_come_out_in_order(open_stage: Callable[..., Any], engine: bytes) -> None:
    files = [JPEGS[i % 20] if i % 9 else CUT for i in range(200)]
    batches = [Encoded(np.arange(i, i + 20), files=tuple(files[i : i + 20])) for i in range(0, 200, 20)]
    with open_stage(slots=3) as embed, Pipeline(batches, Chain.of(Stage(StageClock("embed", 3), embed, 4))) as pipeline:
        actual = list(pipeline)
    for embedded, batch in zip(actual, batches, strict=True):
        check(embedded, embed_on_cpu(engine, batch))


@pytest.mark.slow
def test_out_of_memory_halves_the_batch_limit_and_loses_no_photo(
    open_stage: Callable[..., Any], engine: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    batch = Encoded(np.arange(20), files=tuple([*JPEGS[:9], CUT, *JPEGS[9:19]]))
    with open_stage() as embed:
        embed._runner._engine.refusals = {1: "out of memory", 2: "out of memory"}
        check(embed(batch), embed_on_cpu(engine, batch))
        assert embed.limit.size == 2
    assert len([line for line in warnings_in(caplog) if "out of memory" in line]) == 2


@pytest.mark.slow
def test_out_of_memory_in_dali_halves_the_batch_limit(
    open_stage: Callable[..., Any], engine: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = JpegRuns._execute

    def execute_small_batches(pipe: Any, files: list[bytes], stream: int | None) -> Any:
        if len(set(files)) > 3:  # the pipeline first decodes many copies of a small photo
            raise MemoryError("std::bad_alloc")
        return run(pipe, files, stream)

    batch = Encoded(np.arange(20), files=tuple(JPEGS))
    with open_stage() as embed:
        monkeypatch.setattr(JpegRuns, "_execute", staticmethod(execute_small_batches))
        check(embed(batch), embed_on_cpu(engine, batch))
        assert embed.limit.size == 2


@pytest.mark.slow
def test_an_engine_failure_is_raised_with_its_message(open_stage: Callable[..., Any]) -> None:
    with open_stage() as embed:
        embed._runner._engine.refusals = {1: "the GPU fell off the bus"}
        with raises(EngineError, "the GPU fell off the bus"):
            embed(Encoded(np.arange(3), files=tuple(JPEGS[:3])))


@pytest.mark.slow
def test_decoding_and_inference_have_separate_clocks(open_stage: Callable[..., Any]) -> None:
    with open_stage() as embed:
        embed(Encoded(np.arange(4), files=(*JPEGS[:3], CUT)))
        decode, infer = embed._decode_clock, embed._infer_clock
    assert (decode.photos, infer.photos) == (4, 3)
    assert decode.busy_s > 0
    assert infer.busy_s > 0


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2, 3, 4])
def test_warm_up_runs_every_slot_once(open_stage: Callable[..., Any], slots: int) -> None:
    with open_stage(slots=slots) as embed:
        embed.warm_up()
        engine = embed._runner._engine
        assert engine.shapes == [(8, 112, 112, 3)] * slots
        assert len(set(engine.contexts)) == slots


@pytest.mark.slow
def test_every_batch_of_a_run_has_one_size(open_stage: Callable[..., Any]) -> None:
    """TensorRT rounds differently at another size, and where batches end depends on interruptions."""
    with open_stage() as embed:
        for count in (8, 3, 1, 7):
            embed(Encoded(np.arange(count), files=tuple(JPEGS[:count])))
        assert set(embed._runner._engine.shapes) == {(8, 112, 112, 3)}


@pytest.mark.slow
def test_several_threads_may_use_the_stage(open_stage: Callable[..., Any], engine: bytes) -> None:
    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(20)
        batch = Encoded(np.arange(20), files=tuple(JPEGS[i] for i in order))
        check(embed(batch), embed_on_cpu(engine, batch))

    with open_stage(slots=2) as embed, ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))


class CostModel:
    """An EmbedPhotos on a fake clock: each call has a fixed cost and a cost per image; slots share one GPU."""

    def __init__(self, settings: Settings, now: list[float], fits: int) -> None:
        self.limit = BatchLimit(settings.batch_size)
        self._streams, self._now, self._fits = settings.streams, now, fits
        self._lock = threading.Lock()

    def __call__(self, batch: Encoded) -> Encoded:
        if len(batch) > self._fits:
            self.limit.size //= 2
        with self._lock:  # two batches in flight hide half of the fixed cost; further ones hide no more
            self._now[0] += (0.02 / min(2, self._streams) + 0.0001 * len(batch)) / self._streams
        return batch


def tune(fits: int = 10**6, batch_size: int | None = None, slots: int = 9) -> Settings:
    now = [0.0]

    @contextmanager
    def open_embed(settings: Settings) -> Iterator[Any]:
        if settings.streams > slots:
            raise OutOfMemoryError("no room")
        yield CostModel(settings, now, fits)

    wide = info(backend="tensorrt", profile=(1, 256, 512))
    return tune_gpu(wide, open_embed, JPEGS, batch_size=batch_size, clock=lambda: now[0])


def test_the_tuner_chooses_the_largest_batch_when_calls_are_costly() -> None:
    assert tune().batch_size == 512
    assert tune(batch_size=100).batch_size == 100


def test_the_tuner_skips_settings_that_do_not_fit() -> None:
    assert tune(fits=128).batch_size == 128
    assert tune(slots=2).streams == 2
    assert tune(slots=0) == Settings(256, 3, 1, tune().decoders, tune().readers)


def test_unused_dali_memory_is_released_before_the_next_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import nvidia.dali.backend

    releases: list[int] = []
    monkeypatch.setattr(nvidia.dali.backend, "ReleaseUnusedMemory", lambda: releases.append(1))
    tune(slots=2)  # two slots fit, three do not
    assert len(releases) == 2
