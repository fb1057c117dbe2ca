"""Faces found, cut and embedded on the device, on the CPU: DALI's CPU graph, g++'s kernels, a stand-in for TensorRT."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.cuda.kernels import Kernels
from runtime.engines.build import build_engine
from runtime.engines.engine import EngineInfo
from runtime.engines.onnxruntime.runner import OrtRunner
from runtime.engines.tensorrt.runner import TensorRTRunner
from runtime.errors import EngineError
from runtime.faces.rules import FaceRules
from runtime.faces.selection import LONG_SIDE
from runtime.graphs.prepare import prepare_graph
from runtime.images.dali_photos import DaliPhotos
from runtime.images.decode import Limits
from runtime.images.jpeg_runs import DaliOptions, JpegRuns
from runtime.modelspec import load_spec
from runtime.modelstore import find_weights, resolve_weights
from runtime.pipeline.face_work import DecodePhotos, find_faces_with
from runtime.pipeline.gpu_faces import EmbedFaces, FaceResources
from runtime.pipeline.gpu_fill import Warp
from runtime.pipeline.stages import StageClock
from runtime.pipeline.work import BatchLimit, Embed
from runtime.records import Embedded, Encoded, Outcome, Status
from tests.support import encoded_images as make
from tests.support.cuda_stand_in import ShimDriver
from tests.support.errors import raises
from tests.support.model_files import info, save_cnn, spec
from tests.support.red_square_detector import picture, save_red_squares
from tests.support.tensorrt_stand_in import tensorrt_module

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what DALI's own dependencies deprecate is not ours to mend
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

DETECT = FaceRules(align="detect", min_iod=0)
ALL = replace(DETECT, policy="all")
SHIM = {"backend": "tensorrt", "backend_version": "tensorrt shim"}
Open = Callable[..., Any]
OnTheCpu = Callable[..., Embedded]


def jpeg(*squares: tuple[int, int, int], height: int = 400, width: int = 300, seed: int = 0, **options: Any) -> bytes:
    return make.encode(picture(height, width, *squares, seed=seed), **options)


ONE = [jpeg((40 + 7 * i, 100 + 11 * i, 110 + 3 * i), seed=i) for i in range(1, 10)]
TWO = [jpeg((30, 50, 43), (190, 230, 48), seed=9), jpeg((20, 250, 46), (180, 60, 44), seed=10)]
NONE = jpeg()
SMALL = jpeg((120, 160, 34))  # too small for the views that are always looked at
PNG = make.encode(picture(400, 300, (100, 120, 90)), "PNG")
TURNED = make.encode(make.STORED[6](picture(400, 300, (100, 120, 90))), orientation=6)
CUT = ONE[0][:3000]
AT = ONE[0].index(b"\xff\xc4") + 5
DAMAGED = ONE[0][:AT] + bytes([255] * 16) + ONE[0][AT + 16 :]
CROP = make.encode(make.scene(112, 112), quality=95)
LARGE = jpeg((640, 768, 576), height=2560, width=1920, quality=95)  # reduced
LONG = jpeg((400, 40, 100), height=180, width=1000)  # its views are as low as a detector's pictures may be
FAR = jpeg((1600, 2000, 320), height=5120, width=3840, quality=90)  # reduced, and its face cut from a larger one


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, EngineInfo]:
    folder = tmp_path_factory.mktemp("red")
    red = load_spec(str(save_red_squares(folder)))
    built = build_engine(red, resolve_weights(red), backend="cpu", output=folder)
    return built.engine.content(), built.engine.info


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    weights = save_cnn(tmp_path_factory.mktemp("engine") / "m.onnx")
    return prepare_graph(weights, spec(), "fp32").SerializeToString()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@contextmanager
def open_stage(
    embedder: tuple[bytes, EngineInfo],
    finder: tuple[bytes, EngineInfo],
    compiled: Path,
    rules: FaceRules = DETECT,
    batch_size: int = 8,
    slots: int = 2,
    pixels: int = 1 << 25,
) -> Iterator[EmbedFaces]:
    """The stage on what stands for a GPU."""
    driver = ShimDriver(compiled)
    opening: dict[str, Any] = {"slots": slots, "driver": driver, "trt": tensorrt_module()}
    infos = (replace(one[1], **SHIM, profile=profile) for one, profile in ((embedder, (1, 8, 16)), (finder, (1, 2, 4))))
    with (
        TensorRTRunner(embedder[0], next(infos), **opening) as runner,
        TensorRTRunner(finder[0], next(infos), **opening) as searcher,
        ExitStack() as stack,
    ):
        own, order = stack.enter_context, finder[1].channel_order
        options = DaliOptions(batch_size=batch_size, batch_pixels=pixels, threads=1)
        warping = {"size": 112, "reverse": order != embedder[1].channel_order, "capacity": batch_size}
        sides, kernels = [view.long_side for view in rules.find.views], Kernels(driver)
        resources = [
            FaceResources(own(DaliPhotos(sides, LONG_SIDE, order, options)), own(Warp(driver, kernels, **warping)))
            for _ in range(slots)
        ]
        clocks = StageClock("decode", slots), StageClock("detect", slots), StageClock("infer", slots)
        yield EmbedFaces(runner, searcher, resources, rules, batch_size, Limits(), clocks)


@pytest.fixture
def opened(engine: bytes, detector: tuple[bytes, EngineInfo], compiled: Path) -> Open:
    """Opens an EmbedFaces of the small engines."""

    def open_faces(rules: FaceRules = DETECT, order: str = "rgb", **options: Any) -> AbstractContextManager[EmbedFaces]:
        return open_stage((engine, info(channel_order=order)), detector, compiled, rules, **options)

    return open_faces


@pytest.fixture
def on_the_cpu(engine: bytes, detector: tuple[bytes, EngineInfo]) -> OnTheCpu:
    """The three stages that this one stands for."""

    def embed(batch: Encoded, rules: FaceRules = DETECT, order: str = "rgb") -> Embedded:
        embedder = info(channel_order=order)
        with OrtRunner(engine, embedder) as runner, OrtRunner(*detector) as finder:
            faces = find_faces_with(finder, rules, embedder, Limits())(DecodePhotos(order, Limits())(batch))
            return Embed(runner, BatchLimit(8))(faces)

    return embed


def batch_of(*files: bytes) -> Encoded:
    return Encoded(np.arange(len(files)) * 3 + 100, (Outcome(7, Status.UNREADABLE, "gone"),), files=files)


def check(got: Embedded, wanted: Embedded) -> None:
    """The same rows, outcomes and counts; nearly the same faces and vectors."""
    assert got.rows.tolist() == wanted.rows.tolist()
    assert sorted(got.outcomes, key=lambda o: o.row) == sorted(wanted.outcomes, key=lambda o: o.row)
    assert got.face_counts == wanted.face_counts
    assert got.faces is not None
    assert wanted.faces is not None
    scale = np.maximum(wanted.faces["iod"], 20) / 20  # a pixel in a usual portrait
    assert (np.abs(got.faces["box"] - wanted.faces["box"]).max(axis=1, initial=0) <= 1.5 * scale).all()
    assert (np.abs(got.faces["landmarks"] - wanted.faces["landmarks"]).max(axis=(1, 2), initial=0) <= 1 * scale).all()
    np.testing.assert_allclose(got.faces["score"], wanted.faces["score"], atol=0.02)
    np.testing.assert_array_equal(got.faces["face_index"], wanted.faces["face_index"])
    np.testing.assert_allclose(got.faces["sharpness"], wanted.faces["sharpness"], rtol=0.2, atol=1)
    assert got.embeddings.shape == wanted.embeddings.shape
    assert ((got.embeddings * wanted.embeddings).sum(axis=1) > 0.999).all()


BATCHES = {
    "one": [ONE[0]],
    "more than a slot holds": [*ONE, *ONE[::-1]],
    "none with a face": [NONE, NONE],
    "damaged and of other kinds": [CUT, *ONE[:3], PNG, b"", NONE, DAMAGED, ONE[4], b"junk", TURNED, PNG],
    "only for the other decoder": [PNG, PNG],
    "only bad ones": [CUT, b"", DAMAGED],
    "grey": [make.encode(picture(400, 300)[..., 0]), ONE[1]],
    "crops are searched too": [CROP, ONE[1]],
    "large": [LARGE, ONE[2]],
    "far": [FAR, ONE[3]],
    "long": [LONG, ONE[3]],
    "small": [ONE[5], SMALL],
    "nothing": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("files", BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_ends_as_it_does_on_the_cpu(opened: Open, on_the_cpu: OnTheCpu, files: list[bytes]) -> None:
    batch = batch_of(*files)
    with opened() as embed:
        check(embed(batch), on_the_cpu(batch))


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_channels_are_in_the_order_of_each_engine(opened: Open, on_the_cpu: OnTheCpu, order: str) -> None:
    batch = batch_of(ONE[0], PNG, ONE[1])
    with opened(order=order) as embed:
        check(embed(batch), on_the_cpu(batch, order=order))


@pytest.mark.slow
def test_every_face_has_a_row_even_if_they_are_more_than_a_slot_holds(opened: Open, on_the_cpu: OnTheCpu) -> None:
    batch = batch_of(TWO[0], NONE, TWO[1], make.encode(picture(400, 300, (30, 50, 43), (190, 230, 48)), "PNG"))
    with opened(ALL, batch_size=3) as embed:
        got = embed(batch)
        check(got, on_the_cpu(batch, ALL))
    assert got.rows.tolist() == [100, 100, 106, 106, 109, 109]


def test_several_faces_are_refused_if_one_is_wanted(opened: Open, on_the_cpu: OnTheCpu) -> None:
    rules, batch = replace(DETECT, policy="one"), batch_of(*TWO, jpeg((120, 160, 46)))
    with opened(rules) as embed:
        got = embed(batch)
        check(got, on_the_cpu(batch, rules))
    assert [o.status for o in got.outcomes if o.row > 7] == [Status.MULTIPLE_FACES] * 2


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"min_iod": 34}, {"min_sharpness": 240.0}, {"min_frontal": 1.0}])
def test_poor_faces_are_outcomes(opened: Open, on_the_cpu: OnTheCpu, change: dict[str, float]) -> None:
    rules, batch = replace(DETECT, **change), batch_of(*ONE, NONE, SMALL)
    with opened(rules) as embed:
        got, wanted = embed(batch), on_the_cpu(batch, rules)
    assert got.rows.tolist() == wanted.rows.tolist()
    assert {(o.row, o.status) for o in got.outcomes} == {(o.row, o.status) for o in wanted.outcomes}
    assert any(o.status == Status.LOW_QUALITY for o in got.outcomes)


def test_photographs_of_the_crops_size_are_crops_with_auto(opened: Open, on_the_cpu: OnTheCpu) -> None:
    rules = FaceRules(align="auto", min_iod=0)
    crops, mixed = batch_of(CROP, CROP, make.encode(make.scene(112, 112), "PNG")), batch_of(CROP, ONE[0])
    with opened(rules) as embed:
        got = embed(crops)
        assert embed._detect._runner._engine.shapes == []  # nothing was looked for
        check(got, on_the_cpu(crops, rules))
        check(embed(mixed), on_the_cpu(mixed, rules))
    assert got.faces is not None
    assert np.isnan(got.faces["score"]).all()


def test_photographs_that_take_much_memory_are_embedded_in_parts(
    opened: Open, on_the_cpu: OnTheCpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(*ONE[:7], PNG)
    with opened(pixels=3 * 400 * 300) as embed:
        check(embed(batch), on_the_cpu(batch))
        assert [shape[0] for shape in embed._runner._engine.shapes] == [4, 4, 2]  # 3, 3, and 1 with the PNG


@pytest.mark.slow
def test_what_the_views_do_not_show_goes_the_cpus_way(opened: Open) -> None:
    with opened() as embed:
        looked: list[int] = []
        find = embed._find_faces
        embed._find_faces = lambda batch: looked.extend(batch.rows.tolist()) or find(batch)
        embed(batch_of(ONE[0], NONE, PNG, SMALL, FAR))
        assert looked == [103, 106, 109, 112]


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["dali", "detector", "engine"])
def test_out_of_memory_halves_the_slice_for_good_and_loses_nothing(
    opened: Open, on_the_cpu: OnTheCpu, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    run = JpegRuns._execute

    def small(pipe: Any, files: list[bytes], stream: int | None) -> Any:
        if len(files) > 3:
            raise MemoryError("std::bad_alloc")
        return run(pipe, files, stream)

    batch = batch_of(*ONE, PNG, NONE)
    with opened() as embed:
        if whose == "dali":
            monkeypatch.setattr(JpegRuns, "_execute", staticmethod(small))
        else:
            failing = embed._detect._runner if whose == "detector" else embed._runner
            failing._engine.refusals = {1: "out of memory", 2: "out of memory"}
        check(embed(batch), on_the_cpu(batch))
        assert embed.limit.size == 2


@pytest.mark.parametrize("which", ["_runner", "_detect"])
def test_an_engine_that_fails_stops_the_stage_with_its_words(opened: Open, which: str) -> None:
    with opened() as embed:
        failing = embed._runner if which == "_runner" else embed._detect._runner
        failing._engine.refusals = {1: "the GPU fell off the bus"}
        with raises(EngineError, "the GPU fell off the bus"):
            embed(batch_of(*ONE[:3]))
        assert embed(batch_of(*ONE[:3])).rows.tolist() == [100, 103, 106]  # slots and resources came back


def test_warming_up_reaches_every_slot(opened: Open) -> None:
    with opened(slots=3) as embed:
        embed.warm_up()
        assert embed._runner._engine.shapes == [(8, 112, 112, 3)] * 3
        sides = [view.long_side for view in DETECT.find.views]
        assert embed._detect._runner._engine.shapes == [(4, side, side, 3) for side in sides] * 3


def test_the_clocks_tell_the_work_apart(opened: Open) -> None:
    with opened() as embed:
        embed(batch_of(*ONE[:3], PNG, CUT))
        clocks = embed._decode_clock, embed._detect_clock, embed._infer_clock
    assert [clock.photos for clock in clocks] == [5, 5, 4]
    assert all(clock.busy_s > 0 for clock in clocks)


@pytest.mark.slow
def test_threads_share_the_stage(opened: Open, on_the_cpu: OnTheCpu) -> None:
    files = [*ONE, NONE, PNG, CUT]
    wanted = {order: on_the_cpu(batch_of(*(files[i] for i in order))) for order in map(tuple, orders(len(files)))}

    def work(order: tuple[int, ...]) -> None:
        check(embed(batch_of(*(files[i] for i in order))), wanted[order])

    with opened(slots=2) as embed, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, wanted))


def orders(count: int) -> list[list[int]]:
    return [np.random.default_rng(turn).permutation(count).tolist() for turn in range(6)]


def real(name: str, folder: Path) -> tuple[bytes, EngineInfo]:
    """An engine of a registered model, for the CPU."""
    model = load_spec(name)
    weights = find_weights(model)
    if weights is None:
        pytest.skip(f"{model.file} is not in the folder of real models")
    built = build_engine(model, weights, backend="cpu", output=folder)
    return built.engine.content(), built.engine.info


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yunet", "scrfd-500m"])
@pytest.mark.parametrize("policy", ["largest", "all"])
def test_a_real_detector_finds_the_faces_of_real_photographs_alike(
    shared: Path, name: str, policy: str, tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEMILL_MODELS", str(shared / "models"))
    rules = replace(DETECT, policy=policy)
    finder, embedder = real(name, tmp_path), real("mobilefacenet-128", tmp_path)
    paths = sorted((shared / "data" / "photos").iterdir())
    files = [make.encode(np.asarray(Image.open(path).convert("RGB")), quality=95) for path in paths]
    batch = batch_of(*files)
    order = embedder[1].channel_order
    with OrtRunner(*embedder) as runner, OrtRunner(*finder) as searcher:
        faces = find_faces_with(searcher, rules, runner.info, Limits())(DecodePhotos(order, Limits())(batch))
        wanted = Embed(runner, BatchLimit(8))(faces)
    with open_stage(embedder, finder, compiled, rules) as embed:
        got = embed(batch)
    assert got.rows.tolist() == wanted.rows.tolist()
    assert got.faces is not None
    assert wanted.faces is not None
    off = np.abs(got.faces["landmarks"] - wanted.faces["landmarks"]).max(axis=(1, 2)) / wanted.faces["iod"]
    cosines = (got.embeddings * wanted.embeddings).sum(axis=1)
    assert np.median(off) < 0.005  # of the distance between the eyes: 0.3 pixels in a crop
    assert (cosines[off < 0.005] > 0.998).all()
