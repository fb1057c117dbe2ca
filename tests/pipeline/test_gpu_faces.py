"""Detect, crop and embed faces, tested on the CPU: DALI's CPU graph, kernels by g++, a stand-in for TensorRT."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.engines.build import build_engine
from runtime.engines.engine import EngineInfo
from runtime.engines.onnxruntime.runner import OrtRunner
from runtime.errors import EngineError
from runtime.faces.rules import FaceRules
from runtime.graphs.prepare import prepare_graph
from runtime.images.decode import Limits
from runtime.images.jpeg_runs import JpegRuns
from runtime.modelspec import load_spec
from runtime.modelstore import find_weights, resolve_weights
from runtime.pipeline.face_work import DecodePhotos, find_faces_with
from runtime.pipeline.gpu_faces import EmbedFaces
from runtime.pipeline.work import BatchLimit, Embed
from runtime.records import Embedded, Encoded, Outcome, Status
from tests.support import encoded_images as make
from tests.support.dotted_landmarks import save_drift
from tests.support.errors import raises
from tests.support.gpu_stages import open_face_stage
from tests.support.model_files import info, save_cnn, spec
from tests.support.red_square_detector import picture, save_red_squares

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # dependencies of DALI warn about deprecations
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

DETECT = FaceRules(align="detect", min_iod=0)
ALL = replace(DETECT, policy="all")
Open = Callable[..., Any]
EmbedOnCpu = Callable[..., Embedded]


def jpeg(*squares: tuple[int, int, int], height: int = 400, width: int = 300, seed: int = 0, **options: Any) -> bytes:
    return make.encode(picture(height, width, *squares, seed=seed), **options)


ONE_FACE = [jpeg((40 + 7 * i, 100 + 11 * i, 110 + 3 * i), seed=i) for i in range(1, 10)]
TWO_FACES = [jpeg((30, 50, 43), (190, 230, 48), seed=9), jpeg((20, 250, 46), (180, 60, 44), seed=10)]
NO_FACES = jpeg()
SMALL = jpeg((120, 160, 34))  # too small for the standard views
PNG = make.encode(picture(400, 300, (100, 120, 90)), "PNG")
TURNED = make.encode(make.STORED[6](picture(400, 300, (100, 120, 90))), orientation=6)
CUT = ONE_FACE[0][:3000]
HUFFMAN_OFFSET = ONE_FACE[0].index(b"\xff\xc4") + 5
DAMAGED = ONE_FACE[0][:HUFFMAN_OFFSET] + bytes([255] * 16) + ONE_FACE[0][HUFFMAN_OFFSET + 16 :]
CROP = make.encode(make.scene(112, 112), quality=95)
LARGE = jpeg((640, 768, 576), height=2560, width=1920, quality=95)  # reduced
LONG = jpeg((400, 40, 100), height=180, width=1000)  # its views have the smallest height that a detector accepts
FAR_FACE = jpeg((1600, 2000, 320), height=5120, width=3840, quality=90)  # reduced; the face is cut from a larger decode


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, EngineInfo]:
    folder = tmp_path_factory.mktemp("red")
    red = load_spec(str(save_red_squares(folder)))
    built = build_engine(red, resolve_weights(red), backend="cpu", output=folder)
    return built.engine.content(), built.engine.info


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, EngineInfo]:
    folder = tmp_path_factory.mktemp("drift")
    drift = load_spec(str(save_drift(folder)))
    built = build_engine(drift, resolve_weights(drift), backend="cpu", output=folder)
    return built.engine.content(), built.engine.info


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    weights = save_cnn(tmp_path_factory.mktemp("engine") / "m.onnx")
    return prepare_graph(weights, spec(), "fp32").SerializeToString()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def open_embed_faces(engine: bytes, detector: tuple[bytes, EngineInfo], compiled: Path) -> Open:
    """Make a function that opens an EmbedFaces with the small engines."""

    def open_faces(rules: FaceRules = DETECT, order: str = "rgb", **options: Any) -> AbstractContextManager[EmbedFaces]:
        return open_face_stage((engine, info(channel_order=order)), detector, compiled, rules, **options)

    return open_faces


@pytest.fixture
def embed_on_cpu(engine: bytes, detector: tuple[bytes, EngineInfo]) -> EmbedOnCpu:
    """Make a function that computes the expected result with the three CPU stages."""

    def embed(batch: Encoded, rules: FaceRules = DETECT, order: str = "rgb") -> Embedded:
        embedder = info(channel_order=order)
        with OrtRunner(engine, embedder) as runner, OrtRunner(*detector) as finder:
            faces = find_faces_with(finder, rules, embedder, Limits())(DecodePhotos(order, Limits())(batch))
            return Embed(runner, BatchLimit(8))(faces)

    return embed


def batch_of(*files: bytes) -> Encoded:
    return Encoded(np.arange(len(files)) * 3 + 100, (Outcome(7, Status.UNREADABLE, "gone"),), files=files)


def check(actual: Embedded, expected: Embedded) -> None:
    """Assert equal rows, outcomes and counts, and nearly equal faces and vectors."""
    assert actual.rows.tolist() == expected.rows.tolist()
    assert sorted(actual.outcomes, key=lambda outcome: outcome.row) == sorted(
        expected.outcomes, key=lambda outcome: outcome.row
    )
    assert actual.face_counts == expected.face_counts
    assert actual.faces is not None
    assert expected.faces is not None
    scale = np.maximum(expected.faces["iod"], 20) / 20  # one pixel in a typical portrait
    assert (np.abs(actual.faces["box"] - expected.faces["box"]).max(axis=1, initial=0) <= 1.5 * scale).all()
    assert (
        np.abs(actual.faces["landmarks"] - expected.faces["landmarks"]).max(axis=(1, 2), initial=0) <= 1 * scale
    ).all()
    np.testing.assert_allclose(actual.faces["score"], expected.faces["score"], atol=0.02)
    np.testing.assert_array_equal(actual.faces["face_index"], expected.faces["face_index"])
    np.testing.assert_allclose(actual.faces["sharpness"], expected.faces["sharpness"], rtol=0.2, atol=1)
    assert actual.embeddings.shape == expected.embeddings.shape
    assert ((actual.embeddings * expected.embeddings).sum(axis=1) > 0.999).all()


BATCHES = {
    "one": [ONE_FACE[0]],
    "more than a slot holds": [*ONE_FACE, *ONE_FACE[::-1]],
    "none with a face": [NO_FACES, NO_FACES],
    "damaged and of other kinds": [CUT, *ONE_FACE[:3], PNG, b"", NO_FACES, DAMAGED, ONE_FACE[4], b"junk", TURNED, PNG],
    "only for the other decoder": [PNG, PNG],
    "only bad ones": [CUT, b"", DAMAGED],
    "grey": [make.encode(picture(400, 300)[..., 0]), ONE_FACE[1]],
    "crops are searched too": [CROP, ONE_FACE[1]],
    "large": [LARGE, ONE_FACE[2]],
    "far": [FAR_FACE, ONE_FACE[3]],
    "long": [LONG, ONE_FACE[3]],
    "small": [ONE_FACE[5], SMALL],
    "nothing": [],
}


@pytest.mark.slow
def test_a_second_look_on_the_gpu_gives_the_result_of_the_cpu(
    engine: bytes, detector: tuple[bytes, EngineInfo], landmarks: tuple[bytes, EngineInfo], compiled: Path
) -> None:
    """Faces of one photo, of several, of one that only the CPU decodes, and of a reduced one."""
    rules = replace(ALL, max_fit=1.0)
    batch, large = batch_of(*ONE_FACE[:3], *TWO_FACES, NO_FACES, PNG), batch_of(LARGE)
    with OrtRunner(engine, info()) as runner, OrtRunner(*detector) as finder, OrtRunner(*landmarks) as look:
        photos, find_faces = (
            DecodePhotos("rgb", Limits())(batch),
            find_faces_with(finder, rules, info(), Limits(), look),
        )
        expected = Embed(runner, BatchLimit(8))(find_faces(photos))
        expected_large = find_faces(DecodePhotos("rgb", Limits())(large)).faces
        without = find_faces_with(finder, rules, info(), Limits())(photos)
    with open_face_stage((engine, info()), detector, compiled, rules, landmarks=landmarks) as embed:
        embed.warm_up()
        check(embed(batch), expected)
        of_large = embed(large).faces
    assert of_large is not None
    assert expected_large is not None
    pixels = float(expected_large["iod"].max()) / 20  # of the original; the photo was reduced before it was searched
    np.testing.assert_allclose(of_large["landmarks"], expected_large["landmarks"], atol=pixels)
    assert expected.faces is not None
    assert without.faces is not None
    moved = np.linalg.norm(expected.faces["landmarks"] - without.faces["landmarks"], axis=2).mean(axis=1)
    assert (moved > 0.02 * without.faces["iod"]).mean() > 0.9  # an absurd answer leaves the first look


@pytest.mark.slow
@pytest.mark.parametrize("files", BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_gives_the_result_of_the_cpu(
    open_embed_faces: Open, embed_on_cpu: EmbedOnCpu, files: list[bytes]
) -> None:
    batch = batch_of(*files)
    with open_embed_faces() as embed:
        check(embed(batch), embed_on_cpu(batch))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_each_engine_gets_its_channel_order(open_embed_faces: Open, embed_on_cpu: EmbedOnCpu, order: str) -> None:
    batch = batch_of(ONE_FACE[0], PNG, ONE_FACE[1])
    with open_embed_faces(order=order) as embed:
        check(embed(batch), embed_on_cpu(batch, order=order))


@pytest.mark.slow
def test_every_face_has_a_row_even_beyond_the_size_of_a_slot(open_embed_faces: Open, embed_on_cpu: EmbedOnCpu) -> None:
    batch = batch_of(
        TWO_FACES[0], NO_FACES, TWO_FACES[1], make.encode(picture(400, 300, (30, 50, 43), (190, 230, 48)), "PNG")
    )
    with open_embed_faces(ALL, batch_size=3) as embed:
        actual = embed(batch)
        check(actual, embed_on_cpu(batch, ALL))
    assert actual.rows.tolist() == [100, 100, 106, 106, 109, 109]


@pytest.mark.slow
def test_policy_one_refuses_several_faces(open_embed_faces: Open, embed_on_cpu: EmbedOnCpu) -> None:
    rules, batch = replace(DETECT, policy="one"), batch_of(*TWO_FACES, jpeg((120, 160, 46)))
    with open_embed_faces(rules) as embed:
        actual = embed(batch)
        check(actual, embed_on_cpu(batch, rules))
    assert [outcome.status for outcome in actual.outcomes if outcome.row > 7] == [Status.MULTIPLE_FACES] * 2


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"min_iod": 34}, {"min_sharpness": 240.0}, {"min_frontal": 1.0}])
def test_poor_faces_are_outcomes(open_embed_faces: Open, embed_on_cpu: EmbedOnCpu, change: dict[str, float]) -> None:
    rules, batch = replace(DETECT, **change), batch_of(*ONE_FACE, NO_FACES, SMALL)
    with open_embed_faces(rules) as embed:
        actual, expected = embed(batch), embed_on_cpu(batch, rules)
    assert actual.rows.tolist() == expected.rows.tolist()
    assert {(outcome.row, outcome.status) for outcome in actual.outcomes} == {
        (outcome.row, outcome.status) for outcome in expected.outcomes
    }
    assert any(outcome.status == Status.LOW_QUALITY for outcome in actual.outcomes)


@pytest.mark.slow
def test_auto_looks_once_at_photos_of_crop_size(open_embed_faces: Open, embed_on_cpu: EmbedOnCpu) -> None:
    rules = FaceRules(align="auto", min_iod=0)
    crops, mixed = batch_of(CROP, CROP, make.encode(make.scene(112, 112), "PNG")), batch_of(CROP, ONE_FACE[0])
    with open_embed_faces(rules) as embed:
        actual = embed(crops)
        assert embed._detect._runner._engine.shapes == [(4, 160, 160, 3), (1, 96, 96, 3)]  # one look at each
        check(actual, embed_on_cpu(crops, rules))
        check(embed(mixed), embed_on_cpu(mixed, rules))
    assert actual.faces is not None
    assert np.isnan(actual.faces["score"]).all()


@pytest.mark.slow
def test_large_photos_are_embedded_in_parts(
    open_embed_faces: Open, embed_on_cpu: EmbedOnCpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(*ONE_FACE[:7], PNG)
    with open_embed_faces(pixels=3 * 400 * 300) as embed:
        check(embed(batch), embed_on_cpu(batch))
        assert len(embed._runner._engine.shapes) == 3  # of 3, 3, and 1 with the PNG


@pytest.mark.slow
def test_photos_without_a_face_in_the_views_fall_back_to_the_cpu(open_embed_faces: Open) -> None:
    with open_embed_faces() as embed:
        fallback_rows: list[int] = []
        original_find = embed._find_faces
        embed._find_faces = lambda batch: fallback_rows.extend(batch.rows.tolist()) or original_find(batch)
        embed(batch_of(ONE_FACE[0], NO_FACES, PNG, SMALL, FAR_FACE))
        assert fallback_rows == [103, 106, 109, 112]


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["dali", "detector", "engine"])
def test_out_of_memory_halves_the_batch_limit_and_loses_no_photo(
    open_embed_faces: Open, embed_on_cpu: EmbedOnCpu, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    run = JpegRuns._execute

    def execute_small_batches(pipe: Any, files: list[bytes], stream: int | None) -> Any:
        if len(set(files)) > 3:  # the pipeline first decodes many copies of a small photo
            raise MemoryError("std::bad_alloc")
        return run(pipe, files, stream)

    batch = batch_of(*ONE_FACE, PNG, NO_FACES)
    with open_embed_faces() as embed:
        if owner == "dali":
            monkeypatch.setattr(JpegRuns, "_execute", staticmethod(execute_small_batches))
        else:
            failing = embed._detect._runner if owner == "detector" else embed._runner
            failing._engine.refusals = {1: "out of memory", 2: "out of memory"}
        check(embed(batch), embed_on_cpu(batch))
        assert embed.limit.size == 2


@pytest.mark.parametrize("attribute", ["_runner", "_detect"])
def test_an_engine_failure_is_raised_with_its_message(open_embed_faces: Open, attribute: str) -> None:
    with open_embed_faces() as embed:
        failing = embed._runner if attribute == "_runner" else embed._detect._runner
        failing._engine.refusals = {1: "the GPU fell off the bus"}
        with raises(EngineError, "the GPU fell off the bus"):
            embed(batch_of(*ONE_FACE[:3]))
        assert embed(batch_of(*ONE_FACE[:3])).rows.tolist() == [100, 103, 106]  # slots and resources were returned


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2, 3, 4])
def test_warm_up_runs_every_slot_once(open_embed_faces: Open, slots: int) -> None:
    with open_embed_faces(slots=slots) as embed:
        embed.warm_up()
        engine, finder = embed._runner._engine, embed._detect._runner._engine
        assert engine.shapes == [(8, 112, 112, 3)] * slots
        assert finder.shapes == [(4, view.long_side, view.long_side, 3) for view in DETECT.find.views] * slots
        assert len(set(engine.contexts)) == len(set(finder.contexts)) == slots
        for count in (1, 5):
            embed(batch_of(*ONE_FACE[:count]))
        assert {shape[0] for shape in engine.shapes} == {8}
        assert {shape[0] for shape in finder.shapes} == {4}


def test_each_kind_of_work_has_its_clock(open_embed_faces: Open) -> None:
    with open_embed_faces() as embed:
        embed(batch_of(*ONE_FACE[:3], PNG, CUT))
        clocks = embed._decode_clock, embed._detect_clock, embed._infer_clock
    assert [clock.photos for clock in clocks] == [5, 5, 4]
    assert all(clock.busy_s > 0 for clock in clocks)


@pytest.mark.slow
def test_several_threads_may_use_the_stage(open_embed_faces: Open, embed_on_cpu: EmbedOnCpu) -> None:
    files = [*ONE_FACE, NO_FACES, PNG, CUT]
    expected = {
        order: embed_on_cpu(batch_of(*(files[i] for i in order))) for order in map(tuple, permutations(len(files)))
    }

    def work(order: tuple[int, ...]) -> None:
        check(embed(batch_of(*(files[i] for i in order))), expected[order])

    with open_embed_faces(slots=2) as embed, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, expected))


def permutations(count: int) -> list[list[int]]:
    return [np.random.default_rng(seed).permutation(count).tolist() for seed in range(6)]


def build_real(name: str, folder: Path) -> tuple[bytes, EngineInfo]:
    """Build a CPU engine of a registered model."""
    model = load_spec(name)
    weights = find_weights(model)
    if weights is None:
        pytest.skip(f"{model.file} is not in the folder of real models")
    built = build_engine(model, weights, backend="cpu", output=folder)
    return built.engine.content(), built.engine.info


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yunet", "scrfd-500m"])
@pytest.mark.parametrize("policy", ["largest", "all"])
def test_a_real_detector_finds_the_faces_of_real_photos_as_on_the_cpu(
    shared: Path, name: str, policy: str, tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEMILL_MODELS", str(shared / "models"))
    rules = replace(DETECT, policy=policy)
    finder, embedder = build_real(name, tmp_path), build_real("mobilefacenet-128", tmp_path)
    paths = sorted((shared / "data" / "photos").iterdir())
    files = [make.encode(np.asarray(Image.open(path).convert("RGB")), quality=95) for path in paths]
    batch = batch_of(*files)
    order = embedder[1].channel_order
    with OrtRunner(*embedder) as runner, OrtRunner(*finder) as detector_runner:
        faces = find_faces_with(detector_runner, rules, runner.info, Limits())(DecodePhotos(order, Limits())(batch))
        expected = Embed(runner, BatchLimit(8))(faces)
    with open_face_stage(embedder, finder, compiled, rules) as embed:
        actual = embed(batch)
    assert actual.rows.tolist() == expected.rows.tolist()
    assert actual.faces is not None
    assert expected.faces is not None
    landmark_errors = (
        np.abs(actual.faces["landmarks"] - expected.faces["landmarks"]).max(axis=(1, 2)) / expected.faces["iod"]
    )
    cosines = (actual.embeddings * expected.embeddings).sum(axis=1)
    assert np.median(landmark_errors) < 0.005  # as a share of the eye distance: 0.3 pixels in a crop
    assert (cosines[landmark_errors < 0.005] > 0.998).all()
