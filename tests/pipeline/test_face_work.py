"""From photographs to aligned crops, and the main job around it: outcomes, policies, what is stored and refused."""

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
from runtime.engines.build import build_engine
from runtime.engines.engine import Engine, read_engine
from runtime.engines.runner import Runner
from runtime.errors import ConfigError, ContractError
from runtime.faces.align import template
from runtime.faces.rules import FaceRules
from runtime.faces.selection import LONG_SIDE
from runtime.images.decode import ImageError, Limits, decode_photo
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from runtime.pipeline import face_work
from runtime.pipeline.face_work import DecodePhotos, find_faces_with
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.records import Crops, Encoded, Outcome, Photo, Status
from tests.support import encoded_images as make
from tests.support.errors import Values, assert_names, raises
from tests.support.model_files import spec
from tests.support.red_square_detector import picture, save_red_squares

ONE = picture(400, 300, (100, 120, 90))
TWO = picture(400, 300, (5, 5, 80), (165, 245, 80))
NONE = picture(400, 300)
# Small ones: where every face counts, larger views are looked at, and a square of several cells is several faces.
ONE_SMALL = picture(400, 300, (120, 160, 46))
TWO_SMALL = picture(400, 300, (30, 50, 43), (190, 230, 48))
DETECT = FaceRules(align="detect", min_iod=0)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("red")
    spec = load_spec(str(save_red_squares(folder)))
    return build_engine(spec, resolve_weights(spec), backend="cpu", output=folder).engine


@pytest.fixture(scope="module")
def runner(detector: Engine) -> Runner:
    return open_runner(detector)


def png(image: Any) -> bytes:
    return make.encode(image, "PNG")


def find(runner: Runner, *files: bytes, rules: FaceRules = DETECT, order: str = "rgb") -> Crops:
    batch = Encoded(np.arange(10, 10 + len(files)), (Outcome(3, Status.UNREADABLE, "gone"),), files=files)
    photos = DecodePhotos(order, Limits())(batch)
    return find_faces_with(runner, rules, spec(channel_order=order), Limits())(photos)


def test_each_photograph_ends_with_a_crop_or_an_outcome(runner: Runner) -> None:
    got = find(runner, png(ONE), b"junk", png(NONE), png(TWO))
    assert got.rows.tolist() == [10, 13]
    assert got.images.shape == (2, 112, 112, 3)
    assert [(o.row, o.status) for o in sorted(got.outcomes, key=lambda o: o.row)] == [
        (3, Status.UNREADABLE),
        (11, Status.UNSUPPORTED),
        (12, Status.NO_FACE),
    ]
    assert got.face_counts == {10: 1, 12: 0, 13: 2}
    assert len(got) == 5


def test_the_crop_shows_the_face(runner: Runner) -> None:
    got = find(runner, png(ONE))
    red, green, _ = got.images[0].reshape(-1, 3).mean(axis=0)
    assert red > 90 > green
    bgr = find(runner, png(ONE), order="bgr")
    np.testing.assert_array_equal(bgr.images[0][..., ::-1], got.images[0])


def test_places_are_in_pixels_of_the_original_whatever_was_decoded(runner: Runner) -> None:
    small = find(runner, make.encode(picture(640, 480, (160, 192, 144)), quality=95)).faces
    large = find(runner, make.encode(picture(2560, 1920, (640, 768, 576)), quality=95)).faces  # decoded at a quarter
    assert small is not None
    assert large is not None
    np.testing.assert_allclose(large["box"], 4 * small["box"], atol=8)
    np.testing.assert_allclose(large["landmarks"], 4 * small["landmarks"] + 1.5, atol=8)
    np.testing.assert_allclose(large["iod"], 4 * small["iod"], rtol=0.02)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_orientation_turns_face_and_places(runner: Runner, orientation: int) -> None:
    upright = find(runner, make.encode(ONE, quality=95))
    turned = find(runner, make.encode(make.STORED[orientation](ONE), orientation=orientation, quality=95))
    assert upright.faces is not None
    assert turned.faces is not None
    np.testing.assert_allclose(turned.faces["box"], upright.faces["box"], atol=2)


def test_every_face_gets_a_row_if_asked_for(runner: Runner) -> None:
    got = find(runner, png(ONE_SMALL), png(TWO_SMALL), png(NONE), rules=replace(DETECT, policy="all"))
    assert got.rows.tolist() == [10, 11, 11]
    assert got.faces is not None
    assert got.faces["face_index"].tolist() == [0, 0, 1]
    main, other = got.faces["box"][1:]
    assert (main[:2] > other[:2]).all()  # the lower right square is nearer to the middle
    assert len(got) == 4


def test_several_faces_are_refused_if_one_is_wanted(runner: Runner) -> None:
    got = find(runner, png(TWO_SMALL), png(ONE_SMALL), rules=replace(DETECT, policy="one"))
    assert got.rows.tolist() == [11]
    (outcome,) = (o for o in got.outcomes if o.row > 3)
    assert (outcome.row, outcome.status) == (10, Status.MULTIPLE_FACES)
    assert_names(outcome.detail, "2 faces", "--faces one")
    assert got.face_counts == {10: 2, 11: 1}


@pytest.mark.parametrize(
    ("change", "measured"),
    [
        ({"min_iod": 1000}, r"7\d.* 1000\b"),
        ({"min_sharpness": 1e6}, r"sharpness.* 1e\+06\b"),
        ({"min_frontal": 1.0}, r"frontality.* (1|0\.9\d*)\b.* 1\b"),
    ],
)
def test_poor_faces_are_an_outcome_with_what_was_measured(
    runner: Runner, change: dict[str, Any], measured: str
) -> None:
    got = find(runner, png(ONE), rules=replace(DETECT, **change))
    (outcome,) = (o for o in got.outcomes if o.row == 10)
    assert outcome.status == Status.LOW_QUALITY
    assert re.search(measured, outcome.detail), outcome.detail
    assert len(got.rows) == 0


def test_a_crop_is_taken_as_it_is_with_auto_and_searched_otherwise(runner: Runner) -> None:
    crop = make.scene(112, 112)
    got = find(runner, png(crop), png(ONE), rules=FaceRules(align="auto"))
    assert got.rows.tolist() == [10, 11]
    assert got.faces is not None
    np.testing.assert_array_equal(got.images[0], crop)
    np.testing.assert_allclose(got.faces["landmarks"][0], template(112), atol=1e-4)
    assert np.isnan(got.faces["score"][0])
    assert find(runner, png(crop)).outcomes[-1].status == Status.NO_FACE


@pytest.mark.slow
def test_a_small_face_in_a_reduced_photograph_is_cut_from_a_larger_one(runner: Runner) -> None:
    """Of 5,120 pixels 640 are decoded; the face there is smaller than its crop, in the original it is larger."""
    image = picture(5120, 3840, (1600, 2000, 320))
    for row in range(4):
        image[2000 + row : 2320 : 8, 1600:1920] = (170, 0, 0)
    buffer = io.BytesIO(make.encode(image, quality=90))
    got = find(runner, buffer.getvalue(), rules=replace(DETECT, threshold=0.4))
    assert len(got.images) == 1
    assert got.faces is not None
    assert got.faces["iod"][0] > 60
    assert got.images[0, 40:72, 40:72, 0].std() > 20  # in the reduced one the stripes are one red


@pytest.mark.slow
def test_a_photograph_that_cannot_be_decoded_again_is_an_outcome(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(data: bytes, *, long_side: int, **options: Any) -> Photo:
        if long_side > LONG_SIDE:
            raise ImageError(Status.UNREADABLE, "no memory to decode 3840x5120 pixels")
        return decode_photo(data, long_side=long_side, **options)

    monkeypatch.setattr(face_work, "decode_photo", decode)
    large = make.encode(picture(5120, 3840, (1600, 2000, 320)), quality=90)
    got = find(runner, png(ONE), large, rules=replace(DETECT, threshold=0.4))
    assert got.rows.tolist() == [10]
    assert (11, Status.UNREADABLE) in {(outcome.row, outcome.status) for outcome in got.outcomes}


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
def test_the_main_job_finds_aligns_and_stores(request_for: Callable[..., Request], tmp_path: Path) -> None:
    found = process(request_for())
    assert found.outcomes == {"embedded": 54, "no-face": 6}
    assert set(found.stages) == {"read", "decode", "detect", "infer", "write"}
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["faces/box"].shape == (54, 4)
        assert (file["outcomes/faces"][:] > 0).sum() == 54
        assert file["metadata"].attrs["alignment"].startswith("five landmarks")
        assert file["metadata"].attrs["detector"] == "red-squares"


@pytest.mark.slow
def test_all_faces_have_rows_of_their_own(request_for: Callable[..., Request], tmp_path: Path) -> None:
    found = process(request_for(policy="all"))
    with h5py.File(tmp_path / "o.h5") as file:
        rows = file["outcomes/embeddings"][:]
        assert rows.sum() == len(file["embeddings"]) > found.embedded
        assert len(file["image_paths"]) == len(file["face_index"]) == rows.sum()
        assert file["face_index"][:].max() >= 1


@pytest.mark.slow
def test_a_run_goes_on_only_with_the_same_detector_and_rules(
    request_for: Callable[..., Request], tiny_engine: Path
) -> None:
    request = request_for()
    process(request)
    assert process(request).verdict == "nothing to do"
    for other, values in (
        (request_for(policy="all"), ("faces", "largest", "all")),
        (request_for(min_frontal=0.5), ("min_frontal", 0.0, 0.5)),
        (replace(request, faces=FaceRules("none"), detector=None), ("alignment", "five landmarks", "none")),
    ):
        with raises(ContractError, *values):
            process(other)


def test_the_engines_cannot_be_mixed_up(
    request_for: Callable[..., Request], tiny_engine: Path, detector: Engine
) -> None:
    request = request_for()
    with raises(ConfigError, tiny_engine, "tiny", "facemill build-engine --model facemill-det"):
        process(replace(request, detector=read_engine(tiny_engine)))
    with raises(ConfigError, detector.path, "red-squares", "--engine", "--detector"):
        process(replace(request, engine=detector))
    with raises(ConfigError, "--align", "detect", None):
        replace(request, detector=None)
