"""Training of the landmark network, if torch is installed: landmarks move with the pixels, the loss falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.faces.align import TEMPLATE
from tests.support.errors import raises
from tests.support.training_extra import torch_of_extra, write_checkpoint

torch = torch_of_extra()

MARGIN = 1.25


def dotted_crops(count: int) -> tuple[Any, Any]:
    """Black crops with a bright dot at each of five landmarks, each in another channel mixture."""
    landmarks = torch.from_numpy(TEMPLATE).float().round().expand(count, 5, 2).clone()
    landmarks += torch.randint(-6, 7, (count, 1, 2), generator=torch.Generator().manual_seed(1))
    crops = torch.zeros(count, 3, 112, 112)
    for n in range(count):
        for x, y in landmarks[n].int().tolist():
            crops[n, :, y - 1 : y + 2, x - 1 : x + 2] = 255
    return crops, landmarks


def brightness_at(images: Any, points: Any) -> Any:
    """(N, 5): the brightest pixel within one pixel of each point; 0 outside of the picture."""
    columns, rows = points[..., 0].round().long(), points[..., 1].round().long()
    size = images.shape[-1]
    best = torch.zeros(points.shape[:2])
    for n in range(len(images)):
        for k in range(5):
            x, y = int(columns[n, k]), int(rows[n, k])
            if 1 <= x < size - 1 and 1 <= y < size - 1:
                best[n, k] = images[n, 0, y - 1 : y + 2, x - 1 : x + 2].max()
    return best


def test_drawn_squares_carry_the_landmarks_along() -> None:
    from training.squares import SquareRules, draw_squares

    crops, landmarks = dotted_crops(64)
    rng = torch.Generator().manual_seed(0)
    images, seen = draw_squares(crops, landmarks, torch.zeros_like(crops), SquareRules(), rng)
    inside = ((seen > 2) & (seen < 93)).all(dim=-1)
    assert inside.float().mean() > 0.9
    assert (brightness_at(images, seen)[inside] > 60).all()
    middles = seen.mean(dim=1)
    assert (middles.std(dim=0) > 2).all()


def test_left_stays_left_in_mirrored_squares() -> None:
    from training.squares import SquareRules, draw_squares

    crops, landmarks = dotted_crops(64)
    rules = SquareRules(rotation=5.0, turned=0.0)
    _, seen = draw_squares(crops, landmarks, crops, rules, torch.Generator().manual_seed(0))
    assert (seen[:, 0, 0] < seen[:, 1, 0]).all()
    assert (seen[:, 3, 0] < seen[:, 4, 0]).all()


@pytest.mark.parametrize("degrees", [0, 30, -45])
def test_plain_squares_are_turned_by_the_angle(degrees: int) -> None:
    from training.squares import plain_squares, square_template

    crops, _ = dotted_crops(2)
    landmarks = torch.from_numpy(TEMPLATE).float().expand(2, 5, 2)
    _, seen = plain_squares(crops, landmarks, degrees, MARGIN)
    eyes = seen[0, 1] - seen[0, 0]
    angle = float(torch.rad2deg(torch.atan2(eyes[1], eyes[0])))
    upright = square_template(MARGIN)
    tilt = float(torch.rad2deg(torch.atan2(*(upright[1] - upright[0]).flip(0))))
    assert abs(angle - tilt + degrees) < 0.1
    if not degrees:
        np.testing.assert_allclose(seen[0], upright, atol=1e-3)


def test_the_network_learns_and_says_how_sure_it_is() -> None:
    from training.landmarks import VALUES, LandmarkNet, landmark_loss, normalise
    from training.squares import SquareRules, draw_squares

    torch.manual_seed(0)
    crops, landmarks = dotted_crops(16)
    rules = SquareRules(rotation=3.0, turned=0.0, far=0.0)
    images, seen = draw_squares(crops, landmarks, crops, rules, torch.Generator().manual_seed(0))
    network = LandmarkNet(0.5)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    first = None
    for _ in range(60):
        values = network(normalise(images))
        assert values.shape == (16, VALUES)
        parts = landmark_loss(values, seen)
        first = first or float(parts["error"].detach())
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
    assert float(parts["error"].detach()) < first / 3
    expected = torch.exp(values[:, 10:]).mean().detach()
    assert 0.3 < float(expected / parts["error"].detach()) < 3


def test_right_answers_cost_nothing_and_doubt_costs_by_the_error() -> None:
    from training.landmarks import landmark_loss

    landmarks = torch.rand(4, 5, 2) * 96
    right = torch.cat([landmarks.flatten(1), torch.zeros(4, 5)], 1)
    assert float(landmark_loss(right, landmarks)["error"]) < 1e-3
    far = right.clone()
    far[:, :10] += 24.0  # sqrt(2) eye distances
    doubts = {
        doubt: landmark_loss(torch.cat([far[:, :10], torch.full((4, 5), doubt)], 1), landmarks)["doubt"]
        for doubt in (-1.0, 0.35, 2.0)
    }
    assert doubts[0.35] < doubts[-1.0]
    assert doubts[0.35] < doubts[2.0]


def test_a_network_starts_from_shipped_weights_and_answers_the_same(tmp_path: Path) -> None:
    from runtime.engines.parity import synthetic_crops
    from training.backbones import build_backbone, normalise
    from training.export import export, load_averaged
    from training.shipped import take_shipped
    from training.verification import embed

    backbone = {"name": "mobilefacenet", "dimension": 16, "width": 0.25, "activation": "relu"}
    checkpoint = write_checkpoint(tmp_path / "last.pt", backbone)
    export(checkpoint, tmp_path / "small.onnx")
    expected, _ = load_averaged(checkpoint)
    crops = synthetic_crops(112, count=32, seed=2)
    photos = normalise(torch.from_numpy(crops).permute(0, 3, 1, 2))
    torch.manual_seed(7)
    network = build_backbone(**backbone)
    take_shipped(network, tmp_path / "small.toml", photos)
    np.testing.assert_allclose(embed(network.eval(), crops), embed(expected, crops), atol=2e-3)
    with torch.no_grad():
        trained = torch.nn.functional.normalize(network.train()(photos))
    np.testing.assert_allclose(trained.numpy(), embed(expected, crops), atol=5e-3)
    other = build_backbone(**{**backbone, "width": 0.5})
    with raises(ValueError, tmp_path / "small.toml"):
        take_shipped(other, tmp_path / "small.toml", photos)


def test_the_detector_that_ships_can_be_trained_on() -> None:
    from runtime.graphs.detector import reference_faces
    from runtime.modelspec import load_spec
    from tests.support.facemill_command import ROOT
    from training.detector import FaceDetector, normalise
    from training.shipped import take_shipped

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 20, 20, 3), np.uint8).repeat(32, axis=1).repeat(32, axis=2)
    photos = normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    detector = FaceDetector()
    model_file = ROOT / "models" / "facemill-det.toml"
    take_shipped(detector, model_file, photos)
    with torch.no_grad():
        answers = detector.eval()(photos[:2])
    answers[..., 0] = torch.sigmoid(answers[..., 0])
    expected = reference_faces(ROOT / "models" / "facemill-det.onnx", load_spec(str(model_file)), pictures[:2])
    np.testing.assert_allclose(answers.numpy(), expected, atol=5e-3)


def test_an_exported_network_answers_like_the_network_and_becomes_an_engine(tmp_path: Path) -> None:
    from runtime.engines.build import build_engine
    from runtime.engines.parity import reference_rows, synthetic_crops
    from runtime.modelspec import load_spec
    from runtime.modelstore import resolve_weights
    from training.export_landmarks import export
    from training.landmarks import LandmarkNet, normalise
    from training.state import new_state

    torch.manual_seed(0)
    state = new_state(LandmarkNet(), 0.0)
    squares = synthetic_crops(96, count=8, seed=1)
    images = normalise(torch.from_numpy(squares).permute(0, 3, 1, 2))
    for _ in range(3):
        state.student.train()(images)
        state.average(0.5)
    state.samples = 24
    state.save(tmp_path / "last.pt", {"squares": {}, "width": 1.0})
    result = export(tmp_path / "last.pt", tmp_path / "mine.onnx")
    spec = load_spec(str(tmp_path / "mine.toml"))
    weights = resolve_weights(spec)
    assert (result.samples, spec.task, spec.size) == (24, "landmarks", 96)
    assert spec.size_bytes == weights.stat().st_size == result.size_bytes <= 1_000_000
    with torch.no_grad():
        expected = state.ema.eval()(images).numpy()
    np.testing.assert_allclose(reference_rows(spec, weights, squares), expected, atol=0.3)
    assert build_engine(spec, weights, backend="cpu", output=tmp_path).engine.info.task == "landmarks"
