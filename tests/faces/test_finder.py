"""From photos of any size to faces: views, retries, and merging of views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.backends import open_runner
from runtime.engines.build import build_engine
from runtime.engines.runner import Runner
from runtime.faces.detectors import DECODERS, Faces, iou
from runtime.faces.finder import Finder, FindRules, View, canvas_shape, draw, merge_views, surroundings
from runtime.modelspec import load_spec
from runtime.modelstore import find_weights, resolve_weights
from tests.support.red_square_detector import picture, save_red_squares


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("red")
    spec = load_spec(str(save_red_squares(folder)))
    return open_runner(build_engine(spec, resolve_weights(spec), backend="cpu", output=folder).engine)


def photo(height: int, width: int, *squares: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture(height, width, *squares)[..., ::-1])


class RecordingDetector:
    """A detector that records the shapes of its inputs."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, canvases: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(canvases.shape)
        return self._runner.infer(canvases)


def middle(faces: Faces) -> NDArray[np.float32]:
    return (faces.boxes[0, :2] + faces.boxes[0, 2:]) / 2


@pytest.mark.slow
def test_faces_are_located_in_each_photo(runner: Runner) -> None:
    squares = [(200, 100, 140), (0, 0, 100), (20, 60, 36), (500, 900, 480)]
    sizes = [(600, 500), (400, 300), (112, 150), (2000, 1600)]
    photos = [photo(*size, square) for size, square in zip(sizes, squares, strict=True)]
    faces_by_photo = Finder(runner.infer, DECODERS["yunet"], FindRules(), 16).find(photos)
    for faces, (height, width), (x, y, side) in zip(faces_by_photo, sizes, squares, strict=True):
        assert len(faces) == 1
        cell = 32 * max(height, width) / 160
        assert np.abs(middle(faces) - (x + side / 2, y + side / 2)).max() < 0.75 * cell


def test_photos_of_one_shape_share_a_call(runner: Runner) -> None:
    detect = RecordingDetector(runner)
    photos = [photo(400, 300, (100, 100, 150))] * 5 + [photo(300, 400, (100, 100, 150))] * 2
    Finder(detect, DECODERS["yunet"], FindRules(views=(View(160),), retries=()), 3).find(photos)
    assert sorted(detect.shapes) == [(2, 128, 160, 3), (2, 160, 128, 3), (3, 160, 128, 3)]


def test_retries_run_only_on_photos_without_a_face(runner: Runner) -> None:
    detect = RecordingDetector(runner)
    rules = FindRules(views=(View(64),), retries=(View(128), View(256)))
    photos = [photo(320, 320, (160, 160, 160)), photo(320, 320), photo(320, 320, (80, 80, 80))]
    faces_by_photo = Finder(detect, DECODERS["yunet"], rules, 16).find(photos)
    assert [len(faces) for faces in faces_by_photo] == [1, 0, 1]
    turned = [(2, 160, 160, 3)] * 3
    assert detect.shapes == [(3, 64, 64, 3), *turned, (2, 128, 128, 3), (1, 256, 256, 3)]


class RecordingDoubt:
    """A second look that has the same doubt about every face, and counts the photos that it sees."""

    def __init__(self, doubt: float) -> None:
        self.doubt, self.seen = doubt, 0

    def __call__(self, photos: Sequence[NDArray[np.uint8]], faces: Sequence[Faces]) -> list[NDArray[np.float32]]:
        self.seen += len(photos)
        return [np.full(len(each), self.doubt, np.float32) for each in faces]


@pytest.mark.parametrize(("sure", "doubt", "kept", "seen"), [(0.5, 0.5, 1, 0), (1.1, 0.1, 1, 1), (1.1, 0.5, 0, 1)])
def test_a_second_look_judges_only_the_faces_of_photos_without_a_sure_one(
    runner: Runner, sure: float, doubt: float, kept: int, seen: int
) -> None:
    rules = replace(FindRules(retries=()), confirmed=True, faint=View(32))  # too small to show anything
    look, decoder = RecordingDoubt(doubt), replace(DECODERS["yunet"], sure=sure)
    (faces,) = Finder(runner.infer, decoder, rules, 16, look).find([photo(400, 400, (100, 100, 160))])
    assert (len(faces), look.seen > 0) == (kept, seen > 0)


@pytest.mark.parametrize(("doubt", "count"), [(0.05, 1), (0.15, 0)])
def test_a_faint_face_needs_a_sure_second_look(runner: Runner, doubt: float, count: int) -> None:
    """Every square has a score of 0.5, below the threshold of 0.6."""

    def detect(canvases: NDArray[np.uint8]) -> NDArray[np.float32]:
        raw = runner.infer(canvases).copy()
        raw[..., 0] /= 2
        return raw

    image, rules = photo(400, 400, (100, 100, 160)), FindRules(retries=())
    assert not len(Finder(detect, DECODERS["yunet"], rules, 16).find([image])[0])
    confirmed = replace(rules, confirmed=True, faint=View(160))
    (faces,) = Finder(detect, DECODERS["yunet"], confirmed, 16, RecordingDoubt(doubt)).find([image])
    assert len(faces) == count
    if count:
        assert np.abs(middle(faces) - (180, 180)).max() < 0.75 * 32 * 400 / 160


def test_the_rules_name_the_second_look() -> None:
    plain, confirmed = FindRules(), FindRules().with_second_look()
    assert str(confirmed).startswith("160+0 160+0.5 448+0 320+0.25 960+0 160+0.25; ")
    assert "doubt" not in str(plain)
    assert str(confirmed).endswith("doubt 0.27; faint 320 from 0.75 doubt 0.1")
    assert "of 0.6 in 8 views" in plain.explain_no_face()
    assert "of 0.6 in 9 views, or of 0.45 in 4 more" in confirmed.explain_no_face()


def test_a_small_face_is_detected_again_at_higher_resolution(runner: Runner) -> None:
    """The region around it is enlarged to a full view, so that the grid is fine enough."""
    photos = [photo(900, 900, (560, 420, 200)), photo(400, 400, (120, 120, 200))]
    detect = RecordingDetector(runner)
    finder = Finder(detect, DECODERS["yunet"], FindRules(views=(View(320),)), 16)
    coarse = [
        replace(faces.take([0]), seen_px=np.array([size], np.float32))
        for faces, size in zip(finder.find(photos), (20, 90), strict=True)
    ]
    moved = replace(coarse[0], boxes=coarse[0].boxes + 70, landmarks=coarse[0].landmarks + 70)
    del detect.shapes[:]
    closer = finder.look_closer(photos, [moved, coarse[1]])
    assert detect.shapes == [(1, 160, 128, 3)]  # only the region around the small face
    assert np.abs(middle(closer[0]) - (660, 520)).max() < np.abs(middle(moved) - (660, 520)).max()
    assert closer[1] is coarse[1]
    sideways = replace(moved, landmarks=moved.landmarks[..., ::-1])
    assert finder.look_closer(photos[:1], [sideways])[0] is sideways


def test_surroundings_stay_inside_the_photo() -> None:
    assert surroundings(np.array([10, 10, 20, 14], np.float32), 100, 60) == (2, 0, 28, 25)
    x_min, y_min, x_max, y_max = surroundings(np.array([-30, 90, -20, 130], np.float32), 100, 60)
    assert 0 <= x_min < x_max <= 60
    assert 0 <= y_min < y_max <= 100


def test_zero_photos_give_zero_faces(runner: Runner) -> None:
    assert Finder(runner.infer, DECODERS["yunet"], FindRules(), 4).find([]) == []


@pytest.mark.parametrize(
    ("size", "view", "shape"),
    [
        ((400, 300), View(160), (160, 128)),
        ((300, 400), View(224), (192, 224)),
        ((250, 250), View(160, 0.5), (320, 320)),
        ((4000, 10), View(160), (160, 32)),
        ((1, 1), View(32), (32, 32)),
    ],
)
def test_canvases_are_multiples_of_the_largest_stride(
    size: tuple[int, int], view: View, shape: tuple[int, int]
) -> None:
    assert canvas_shape(*size, view, 32) == shape


def test_a_view_keeps_the_proportions_and_the_border_is_black() -> None:
    white = np.full((200, 100, 3), 255, np.uint8)
    canvas = np.zeros((*canvas_shape(200, 100, View(96, 0.25), 32), 3), np.uint8)
    factor, shift = draw(white, View(96, 0.25), canvas)
    assert (factor, shift) == (0.48, 24)
    ys, xs = np.nonzero(canvas[..., 0])
    assert (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1) == (24, 120, 24, 72)


def face_at(x: float, score: float) -> Faces:
    return Faces(
        np.array([score], np.float32),
        np.array([[x, 0, x + 10, 10]], np.float32),
        np.full((1, 5, 2), x, np.float32),
        np.array([10], np.float32),
    )


def test_faces_in_several_views_are_averaged_and_others_kept() -> None:
    merged = merge_views([face_at(0, 0.7), face_at(2, 0.9)])
    np.testing.assert_allclose(merged.scores, [0.9])
    np.testing.assert_allclose(merged.boxes, [[1, 0, 11, 10]])
    np.testing.assert_allclose(merged.landmarks[0, 0], [1, 1])
    apart = merge_views([face_at(0, 0.7), face_at(50, 0.9), face_at(51, 0.8)])
    np.testing.assert_allclose(apart.scores, [0.9, 0.7])
    np.testing.assert_allclose(apart.boxes[0], [50.5, 0, 60.5, 10])
    nothing = face_at(0, 0.7).take([])
    assert len(merge_views([nothing, nothing])) == 0
    assert len(merge_views([nothing, face_at(3, 0.6)])) == 1


@pytest.mark.slow
def test_yunet_equals_opencvs(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network on the same canvas: the same boxes, and landmarks within half a pixel."""
    monkeypatch.setenv("FACEMILL_MODELS", str(shared / "models"))
    spec = load_spec("yunet")
    weights = find_weights(spec)
    assert weights is not None
    engine = build_engine(spec, weights, backend="cpu", output=tmp_path).engine
    images = [cv2.imread(str(path)) for path in sorted((shared / "data" / "photos").iterdir())]
    compared = 0
    with open_runner(engine) as runner:
        for image in images:
            view = View(640)
            canvas = np.zeros((*canvas_shape(*image.shape[:2], view, 32), 3), np.uint8)
            draw(image, view, canvas)
            from runtime.faces.detectors import DECODERS, find_faces

            height, width = canvas.shape[:2]
            (faces,) = find_faces(
                runner.infer(canvas[None]), decoder=DECODERS["yunet"], height=height, width=width, threshold=0.6
            )
            theirs = cv2.FaceDetectorYN.create(str(weights), "", (width, height), 0.6, 0.3, 5000)
            _, expected = theirs.detect(canvas)
            assert len(expected) == len(faces)
            for row in expected:
                box = np.array([row[0], row[1], row[0] + row[2], row[1] + row[3]], np.float32)
                shared_area = iou(box, faces.boxes)
                best = int(shared_area.argmax())
                assert shared_area[best] > 0.99
                assert np.abs(faces.landmarks[best] - row[4:14].reshape(5, 2)).max() < 0.5
                assert abs(faces.scores[best] - row[14]) < 1e-3
                compared += 1
    assert compared > 20
