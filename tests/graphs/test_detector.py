"""Detectors: graphs for any batch and size, built and proven in the same way as any engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from runtime.engines.backends import open_runner
from runtime.engines.build import BuildResult, build_engine
from runtime.engines.calibrate import CalibrationSet
from runtime.engines.parity import BARS, Bar, synthetic_crops, synthetic_groups, tile_views, weigh_by_score
from runtime.errors import ConfigError, EngineError, ModelError, ParityError
from runtime.faces.detectors import DECODERS, find_faces
from runtime.graphs.detector import load_detector, reference_faces
from runtime.modelspec import ModelSpec, load_spec
from runtime.modelstore import SHIPPED_DETECTOR, find_weights, resolve_weights
from tests.support.errors import Values, assert_names, raises
from tests.support.red_square_detector import picture, save_red_squares

REAL = ("facemill-det", "yunet", "scrfd-500m", "scrfd-2.5g")


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_red_squares(tmp_path_factory.mktemp("red"))


@pytest.fixture(scope="module")
def built(red: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    spec = load_spec(str(red))
    return build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path_factory.mktemp("engines"))


@pytest.mark.slow
def test_a_detector_is_built_and_proven(built: BuildResult) -> None:
    assert (built.engine.info.task, built.engine.info.decode) == ("detect", "yunet")
    assert (built.engine.info.parity.images, built.engine.info.dimension) == (4, 15)
    assert built.engine.info.parity.minimum > 0.99999


@pytest.mark.parametrize(("height", "width"), [(32, 32), (160, 224), (640, 640)])
@pytest.mark.parametrize("count", [1, 3])
def test_a_detector_accepts_any_picture_size_and_number(
    built: BuildResult, height: int, width: int, count: int
) -> None:
    with open_runner(built.engine) as runner:
        raw = runner.infer(np.zeros((count, height, width, 3), np.uint8))
    assert raw.shape == (count, DECODERS["yunet"].anchor_count(height, width), 15)
    assert raw.dtype == np.float32


def test_each_picture_of_a_batch_has_its_own_faces(built: BuildResult) -> None:
    squares = [(64, 32, 64), (0, 96, 64), (128, 0, 64)]
    pictures = np.stack([picture(160, 224, square)[..., ::-1] for square in squares])
    with open_runner(built.engine) as runner:
        raw = runner.infer(np.ascontiguousarray(pictures))
        alone = [runner.infer(np.ascontiguousarray(image[None])) for image in pictures]
    np.testing.assert_allclose(raw, np.concatenate(alone), atol=1e-5)
    for faces, (x, y, side) in zip(
        find_faces(raw, decoder=DECODERS["yunet"], height=160, width=224, threshold=0.5, vote=0.1), squares, strict=True
    ):
        middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        assert len(faces)
        assert np.abs(middles - (x + side / 2, y + side / 2)).max() <= 17  # half a cell


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((1, 100, 96, 3), ("(1, 100, 96, 3)", "(n, H, W, 3)", 32)),
        ((1, 96, 96, 1), ("(1, 96, 96, 1)", "(n, H, W, 3)", 32)),
        ((257, 32, 32, 3), (1, 256, 257)),
    ],
)
def test_invalid_pictures_are_refused(built: BuildResult, shape: tuple[int, ...], values: Values) -> None:
    with open_runner(built.engine) as runner, raises(ConfigError, *values):
        runner.infer(np.zeros(shape, np.uint8))


def test_a_model_that_is_no_detector_is_refused(red: Path, tmp_path: Path) -> None:
    spec = load_spec(str(red))
    model = onnx.load(resolve_weights(spec))
    del model.graph.output[-1]
    onnx.save(model, tmp_path / "short.onnx")
    with raises(ModelError, "{1: 6, 4: 3, 10: 2}"):
        load_detector(tmp_path / "short.onnx", spec)
    (tmp_path / "cnn").mkdir()
    from tests.support.model_files import save_cnn

    with raises(ModelError, "vector", "MatMul", "1, 4, 10", "(N, anchors, values)"):
        load_detector(save_cnn(tmp_path / "cnn.onnx"), spec)


@pytest.fixture
def real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelSpec, Path]:
    """A real detector, by its name; all but the shipped one are in the folder of real models."""
    if request.param != SHIPPED_DETECTOR:
        monkeypatch.setenv("FACEMILL_MODELS", str(request.getfixturevalue("shared") / "models"))
    spec = load_spec(request.param)
    weights = find_weights(spec)
    assert weights is not None
    return spec, weights


@pytest.mark.slow
@pytest.mark.parametrize("real", REAL, indirect=True)
def test_real_detectors_give_the_outputs_of_their_files(real: tuple[ModelSpec, Path], tmp_path: Path) -> None:
    spec, weights = real
    engine = build_engine(spec, weights, backend="cpu", output=tmp_path).engine
    groups = synthetic_groups(2)
    with open_runner(engine) as runner:
        raw = runner.infer(groups)
    expected = reference_faces(weights, spec, groups)
    np.testing.assert_allclose(raw, expected, atol=2e-4)
    assert raw[..., 0].max() > 0.3, "no face was found: the pictures prove nothing"
    assert weigh_by_score(expected).any()


@pytest.mark.slow
@pytest.mark.parametrize("real", ["facemill-det", "yunet"], indirect=True)
def test_a_real_detector_in_int8(real: tuple[ModelSpec, Path], tmp_path: Path) -> None:
    """Compare its faces with those of the original file. (SCRFD needs real faces for calibration.)"""
    spec, weights = real
    calibration = CalibrationSet(views_of_faces(seed=5), 0)
    result = build_engine(spec, weights, backend="cpu", precision="int8", output=tmp_path, calibration=calibration)
    assert result.engine.info.precision == "int8"
    assert result.engine.info.parity.images == 4 + 2  # its own pictures, and groups of sixteen of the last quarter
    assert result.engine.info.parity.mean >= BARS["int8"].mean
    groups = synthetic_groups(2)  # pictures of another seed
    with open_runner(result.engine) as runner:
        raw = runner.infer(groups)
    expected = reference_faces(weights, spec, groups)
    assert not np.array_equal(raw, expected.astype(np.float32))
    sure = expected[..., 0] > 0.6
    assert sure.sum() > 10
    assert (raw[..., 0][sure] > 0.5).mean() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("real", ["facemill-det", "yunet"], indirect=True)
def test_int8_calibrated_without_faces_is_refused(real: tuple[ModelSpec, Path], tmp_path: Path) -> None:
    """Pictures without faces cannot show that an engine misses faces."""
    spec, weights = real
    dull = np.linspace(40, 90, 64, dtype=np.uint8)[:, None, None, None] * np.ones((1, 160, 160, 3), np.uint8)
    with raises((EngineError, ParityError), "--precision"):
        build_engine(
            spec, weights, backend="cpu", precision="int8", output=tmp_path, calibration=CalibrationSet(dull, 0)
        )


def views_of_faces(seed: int) -> NDArray[np.uint8]:
    return np.pad(synthetic_crops(112, 128, seed), ((0, 0), (24, 24), (24, 24), (0, 0)))


@pytest.mark.slow
def test_auto_times_a_detector_on_its_views(red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BARS, "int8", Bar(-1.0, -1.0))  # red squares are not faces
    monkeypatch.setattr("runtime.engines.make._TARGET", -1.0)
    spec = load_spec(str(red))
    calibration = CalibrationSet(views_of_faces(seed=0), 0)
    result = build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path, calibration=calibration)
    assert_names(result.reason, "auto", "images/s")


@pytest.mark.slow
def test_a_detector_for_larger_batches_is_proven(red: Path, tmp_path: Path) -> None:
    spec = load_spec(str(red))
    result = build_engine(spec, resolve_weights(spec), backend="cpu", batch=(2, 4, 8), output=tmp_path)
    assert result.engine.info.parity.minimum > 0.99999


def test_sixteen_views_form_a_four_by_four_grid() -> None:
    views = np.arange(33, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    groups = tile_views(views, (128, 128))
    assert groups.shape == (2, 128, 128, 3)
    assert groups[1, 33, 65, 0] == 16 + 4 + 2


def test_crops_of_another_size_do_not_calibrate_a_detector(red: Path, tmp_path: Path) -> None:
    spec = load_spec(str(red))
    crops = CalibrationSet(np.zeros((64, 112, 112, 3), np.uint8), 0)
    with raises(ConfigError, "(112, 112, 3)", "(160, 160, 3)"):
        build_engine(spec, resolve_weights(spec), backend="cpu", precision="int8", output=tmp_path, calibration=crops)
