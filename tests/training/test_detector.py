"""Training of the detector, if torch is installed: checked targets, a falling loss, exact resume, an equal file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from runtime.errors import ParityError
from tests.support.errors import raises
from tests.support.facemill_command import ROOT
from tests.support.training_extra import settings_of, torch_of_extra, write_tar

torch = torch_of_extra()

SIDE = 160


def scenes(count: int = 16, size: int = SIDE, seed: int = 0, **rules: Any) -> Any:
    """Compose pictures with single-colour crops, each with its box and landmarks."""
    from training.scenes import SceneRules, compose

    rng = torch.Generator().manual_seed(seed)
    crops = torch.randint(0, 256, (count, 3, 3, 14, 14), generator=rng, dtype=torch.uint8)
    crops = crops.repeat_interleave(8, 3).repeat_interleave(8, 4)
    boxes = torch.tensor([20.0, 10.0, 92.0, 108.0]).expand(count, 3, 4)
    marks = torch.tensor([[38.0, 52.0], [74.0, 52.0], [56.0, 72.0], [42.0, 92.0], [71.0, 92.0]]).expand(count, 3, 5, 2)
    return compose(crops, boxes, marks, crops[:, 0], size, SceneRules(**rules), rng)


def test_landmarks_stay_in_order_within_their_boxes() -> None:
    composed = scenes(64, rotation=5.0, turned=0.0)
    marks, boxes = composed.landmarks[composed.present], composed.boxes[composed.present]
    assert 40 < len(boxes) < 110
    assert (marks[:, 0, 0] < marks[:, 1, 0]).all()  # left first as seen in the picture, also when mirrored
    assert (marks[:, 3, 0] < marks[:, 4, 0]).all()
    assert (marks[:, 0, 1] < marks[:, 3, 1]).all()
    assert ((marks >= boxes[:, None, :2]) & (marks <= boxes[:, None, 2:])).all()
    assert not (composed.present & composed.cut).any()
    assert composed.images.min() >= 0
    assert composed.images.max() < 255.01


def test_the_share_of_images_without_a_face_is_respected() -> None:
    assert not scenes(empty=1.0).present.any()
    assert (scenes(empty=0.0, more=0.0, portrait=1.0).present.sum(dim=1) == 1).all()


def encode_answers(composed: Any, scores: float) -> Any:
    """(N, P, 15): answers of a perfect detector, in the cell at the centre of each face."""
    from training.detection import cells

    places, strides = cells(SIDE)
    raw = torch.zeros(len(composed.boxes), len(places), 15)
    for n, f in (composed.present | composed.cut).nonzero().tolist():
        box, marks = composed.boxes[n, f], composed.landmarks[n, f]
        middle = ((box[:2] + box[2:]) / 2).clamp(1, SIDE - 1)
        for p in ((places == (middle / strides[:, None]).floor()).all(dim=1)).nonzero()[:, 0].tolist():
            raw[n, p, 0] = scores
            raw[n, p, 1:3] = (box[:2] + box[2:]) / 2 / strides[p] - places[p]
            raw[n, p, 3:5] = ((box[2:] - box[:2]) / strides[p]).log()
            raw[n, p, 5:] = (marks / strides[p] - places[p]).ravel()
    return raw


def test_answers_equal_to_the_teachers_cost_nothing_and_facemill_decodes_them() -> None:
    from runtime.faces.detectors import DECODERS, find_faces
    from training.detection import check_answers, detection_loss

    composed = scenes(24, empty=0.0, more=0.0, turned=0.0)
    raw = encode_answers(composed, 0.9)
    answers = check_answers(raw, composed, SIDE)
    assert answers.trusted.sum() > 24
    values = raw.clone()
    values[..., 0] = torch.logit(answers.scores, eps=1e-6)
    assert float(detection_loss(values, answers, SIDE, 6.0)["loss"]) < 1e-3
    read = find_faces(raw.numpy(), decoder=DECODERS["yunet"], height=SIDE, width=SIDE, threshold=0.5)
    present = composed.present[:, 0]
    assert present.sum() > 12
    for faces, box, marks, expected in zip(read, composed.boxes[:, 0], composed.landmarks[:, 0], present, strict=True):
        if expected:
            assert len(faces) == 1
            np.testing.assert_allclose(faces.boxes[0], box, atol=0.01)
            np.testing.assert_allclose(faces.landmarks[0], marks, atol=0.01)
    for part, change in (("score", 0), ("box", 3), ("landmarks", 5)):
        worse = values.clone()
        worse[..., change] += 0.5
        assert float(detection_loss(worse, answers, SIDE, 6.0)[part]) > 0.01


def test_faces_of_the_teacher_outside_known_faces_are_ignored() -> None:
    from training.detection import check_answers

    expected = scenes(24, empty=0.5)
    empty = ~(expected.present | expected.cut).any(dim=1)
    assert 4 < empty.sum() < 20
    raw = encode_answers(expected, 0.9)
    raw[empty, :, 0] = 0.9
    answers = check_answers(raw, expected, SIDE)
    assert not answers.scores[empty].any()
    assert not answers.trusted[empty].any()
    assert answers.trusted[~empty].any(dim=1).all()


def test_far_landmarks_are_not_learned_but_the_score_is() -> None:
    from training.detection import check_answers

    expected = scenes(24, empty=0.0, more=0.0)
    raw = encode_answers(expected, 0.9)
    raw[..., 5::2] += 12.0
    answers = check_answers(raw, expected, SIDE)
    assert not answers.trusted.any()
    assert (answers.scores > 0.5).any()


def test_a_missed_upright_face_is_ignored_and_a_missed_inverted_face_is_background() -> None:
    from training.detection import check_answers

    for turned in (False, True):
        expected = scenes(24, empty=0.0, more=0.0, turned=0.0, rotation=0.0)
        if turned:
            expected.landmarks[:] = expected.landmarks[:, :, [4, 3, 2, 1, 0]]
        answers = check_answers(encode_answers(expected, 0.4), expected, SIDE)
        present = expected.present.any(dim=1)
        assert present.sum() > 12
        assert (answers.counts[present].all(dim=1) == turned).all()
        assert not answers.trusted[present].any() or turned
        assert answers.counts[~present].all()


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("size", [128, 160, 320])
@pytest.mark.parametrize("mirror", [False, True])
def test_a_second_look_moves_boxes_and_landmarks_with_the_pixels(size: int, mirror: bool, share: float) -> None:
    """The brightest pixels mark the landmarks."""
    from training.looks import Look, look_again
    from training.scenes import MIRRORED, Scenes

    marks = torch.tensor([[30.0, 40.0], [90.0, 44.0], [60.0, 70.0], [38.0, 100.0], [84.0, 104.0]])
    x = torch.arange(SIDE, dtype=torch.float32)
    images = torch.zeros(5, 3, SIDE, SIDE)
    for point, image in zip(marks, images, strict=True):  # a wide spot for each landmark
        image[:] = 255 * torch.exp(-((x[None] - point[0]) ** 2 + (x[:, None] - point[1]) ** 2) / 50)
    boxes = torch.cat([marks - 4.5, marks + 5.5], 1)[:, None]  # edges: half a pixel around the middle pixels
    mask = torch.ones(5, 1, dtype=torch.bool)
    look = Look(size, mirror, share, left=0.3, top=0.9)
    variation = look_again(
        Scenes(images, boxes, marks.expand(5, 1, 5, 2), mask, ~mask), look, torch.Generator().manual_seed(0)
    )
    assert variation.images.shape == (5, 3, size, size)
    side = round(size * share)
    x0, y0 = int(0.3 * (size - side)), int(0.9 * (size - side))
    weights = torch.zeros(5, size, size)
    inside = (slice(None), slice(y0, y0 + side), slice(x0, x0 + side))
    weights[inside] = variation.images[:, 0][inside].square()
    at = torch.arange(size, dtype=torch.float32)
    total = weights.sum((1, 2))
    centres = torch.stack([(weights.sum(1) * at).sum(1) / total, (weights.sum(2) * at).sum(1) / total], 1)
    order = MIRRORED if mirror else list(range(5))
    # Landmark k of the mirrored picture was landmark MIRRORED[k] before.
    for k, before in enumerate(order):
        torch.testing.assert_close(variation.landmarks[before, 0, k], centres[before], atol=0.1, rtol=0)
    torch.testing.assert_close(
        (variation.boxes[:, 0, :2] + variation.boxes[:, 0, 2:]) / 2 - 0.5, centres, atol=0.1, rtol=0
    )
    assert (variation.boxes[..., 2:] > variation.boxes[..., :2]).all()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of generated crops, aligned in the same way as by facemill; YuNet detects faces in them."""
    folder = tmp_path_factory.mktemp("data")
    write_tar(folder / "crops.tar", {f"crops/p_{person:05d}.jpg": (person, 0) for person in range(64)})
    return folder


def config(data: Path, shared: Path, run: Path, **changes: Any) -> Any:
    overrides = {
        "data": data,
        "tars": "[crops.tar]",
        "left_out": "null",
        "teacher": shared / "models" / "face_detection_yunet_2023mar.onnx",
        "teacher_model": ROOT / "models" / "yunet.toml",
        "run": run,
        "samples": 960,
        "batch": 16,
        "sizes": "[96,128]",
        "warm_up": 64,
        "hold": 0,
        "widths": "[8,16,24]",
        **changes,
    }
    return settings_of("detector", overrides)


def test_the_loss_falls(data: Path, shared: Path, tmp_path: Path) -> None:
    from training.train_detector import DetectorTrainer

    trainer = DetectorTrainer(config(data, shared, tmp_path))
    rows, _, _ = trainer.labels
    assert len(rows) > 8
    losses = [trainer.step()["loss"] for _ in range(40)]
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    assert set(trainer.verify()) == {f"averaged_{part}" for part in ("loss", "score", "box", "landmarks")}


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, shared: Path, tmp_path: Path) -> None:
    from training.loop import save
    from training.train_detector import DetectorTrainer

    uninterrupted = DetectorTrainer(config(data, shared, tmp_path / "a"))
    losses = [uninterrupted.step()["loss"] for _ in range(8)]
    first = DetectorTrainer(config(data, shared, tmp_path / "b"))
    first_losses = [first.step()["loss"] for _ in range(3)]
    save(first)
    second = DetectorTrainer(config(data, shared, tmp_path / "b"))
    assert first_losses + [second.step()["loss"] for _ in range(5)] == losses


def test_a_picture_is_equal_in_both_channel_orders(data: Path, shared: Path, tmp_path: Path) -> None:
    """JPEG weights red and blue differently, so it must receive the channels in the right order."""
    from dataclasses import replace

    from training.train_detector import DetectorTrainer

    trainer = DetectorTrainer(config(data, shared, tmp_path, **{"augmentation.jpeg": 1.0}))
    assert trainer.teacher.spec.channel_order == "bgr"
    images = trainer.scenes(4, 96, torch.Generator().manual_seed(0)).images
    trainer.teacher.spec = replace(trainer.teacher.spec, channel_order="rgb")
    assert torch.equal(images.flip(1), trainer.scenes(4, 96, torch.Generator().manual_seed(0)).images)


def test_labels_of_other_crops_are_not_reused(data: Path, shared: Path, tmp_path: Path) -> None:
    from training.crops import crops_key, load_crops
    from training.labels import label_crops
    from training.teacher import DetectorTeacher

    teacher = DetectorTeacher(ROOT / "models" / "yunet.toml", shared / "models" / "face_detection_yunet_2023mar.onnx")
    crops = load_crops([data / "crops.tar"], None, tmp_path)[:16]
    key = crops_key([data / "crops.tar"], None)
    assert len(label_crops(crops, key, teacher, tmp_path).rows) == 2
    (tmp_path / "names.txt").write_text("crops/p_00003.jpg\n")
    assert key != crops_key([data / "crops.tar"], tmp_path / "names.txt")
    with raises(ValueError, 16):
        label_crops(np.zeros_like(crops), "other", teacher, tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a narrow network with trained batch norms, so that folding changes the weights."""
    from training.detector import FaceDetector, normalise
    from training.state import new_state

    torch.manual_seed(0)
    state = new_state(FaceDetector((8, 16, 24)), 0.0)
    for _ in range(3):
        state.student.train()(normalise(torch.rand(4, 3, 64, 96) * 255))
        state.average(0.5)
    state.save(tmp_path / "last.pt", {"widths": [8, 16, 24]})
    return tmp_path / "last.pt"


@pytest.mark.parametrize("part", ["halve_weights", "trace_to_onnx"])
def test_a_file_with_different_outputs_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    from training import export_detector

    right = getattr(export_detector, part)
    monkeypatch.setattr(export_detector, part, lambda *arguments: shift_weights(right(*arguments)))
    with raises(ParityError):
        export_detector.export(checkpoint, tmp_path / "mine.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def shift_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with larger convolution weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if len(tensor.dims) == 4:
            weights = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((weights * 1.5).astype(weights.dtype), tensor.name))
    return copy


def test_an_exported_model_equals_the_network_and_becomes_an_engine(checkpoint: Path, tmp_path: Path) -> None:
    from runtime.engines.build import build_engine
    from runtime.modelspec import load_spec
    from runtime.modelstore import resolve_weights
    from training.export_detector import export

    result = export(checkpoint, tmp_path / "mine.onnx")
    assert result.gap < 1e-3
    assert result.half_gap < 0.02
    assert result.size_bytes == (tmp_path / "mine.onnx").stat().st_size
    spec = load_spec(str(tmp_path / "mine.toml"))
    assert (spec.decode, spec.channel_order, spec.licence) == ("yunet", "bgr", "not stated")
    built = build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path / "engines")
    assert (built.engine.info.task, built.engine.info.decode) == ("detect", "yunet")
