"""From photos to aligned crops, alone and in `process`: outcomes, face policies, stored values, refusals."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.engines.backends import open_runner
from runtime.engines.engine import Engine, read_engine
from runtime.engines.runner import Runner
from runtime.errors import ConfigError, ContractError
from runtime.faces.align import template
from runtime.faces.rules import FaceRules
from runtime.faces.selection import LONG_SIDE
from runtime.images.decode import ImageError, Limits, decode_photo
from runtime.pipeline import face_work
from runtime.pipeline.face_work import DecodePhotos, find_faces_with
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.records import Crops, Encoded, Outcome, Photo, Status
from tests.support import encoded_images as make
from tests.support.errors import Values, assert_names, raises
from tests.support.model_files import spec
from tests.support.red_square_detector import build_red_squares, picture

ONE_FACE = picture(400, 300, (100, 120, 90))
TWO_FACES = picture(400, 300, (5, 5, 80), (165, 245, 80))
NO_FACES = picture(400, 300)
# Small faces: policy "all" searches larger views too, where a large square would count as several faces.
ONE_SMALL = picture(400, 300, (120, 160, 46))
TWO_SMALL = picture(400, 300, (30, 50, 43), (190, 230, 48))
DETECT = FaceRules(align="detect", min_iod=0)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return build_red_squares(tmp_path_factory.mktemp("red"))


@pytest.fixture(scope="module")
def runner(detector: Engine) -> Runner:
    return open_runner(detector)


def png(image: Any) -> bytes:
    return make.encode(image, "PNG")


def find_crops(runner: Runner, *files: bytes, rules: FaceRules = DETECT, order: str = "rgb") -> Crops:
    batch = Encoded(np.arange(10, 10 + len(files)), (Outcome(3, Status.UNREADABLE, "gone"),), files=files)
    photos = DecodePhotos(order, Limits())(batch)
    return find_faces_with(runner, rules, spec(channel_order=order), Limits())(photos)


@pytest.mark.slow
def test_each_photo_has_a_crop_or_an_outcome(runner: Runner) -> None:
    crops = find_crops(runner, png(ONE_FACE), b"junk", png(NO_FACES), png(TWO_FACES))
    assert crops.rows.tolist() == [10, 13]
    assert crops.images.shape == (2, 112, 112, 3)
    assert [(outcome.row, outcome.status) for outcome in sorted(crops.outcomes, key=lambda outcome: outcome.row)] == [
        (3, Status.UNREADABLE),
        (11, Status.UNSUPPORTED),
        (12, Status.NO_FACE),
    ]
    assert crops.face_counts == {10: 1, 12: 0, 13: 2}
    assert len(crops) == 5


def test_the_crop_shows_the_face(runner: Runner) -> None:
    crops = find_crops(runner, png(ONE_FACE))
    red, green, _ = crops.images[0].reshape(-1, 3).mean(axis=0)
    assert red > 90 > green
    bgr = find_crops(runner, png(ONE_FACE), order="bgr")
    np.testing.assert_array_equal(bgr.images[0][..., ::-1], crops.images[0])


@pytest.mark.slow
def test_boxes_and_landmarks_are_in_pixels_of_the_original(runner: Runner) -> None:
    small = find_crops(runner, make.encode(picture(640, 480, (160, 192, 144)), quality=95)).faces
    large = find_crops(
        runner, make.encode(picture(2560, 1920, (640, 768, 576)), quality=95)
    ).faces  # decoded at a quarter
    assert small is not None
    assert large is not None
    np.testing.assert_allclose(large["box"], 4 * small["box"], atol=8)
    np.testing.assert_allclose(large["landmarks"], 4 * small["landmarks"] + 1.5, atol=8)
    np.testing.assert_allclose(large["iod"], 4 * small["iod"], rtol=0.02)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_orientation_turns_boxes_too(runner: Runner, orientation: int) -> None:
    upright = find_crops(runner, make.encode(ONE_FACE, quality=95))
    turned = find_crops(runner, make.encode(make.STORED[orientation](ONE_FACE), orientation=orientation, quality=95))
    assert upright.faces is not None
    assert turned.faces is not None
    np.testing.assert_allclose(turned.faces["box"], upright.faces["box"], atol=2)


@pytest.mark.slow
def test_policy_all_gives_every_face_a_row(runner: Runner) -> None:
    crops = find_crops(runner, png(ONE_SMALL), png(TWO_SMALL), png(NO_FACES), rules=replace(DETECT, policy="all"))
    assert crops.rows.tolist() == [10, 11, 11]
    assert crops.faces is not None
    assert crops.faces["face_index"].tolist() == [0, 0, 1]
    main, second = crops.faces["box"][1:]
    assert (main[:2] > second[:2]).all()  # the lower right face is nearer to the middle
    assert len(crops) == 4


def test_policy_one_refuses_several_faces(runner: Runner) -> None:
    crops = find_crops(runner, png(TWO_SMALL), png(ONE_SMALL), rules=replace(DETECT, policy="one"))
    assert crops.rows.tolist() == [11]
    (outcome,) = (outcome for outcome in crops.outcomes if outcome.row > 3)
    assert (outcome.row, outcome.status) == (10, Status.MULTIPLE_FACES)
    assert_names(outcome.detail, "2 faces", "--faces one")
    assert crops.face_counts == {10: 2, 11: 1}


@pytest.mark.parametrize(
    ("change", "measured"),
    [
        ({"min_iod": 1000}, r"7\d.* 1000\b"),
        ({"min_sharpness": 1e6}, r"sharpness.* 1e\+06\b"),
        ({"min_brightness": 254}, r"brightness.* 254\b"),
        ({"min_contrast": 255}, r"contrast.* 255\b"),
        ({"min_frontal": 1.0}, r"frontality.* (1|0\.9\d*)\b.* 1\b"),
    ],
)
def test_poor_faces_are_outcomes_with_their_measured_value(
    runner: Runner, change: dict[str, Any], measured: str
) -> None:
    crops = find_crops(runner, png(ONE_FACE), rules=replace(DETECT, **change))
    (outcome,) = (outcome for outcome in crops.outcomes if outcome.row == 10)
    assert outcome.status == Status.LOW_QUALITY
    assert re.search(measured, outcome.detail), outcome.detail
    assert len(crops.rows) == 0


def test_auto_keeps_an_aligned_crop_and_detect_searches_it(runner: Runner) -> None:
    aligned = make.scene(112, 112)
    crops = find_crops(runner, png(aligned), png(ONE_FACE), rules=FaceRules(align="auto"))
    assert crops.rows.tolist() == [10, 11]
    assert crops.faces is not None
    np.testing.assert_array_equal(crops.images[0], aligned)
    np.testing.assert_allclose(crops.faces["landmarks"][0], template(112), atol=1e-4)
    assert np.isnan(crops.faces["score"][0])
    assert find_crops(runner, png(aligned)).outcomes[-1].status == Status.NO_FACE


@pytest.mark.slow
def test_a_small_face_in_a_reduced_photo_is_cut_from_a_larger_one(runner: Runner) -> None:
    """640 of 5,120 pixels are decoded. There the face is smaller than its crop; in the original it is larger."""
    image = picture(5120, 3840, (1600, 2000, 320))
    for row in range(4):
        image[2000 + row : 2320 : 8, 1600:1920] = (170, 0, 0)
    buffer = io.BytesIO(make.encode(image, quality=90))
    crops = find_crops(runner, buffer.getvalue(), rules=replace(DETECT, threshold=0.4))
    assert len(crops.images) == 1
    assert crops.faces is not None
    assert crops.faces["iod"][0] > 60
    assert crops.images[0, 40:72, 40:72, 0].std() > 20  # in the reduced photo, the stripes merge into one red


@pytest.mark.slow
def test_a_photo_that_cannot_be_decoded_again_is_an_outcome(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes, *, long_side: int, **options: Any) -> Photo:
        if long_side > LONG_SIDE:
            raise ImageError(Status.UNREADABLE, "no memory to decode 3840x5120 pixels")
        return decode_photo(data, long_side=long_side, **options)

    monkeypatch.setattr(face_work, "decode_photo", decode)
    large = make.encode(picture(5120, 3840, (1600, 2000, 320)), quality=90)
    crops = find_crops(runner, png(ONE_FACE), large, rules=replace(DETECT, threshold=0.4))
    assert crops.rows.tolist() == [10]
    assert (11, Status.UNREADABLE) in {(outcome.row, outcome.status) for outcome in crops.outcomes}


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"align": "yes"}, ("--align", "yes")),
        ({"policy": "two"}, ("--faces", "two")),
        ({"threshold": 0}, ("--min-score", 0, 1)),
        ({"threshold": np.nan}, ("--min-score", "nan")),
        ({"min_iod": np.nan}, ("--min-iod", "nan", 0)),
        ({"min_iod": -1}, ("--min-iod", -1)),
        ({"min_sharpness": np.inf}, ("--min-sharpness", "inf", 0)),
        ({"min_brightness": 256}, ("--min-brightness", 256, 255)),
        ({"min_contrast": np.nan}, ("--min-contrast", "nan")),
        ({"min_frontal": np.nan}, ("--min-frontal", "nan")),
        ({"min_frontal": 5}, ("--min-frontal", 5, 0, 1)),
        ({"min_frontal": -0.1}, ("--min-frontal", -0.1)),
    ],
)
def test_wrong_rules_are_refused(change: dict[str, Any], values: Values) -> None:
    with raises(ConfigError, *values):
        FaceRules(**change)


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portraits")
    rng = np.random.default_rng(0)
    for i in range(60):
        squares = [(int(rng.integers(0, 120)), int(rng.integers(0, 200)), 90)] if i % 10 else []
        squares += [(200, 300, 80)] if i % 4 == 1 else []
        (folder / f"p{i:03d}.png").write_bytes(png(picture(400, 300, *squares, seed=i)))
    return folder


@pytest.fixture
def request_for(portraits: Path, tiny_engine: Path, detector: Engine, tmp_path: Path) -> Callable[..., Request]:
    def make_request(output: str = "o.h5", **changes: Any) -> Request:
        faces = FaceRules(align="detect", min_iod=0, **changes)
        return Request((str(portraits),), tmp_path / output, read_engine(tiny_engine), faces=faces, detector=detector)

    return make_request


@pytest.mark.slow
def test_process_detects_aligns_and_stores_faces(request_for: Callable[..., Request], tmp_path: Path) -> None:
    summary = process(request_for())
    assert summary.outcomes == {"embedded": 54, "no-face": 6}
    assert set(summary.stages) == {"read", "decode", "detect", "infer", "write"}
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["faces/box"].shape == (54, 4)
        assert (file["outcomes/faces"][:] > 0).sum() == 54
        assert file["metadata"].attrs["alignment"].startswith("five landmarks")
        assert file["metadata"].attrs["detector"] == "red-squares"


@pytest.mark.slow
def test_process_stores_a_row_per_face(request_for: Callable[..., Request], tmp_path: Path) -> None:
    summary = process(request_for(policy="all"))
    with h5py.File(tmp_path / "o.h5") as file:
        rows = file["outcomes/embeddings"][:]
        assert rows.sum() == len(file["embeddings"]) > summary.embedded
        assert len(file["image_paths"]) == len(file["face_index"]) == rows.sum()
        assert file["face_index"][:].max() >= 1


@pytest.mark.slow
def test_a_run_resumes_only_with_the_same_detector_and_rules(
    request_for: Callable[..., Request], tiny_engine: Path
) -> None:
    request = request_for()
    process(request)
    assert process(request).verdict == "nothing to do"
    for changed, values in (
        (request_for(policy="all"), ("faces", "largest", "all")),
        (request_for(min_frontal=0.5), ("min_frontal", 0.0, 0.5)),
        (replace(request, faces=FaceRules("none"), detector=None), ("alignment", "five landmarks", "none")),
    ):
        with raises(ContractError, *values):
            process(changed)


@pytest.mark.slow
def test_swapped_engines_are_refused(request_for: Callable[..., Request], tiny_engine: Path, detector: Engine) -> None:
    request = request_for()
    with raises(ConfigError, tiny_engine, "tiny", "facemill build-engine --model facemill-det"):
        process(replace(request, detector=read_engine(tiny_engine)))
    with raises(ConfigError, detector.path, "red-squares", "--engine", "--detector"):
        process(replace(request, engine=detector))
    with raises(ConfigError, "--align", "detect", None):
        replace(request, detector=None)
