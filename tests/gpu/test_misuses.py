"""Misuses of CUDA, each put into the code of the GPU path for a moment: the stand-in notices them all.

A misuse replaces a piece of the source of one function. The scenarios then do what a run does: batches of several runs
of DALI, faces, a batch that TensorRT refuses, a runner that is closed while a thread uses it.

A table of addresses that is staged at its start for every run of DALI is no misuse: each run waits for the one before.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.cuda.resources import DeviceBuffer, PinnedBuffer, Stream
from runtime.engines.build import build_engine
from runtime.engines.engine import EngineInfo
from runtime.engines.onnxruntime.runner import OrtRunner
from runtime.engines.parity import synthetic_crops
from runtime.engines.tensorrt import slot as slot_module
from runtime.engines.tensorrt.runner import TensorRTRunner
from runtime.engines.tensorrt.slot import Slot
from runtime.errors import EngineError
from runtime.faces.rules import FaceRules
from runtime.graphs.prepare import prepare_graph
from runtime.images.decode import Limits
from runtime.images.jpeg_runs import JpegRuns
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from runtime.pipeline.gpu_detect import DetectOnGpu
from runtime.pipeline.gpu_embed import DeviceCrops, EmbedPhotos
from runtime.pipeline.gpu_faces import EmbedFaces
from runtime.pipeline.gpu_fill import Shrink, Warp
from runtime.pipeline.work import BatchLimit, Decode, Embed
from runtime.records import Embedded, Encoded
from tests.support import encoded_images as make
from tests.support.cuda_stand_in import ShimDriver, checked
from tests.support.gpu_stages import open_crop_stage, open_face_stage
from tests.support.late_dali import decode_late
from tests.support.model_files import info, save_cnn, spec
from tests.support.red_square_detector import picture, save_red_squares
from tests.support.tensorrt_stand_in import tensorrt_module

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # dependencies of DALI warn about deprecations
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

INFO = info(backend="tensorrt", backend_version="tensorrt_rtx shim", profile=(1, 8, 16))
OTHER = "self.__dict__.setdefault('_other', self._driver.new_stream())"
SIZES = [(400, 300), (112, 112), (300, 400), (120, 130), (260, 270), (410, 200), (330, 310), (150, 600)]
PHOTOS = [make.encode(make.scene(*size, seed), subsampling=2) for seed, size in enumerate(SIZES)]
FACES = [make.encode(picture(400, 300, (40 + 7 * i, 100 + 11 * i, 110 + 3 * i), seed=i)) for i in range(1, 6)]
FACE_PNG = make.encode(picture(400, 300, (100, 120, 90)), "PNG")


@dataclass(frozen=True)
class Misuse:
    """A mistake: `old` becomes `new` in the source of an attribute of a class or module."""

    name: str
    owner: Any
    attribute: str
    old: str
    new: str


FINISHED = "self.stream.record(self._finished)"
FETCHED = "self.stream.download(self._outputs, self._view(count))"
STAGED = "self._host_inputs.view((place + len(crops), *crops.shape[1:]), np.uint8)[place:]"
LARGEST = "return min(max(low, 1 << (count - 1).bit_length()), high)"
CONTEXT = "context = self._engine.create_execution_context(*self._configure(trt, cache))"
WARP = "own.warp(slot, images[start:stop], transforms[start:stop])"
FILL = "if len(host_crops):\n                slot.fill(on_device, host_crops)"
FETCH = "slot.fetch(on_device)"
LINE = "\n            "

MISUSES = [
    Misuse("finish does not wait for the batch", Slot, "finish", "self._finished.synchronize()", "pass"),
    Misuse("the engine runs on the default stream", Slot, "start", "_v3(self.stream.address)", "_v3(0)"),
    Misuse(
        "the end is marked before the answers are fetched",
        Slot,
        "start",
        f"{FETCHED}\n    {FINISHED}",
        f"{FINISHED}\n    {FETCHED}",
    ),
    Misuse("fetched does not wait", Slot, "fetched", "self._fetched.synchronize()", "pass"),
    Misuse("fetch marks nothing", Slot, "fetch", "self.stream.record(self._fetched)", "pass"),
    Misuse(
        "crops are staged over those that are still being sent",
        Slot,
        "fill",
        STAGED,
        "self._host_inputs.view(crops.shape, np.uint8)",
    ),
    Misuse(
        "crops are staged in memory that is freed before they are sent",
        Slot,
        "fill",
        STAGED,
        "self.stream._driver.allocate_pinned(crops.nbytes).reshape(crops.shape)",
    ),
    Misuse("finish hands out the page-locked memory", Slot, "finish", "self._view(count).copy()", "self._view(count)"),
    Misuse("the engine gets an unaligned address", Slot, "__init__", "buffer.address)", "buffer.address + 4)"),
    Misuse(
        "the memory of a slot is freed before its stream has ended",
        Slot,
        "__exit__",
        "self._stack.__exit__(*exc)",
        "self.places.__exit__(); self._outputs.__exit__(); self._stack.__exit__(*exc)",
    ),
    Misuse(
        "a batch is larger than the profile",
        slot_module,
        "padded_size",
        LARGEST,
        "return max(low, 1 << (count - 1).bit_length(), high + 1)",
    ),
    Misuse("leaving a stream does not wait for it", Stream, "__exit__", "self.synchronize()", "pass"),
    Misuse("answers are fetched on another stream", Stream, "download", "offset, self._handle)", f"offset, {OTHER})"),
    Misuse("pictures are sent on another stream", Stream, "upload", "offset), self._handle)", f"offset), {OTHER})"),
    Misuse("kernels run on another stream", Stream, "launch", "numbers, self._handle)", f"numbers, {OTHER})"),
    Misuse("views are copied on another stream", Stream, "copy", "nbytes, self._handle)", f"nbytes, {OTHER})"),
    Misuse("a failed batch is not waited for", TensorRTRunner, "slot", "slot.stream.synchronize()", "pass"),
    Misuse("a closed runner does not wait for its slots", TensorRTRunner, "__exit__", "self._slots.get()", "pass"),
    Misuse("no driver is current in a slot", TensorRTRunner, "slot", "with self.driver:", "if True:"),
    Misuse(
        "a slot is given to two threads",
        TensorRTRunner,
        "slot",
        "slot = self._slots.get()\n",
        "slot = self._slots.get()\n    self._slots.put(slot)\n",
    ),
    Misuse(
        "the configuration of a context is dropped",
        TensorRTRunner,
        "_configure",
        "self._configs.append(config)",
        "pass",
    ),
    Misuse(
        "all slots share one context",
        TensorRTRunner,
        "__init__",
        CONTEXT,
        f"{CONTEXT}{LINE}context = self.__dict__.setdefault('_one', context)",
    ),
    Misuse("DALI does not wait before its next run", JpegRuns, "run", "before_next()", "pass"),
    Misuse(
        "the wait before the next run waits for nothing",
        DeviceCrops,
        "before_next_run",
        "self._slot.stream.synchronize()",
        "pass",
    ),
    Misuse("the photos of DALI are not held", DeviceCrops, "put_run", "self._held = photos", "self._held = True"),
    Misuse(
        "the buffer of addresses is freed while the kernel reads it",
        Shrink,
        "__call__",
        "size=self._size\n    )",
        "size=self._size\n    )\n    self._images = type(self._images)(slot.stream._driver, self._images.nbytes)",
    ),
    Misuse(
        "the transforms are freed while the kernel reads them",
        Warp,
        "__call__",
        "slot.stream.upload(pinned, buffer)",
        "slot.stream.upload(pinned, buffer)\n"
        "    self._transforms = type(self._transforms)(slot.stream._driver, self._transforms.nbytes)",
    ),
    Misuse(
        "resources are returned before the batch has ended",
        EmbedPhotos,
        "_embed",
        "rows, infer_s = slot.finish(count)",
        "pass\n    if count:\n        rows, infer_s = slot.finish(count)",
    ),
    Misuse(
        "crops are fetched before they are made",
        EmbedFaces,
        "_infer",
        LINE.join((WARP, FILL, FETCH)),
        LINE.join((FETCH, WARP, FILL)),
    ),
    Misuse(
        "the answers of the detector are read before they are there",
        DetectOnGpu,
        "_search",
        "slot.finish(count)[0]",
        "slot._view(count).copy()",
    ),
]


def put_in(monkeypatch: pytest.MonkeyPatch, misuse: Misuse) -> None:
    """Replace a function by one with the mistake, until the end of the test."""
    function = inspect.unwrap(inspect.getattr_static(misuse.owner, misuse.attribute))
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(misuse.old) == 1, "the source has changed: correct the misuse"
    body = textwrap.indent(source.replace(misuse.old, misuse.new), "    ")
    code = compile(f"def make(__class__):\n{body}\n    return {misuse.attribute}", misuse.name, "exec")
    scope: dict[str, Any] = {}
    exec(code, sys.modules[function.__module__].__dict__, scope)
    monkeypatch.setattr(misuse.owner, misuse.attribute, scope["make"](misuse.owner))


@dataclass(frozen=True)
class Bench:
    """Engines, and what the scenarios must give.

    Attributes:
        engine: the embedding network.
        detector: a detector and its facts.
        folder: where kernels are compiled.
        photos, faces: the expected results.
    """

    engine: bytes
    detector: tuple[bytes, EngineInfo]
    folder: Path
    photos: Embedded
    faces: Embedded | None

    def driver(self) -> ShimDriver:
        return ShimDriver(self.folder)

    def runner(self, driver: ShimDriver, slots: int) -> TensorRTRunner:
        return TensorRTRunner(self.engine, INFO, slots=slots, driver=driver, trt=tensorrt_module("tensorrt_rtx"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("misuses")
    engine = prepare_graph(save_cnn(folder / "m.onnx"), spec(), "fp32").SerializeToString()
    with OrtRunner(engine, info()) as runner:
        photos = Embed(runner, BatchLimit(8))(Decode(112, "rgb", Limits())(photo_batch()))
    red = load_spec(str(save_red_squares(folder)))
    built = build_engine(red, resolve_weights(red), backend="cpu", output=folder).engine
    prepared = Bench(engine, (built.content(), built.info), folder, photos, None)
    return replace(prepared, faces=embed_faces(prepared))


def photo_batch() -> Encoded:
    return Encoded(np.arange(len(PHOTOS)), files=tuple(PHOTOS))


def embed_faces(bench: Bench) -> Embedded:
    """Faces on the device and one from the host, in batches that need several slots."""
    rules = FaceRules(align="detect", min_iod=0)
    batch = Encoded(np.arange(6), files=(*FACES, FACE_PNG))
    with open_face_stage((bench.engine, info()), bench.detector, bench.folder, rules, batch_size=3) as stage:
        return stage(batch)


def try_photos(bench: Bench) -> None:
    """Threads embed batches, each of several runs of DALI and with slots in turns."""
    with (
        open_crop_stage(bench.driver(), (bench.engine, INFO), slots=2, batch_pixels=250_000) as stage,
        ThreadPoolExecutor(3) as pool,
    ):
        for embedded in pool.map(lambda _: stage(photo_batch()), range(6)):
            np.testing.assert_array_equal(embedded.rows, bench.photos.rows)
            assert ((embedded.embeddings * bench.photos.embeddings).sum(axis=1) > 0.9999).all()


def try_faces(bench: Bench) -> None:
    """Faces have the rows, measures and vectors of the code without a mistake."""
    actual, expected = embed_faces(bench), bench.faces
    assert expected is not None
    assert expected.faces is not None
    assert actual.faces is not None
    np.testing.assert_array_equal(actual.rows, expected.rows)
    np.testing.assert_array_equal(actual.embeddings, expected.embeddings)
    np.testing.assert_array_equal(actual.faces["sharpness"], expected.faces["sharpness"])


def try_slots(bench: Bench) -> None:
    """Slots in turns and at once, filled in parts, with crops made on the device, and a batch that is refused."""
    crops = synthetic_crops(112, count=16)
    with OrtRunner(bench.engine, info()) as cpu:
        expected = cpu.infer(crops)
    driver, runner_module = bench.driver(), tensorrt_module("tensorrt_rtx")
    with checked(driver), bench.runner(driver, 2) as runner:
        first = runner.infer(crops[:8])
        for _ in range(2):
            np.testing.assert_allclose(runner.infer(crops[8:16]), expected[8:], atol=1e-5)
        np.testing.assert_allclose(first, expected[:8], atol=1e-5)
        with runner.slot() as slot, runner.slot() as other:
            for each, start in ((slot, 0), (other, 8)):
                each.fill(0, crops[start : start + 3])
                each.fill(3, crops[start + 3 : start + 8])
                each.start(8)
            np.testing.assert_allclose(slot.finish(8)[0], expected[:8], atol=1e-5)
            np.testing.assert_allclose(other.finish(8)[0], expected[8:], atol=1e-5)
        context = runner._engine.create_execution_context(*runner._configure(runner_module, None))
        with Slot(driver, context, INFO) as left:
            left.fill(0, crops[:8])
            left.start(8)
        refuse_a_batch(runner, crops)
        np.testing.assert_allclose(runner.infer(crops), expected, atol=1e-5)


def refuse_a_batch(runner: TensorRTRunner, crops: Any) -> None:
    """A refused batch leaves no work in its slot, whose buffers another thread gets next."""
    runner._engine.refusals = {len(runner._engine.shapes) + 1: "no"}
    failed: list[Slot] = []

    def embed() -> None:
        with runner.slot() as slot:
            failed.append(slot)
            slot.fill(0, crops[:8])
            slot.start(8)

    with pytest.raises(EngineError):
        embed()
    stream = failed[0].stream._handle
    assert stream.done == stream.asked, "work of a failed batch is under way"


def try_streams(bench: Bench) -> None:
    """A stream that is left with work under way has done it before its buffers are freed."""
    driver = bench.driver()
    with checked(driver):
        with DeviceBuffer(driver, 4096) as device, PinnedBuffer(driver, 4096) as host, Stream(driver) as stream:
            stream.upload(host.view((4096,), np.uint8), device)
            handle = stream._handle
        assert handle.done == handle.asked, "work of a stream that was left is under way"


def try_close(bench: Bench) -> None:
    """A runner that is closed while a thread uses a slot waits for it."""
    driver, crops = bench.driver(), synthetic_crops(112, count=8)
    with OrtRunner(bench.engine, info()) as cpu:
        expected = cpu.infer(crops)
    inside, results = threading.Event(), list[Any]()

    def use(runner: TensorRTRunner) -> None:
        try:
            with runner.slot() as slot:
                slot.fill(0, crops)
                slot.start(8)
                inside.set()
                time.sleep(0.05)
                results.append(slot.finish(8)[0])
        except Exception as err:
            results.append(err)

    with checked(driver):
        with bench.runner(driver, 2) as runner:
            thread = threading.Thread(target=use, args=(runner,))
            thread.start()
            inside.wait(10)
        thread.join(10)
    assert not isinstance(results[0], Exception), results[0]
    np.testing.assert_allclose(results[0], expected, atol=1e-5)


SCENARIOS: list[Callable[[Bench], None]] = [try_streams, try_slots, try_close, try_photos, try_faces]


@pytest.fixture(autouse=True)
def late_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_late(monkeypatch)


def try_all(bench: Bench) -> None:
    for scenario in SCENARIOS:
        scenario(bench)


@pytest.mark.slow
def test_the_code_as_it_is_passes_all_scenarios(bench: Bench) -> None:
    try_all(bench)


@pytest.mark.slow
@pytest.mark.parametrize("misuse", MISUSES, ids=lambda misuse: misuse.name)
def test_a_misuse_is_noticed(bench: Bench, misuse: Misuse, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, misuse)
    # An error of another kind would be a mistake in the misuse itself, such as an unknown name. Warnings are errors.
    with pytest.raises((AssertionError, EngineError, RuntimeWarning)):
        try_all(bench)
