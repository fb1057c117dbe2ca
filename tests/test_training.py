"""The training room, if torch is installed: a loss that falls, the same steps from a seed, an exact resume."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from runtime.engines.mobilefacenet import generate

torch = pytest.importorskip(
    "torch", reason="the extra train is not installed: pip install torch hydra-core", exc_type=ImportError
)
pytest.importorskip("openvino", reason="the extra train is not installed: pip install openvino", exc_type=ImportError)
hydra = pytest.importorskip(
    "hydra", reason="the extra train is not installed: pip install hydra-core", exc_type=ImportError
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of 64 generated crops, and one name that must not be learned from."""
    from portraits import encode

    folder = tmp_path_factory.mktemp("data")
    with tarfile.open(folder / "crops.tar", "w") as archive:
        for person in range(65):
            content = encode(0, person, 0, (112, 112))
            member = tarfile.TarInfo(f"crops/p_{person:05d}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (folder / "leave_out.txt").write_text("crops/p_00064.jpg\n")
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights, as ONNX, with a free batch: a teacher as good as any to be imitated."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    generate(path, form="128", seed=3)
    return path


def config(data: Path, teacher: Path, run: Path, **changes: Any) -> Any:
    overrides = {
        "data": data,
        "tars": "[crops.tar]",
        "left_out": "leave_out.txt",
        "run": run,
        "teacher": f"{{path:{teacher},size:112,channel_order:rgb,mean:127.5,std:127.5,mirror:false}}",
        "samples": 960,
        "batch": 16,
        "warm_up": 64,
        "hold": 0,
        "stages": "[[0,48]]",
        "backbone.width": 0.25,
        **changes,
    }
    with hydra.initialize_config_dir(version_base=None, config_dir=str(ROOT / "training" / "conf")):
        return hydra.compose("distil", [f"{key}={value}" for key, value in overrides.items()])


def test_names_that_are_left_out_are_not_learned_from(data: Path, tmp_path: Path) -> None:
    from training.crops import load_crops

    assert len(load_crops([data / "crops.tar"], None, tmp_path)) == 65
    assert len(load_crops([data / "crops.tar"], data / "leave_out.txt", tmp_path)) == 64


def test_the_loss_falls(data: Path, teacher: Path, tmp_path: Path) -> None:
    from training.train import Trainer

    trainer = Trainer(config(data, teacher, tmp_path))
    losses = [trainer.step()["loss"] for _ in range(40)]
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.1


def test_a_seed_gives_the_same_steps_and_a_resumed_run_equals_an_uninterrupted_one(
    data: Path, teacher: Path, tmp_path: Path
) -> None:
    from training.loop import save
    from training.train import Trainer

    whole = Trainer(config(data, teacher, tmp_path / "a"))
    losses = [whole.step()["loss"] for _ in range(12)]
    first = Trainer(config(data, teacher, tmp_path / "b"))
    begun = [first.step()["loss"] for _ in range(5)]
    save(first)
    second = Trainer(config(data, teacher, tmp_path / "b"))
    assert second.state.step == 5
    assert begun + [second.step()["loss"] for _ in range(7)] == losses
    for mine, its in zip(second.state.ema.state_dict().values(), whole.state.ema.state_dict().values(), strict=True):
        assert torch.equal(mine, its)


def test_a_slim_checkpoint_goes_on_from_the_same_weights(data: Path, teacher: Path, tmp_path: Path) -> None:
    from training.train import Trainer

    first = Trainer(config(data, teacher, tmp_path / "a"))
    for _ in range(3):
        first.step()
    first.state.save_slim(tmp_path / "slim.pt")
    second = Trainer(config(data, teacher, tmp_path / "b", start=tmp_path / "slim.pt"))
    assert (second.state.step, second.state.samples) == (3, 48)
    for mine, its in zip(second.state.ema.parameters(), first.state.ema.parameters(), strict=True):
        assert torch.allclose(mine, its, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(("name", "form", "dimension"), [("mobilefacenet", "128", 128), ("w600k_mbf", "512", 512)])
def test_backbones_have_the_shapes_that_facemill_generates(
    name: str, form: str, dimension: int, tmp_path: Path
) -> None:
    from training.backbones import build_backbone

    generate(tmp_path / "random.onnx", form=form, seed=0)
    weights = [w for w in onnx.load(tmp_path / "random.onnx").graph.initializer if w.name.endswith(".weight")]
    network = build_backbone(name, dimension, 1.0, "prelu")
    mine = [p for p in network.parameters() if p.ndim == 4]
    assert sorted(tuple(p.squeeze().shape) for p in mine) == sorted(tuple(d for d in w.dims if d > 1) for w in weights)
    assert network.eval()(torch.zeros(2, 3, 112, 112)).shape == (2, dimension)


def test_a_device_that_is_not_there_is_named() -> None:
    from training.device import use_device

    for name in ("cuda:77", "abacus"):
        with pytest.raises(ValueError, match=f"device is '{name}'; wanted: auto, cpu or cuda"):
            use_device(name)
    assert use_device("cpu").type == "cpu"


def test_the_learning_rate_rises_holds_and_falls_to_zero() -> None:
    from training.state import learning_rate

    def rate(samples: int, hold: int, total: int = 1000) -> float:
        return learning_rate(samples, total, 100, hold, 2.0)

    assert rate(49, hold=600) == 1.0
    assert rate(100, hold=600) == rate(599, hold=600) == rate(599, hold=600, total=9000) == 2.0
    assert rate(800, hold=600) == pytest.approx(1.0)
    assert rate(550, hold=0) == pytest.approx(1.0)  # a plain cosine
    assert rate(1000, hold=600) == rate(2000, hold=0) == 0.0


def test_pictures_grow_by_stages() -> None:
    from training.sampling import input_size

    assert [input_size(samples, [(0, 56), (100, 80)]) for samples in (0, 99, 100, 500)] == [56, 56, 80, 80]


def test_every_pass_shows_every_crop_once() -> None:
    from training.sampling import batch_rows

    rows = np.concatenate([batch_rows(step, 16, 64, seed=1) for step in range(8)])
    assert sorted(rows[:64]) == sorted(rows[64:]) == list(range(64))
    assert list(rows[:64]) != list(rows[64:])


def test_cosines_of_targets_are_those_of_the_teacher() -> None:
    from training.losses import embedding_space

    answers = torch.nn.functional.normalize(torch.randn(20, 128, generator=torch.Generator().manual_seed(0)))
    targets = answers @ embedding_space(128, 512, seed=0)
    assert torch.allclose(targets @ targets.T, answers @ answers.T, atol=1e-5)
    with pytest.raises(ValueError, match="at least the teacher's 128"):
        embedding_space(128, 64, seed=0)


def test_ten_fold_accuracy_of_scores_that_part_and_of_noise() -> None:
    from training.verification import ten_fold

    rng = np.random.default_rng(0)
    same = np.arange(6000) % 2 == 0
    fold = np.arange(6000) // 600
    apart = np.where(same, 0.7, 0.1) + rng.normal(0, 0.05, 6000)
    assert ten_fold(apart.astype(np.float32), same, fold) == 1.0
    assert 0.45 < ten_fold(rng.normal(size=6000).astype(np.float32), same, fold) < 0.55
