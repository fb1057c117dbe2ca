"""The detector's training, if torch is installed: right targets, a falling loss, exact resume, an equal file."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import ROOT

torch = pytest.importorskip(
    "torch", reason="the extra train is not installed: pip install torch hydra-core", exc_type=ImportError
)
hydra = pytest.importorskip(
    "hydra", reason="the extra train is not installed: pip install hydra-core", exc_type=ImportError
)

SIDE = 160


def scenes(count: int = 16, size: int = SIDE, seed: int = 0, **rules: Any) -> Any:
    """Pictures with crops of one colour, each with its box and landmarks."""
    from training.scenes import SceneRules, compose

    rng = torch.Generator().manual_seed(seed)
    crops = torch.randint(0, 256, (count, 3, 3, 14, 14), generator=rng, dtype=torch.uint8)
    crops = crops.repeat_interleave(8, 3).repeat_interleave(8, 4)
    boxes = torch.tensor([20.0, 10.0, 92.0, 108.0]).expand(count, 3, 4)
    marks = torch.tensor([[38.0, 52.0], [74.0, 52.0], [56.0, 72.0], [42.0, 92.0], [71.0, 92.0]]).expand(count, 3, 5, 2)
    return compose(crops, boxes, marks, crops[:, 0], size, SceneRules(**rules), rng)


def test_landmarks_stay_in_order_within_their_boxes() -> None:
    found = scenes(64, rotation=5.0)
    marks, boxes = found.landmarks[found.there], found.boxes[found.there]
    assert 40 < len(boxes) < 110
    assert (marks[:, 0, 0] < marks[:, 1, 0]).all()  # left first as seen in the picture, in the mirror too
    assert (marks[:, 3, 0] < marks[:, 4, 0]).all()
    assert (marks[:, 0, 1] < marks[:, 3, 1]).all()
    assert ((marks >= boxes[:, None, :2]) & (marks <= boxes[:, None, 2:])).all()
    assert not (found.there & found.cut).any()
    assert found.images.min() >= 0
    assert found.images.max() < 255.01


def test_no_faces_where_none_are_wanted_and_one_each_where_all_are() -> None:
    assert not scenes(empty=1.0).there.any()
    assert (scenes(empty=0.0, more=0.0, portrait=1.0).there.sum(dim=1) == 1).all()


def test_a_perfect_answer_costs_nothing_and_is_read_back_by_facemill() -> None:
    from runtime.images.faces import find_faces
    from training.detection import assign, cells, detection_loss

    wanted = scenes(24, empty=0.0, more=0.0)
    face, counts = assign(wanted, SIDE)
    places, strides = cells(SIDE)
    values = torch.zeros(24, len(places), 15)
    values[..., 0] = torch.where(face >= 0, 20.0, -20.0)
    for n, p in (face >= 0).nonzero().tolist():
        box, marks, stride = wanted.boxes[n, face[n, p]], wanted.landmarks[n, face[n, p]], strides[p]
        values[n, p, 1:3] = (box[:2] + box[2:]) / 2 / stride - places[p]
        values[n, p, 3:5] = ((box[2:] - box[:2]) / stride).log()
        values[n, p, 5:] = (marks / stride - places[p]).ravel()
    parts = detection_loss(values, wanted, SIDE, 6.0)
    assert float(parts["loss"]) < 1e-3
    assert counts[face >= 0].all()
    raw = values.clone()
    raw[..., 0] = torch.sigmoid(raw[..., 0])
    read = find_faces(raw.numpy(), family="yunet", height=SIDE, width=SIDE, threshold=0.5)
    there = wanted.there[:, 0]
    assert there.sum() > 12
    for one, box, marks, expected in zip(read, wanted.boxes[:, 0], wanted.landmarks[:, 0], there, strict=True):
        assert len(one) == int(expected)
        if expected:
            np.testing.assert_allclose(one.boxes[0], box, atol=0.01)
            np.testing.assert_allclose(one.landmarks[0], marks, atol=0.01)
    worse = values.clone()
    worse[..., 5:] += 0.5
    assert float(detection_loss(worse, wanted, SIDE, 6.0)["landmarks"]) > 0.05


def test_cells_around_a_face_that_the_edge_cuts_are_not_judged() -> None:
    from training.detection import assign

    found = scenes(64, empty=0.0, portrait=0.0)
    assert found.cut.any()
    face, counts = assign(found, SIDE)
    alone = found.cut.any(dim=1) & ~found.there.any(dim=1)
    assert alone.any()
    assert (face[alone] < 0).all()
    assert not counts[alone].all()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of generated crops, aligned as facemill aligns, which YuNet takes for faces."""
    from portraits import encode

    folder = tmp_path_factory.mktemp("data")
    with tarfile.open(folder / "crops.tar", "w") as archive:
        for person in range(64):
            content = encode(0, person, 0, (112, 112))
            member = tarfile.TarInfo(f"crops/p_{person:05d}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder


def config(data: Path, shared: Path, run: Path, **changes: Any) -> Any:
    overrides = {
        "data": data,
        "tars": "[crops.tar]",
        "left_out": "null",
        "labels": shared / "models" / "face_detection_yunet_2023mar.onnx",
        "label_model": ROOT / "models" / "yunet.toml",
        "run": run,
        "samples": 960,
        "batch": 16,
        "sizes": "[96,128]",
        "warm_up": 64,
        "hold": 0,
        "widths": "[8,16,24]",
        **changes,
    }
    with hydra.initialize_config_dir(version_base=None, config_dir=str(ROOT / "training" / "conf")):
        return hydra.compose("detector", [f"{key}={value}" for key, value in overrides.items()])


def test_the_loss_falls(data: Path, shared: Path, tmp_path: Path) -> None:
    from training.train_detector import Trainer

    trainer = Trainer(config(data, shared, tmp_path))
    assert len(trainer.labels.rows) > 8
    losses = [trainer.step()["loss"] for _ in range(40)]
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    assert set(trainer.verify()) == {f"averaged_{part}" for part in ("loss", "score", "box", "landmarks")}


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, shared: Path, tmp_path: Path) -> None:
    from training.loop import save
    from training.train_detector import Trainer

    whole = Trainer(config(data, shared, tmp_path / "a"))
    losses = [whole.step()["loss"] for _ in range(8)]
    first = Trainer(config(data, shared, tmp_path / "b"))
    begun = [first.step()["loss"] for _ in range(3)]
    save(first)
    second = Trainer(config(data, shared, tmp_path / "b"))
    assert begun + [second.step()["loss"] for _ in range(5)] == losses


def test_what_is_exported_answers_like_the_network_and_becomes_an_engine(tmp_path: Path) -> None:
    from runtime.engines.build import build_engine
    from runtime.modelspec import load_spec
    from runtime.modelstore import resolve_weights
    from training.detector import FaceDetector, normalise
    from training.export_detector import export
    from training.state import new_state

    torch.manual_seed(0)
    state = new_state(FaceDetector((8, 16, 24)), 0.0)
    for _ in range(3):
        state.student.train()(normalise(torch.rand(4, 3, 64, 96) * 255))
        state.average(0.5)
    state.save(tmp_path / "last.pt", {"widths": [8, 16, 24]})
    done = export(tmp_path / "last.pt", tmp_path / "mine.onnx")
    assert done.gap < 1e-3
    assert done.half_gap < 0.05
    assert done.size_bytes == (tmp_path / "mine.onnx").stat().st_size
    spec = load_spec(str(tmp_path / "mine.toml"))
    assert (spec.detector, spec.channel_order, spec.licence) == ("yunet", "bgr", "not stated")
    built = build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path / "engines")
    assert built.info.detector == "yunet"
