"""Training by distillation, if torch is installed: a falling loss, reproducible steps, an exact resume."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from runtime.graphs.mobilefacenet import generate
from tests.support.errors import Values, assert_names, raises
from tests.support.training_extra import settings_of, torch_of_extra, write_tar

torch = torch_of_extra()

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of 64 generated crops, and an excluded name."""
    folder = tmp_path_factory.mktemp("data")
    write_tar(folder / "crops.tar", {f"crops/p_{person:05d}.jpg": (person, 0) for person in range(65)})
    (folder / "leave_out.txt").write_text("crops/p_00064.jpg\n")
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher: a network with random weights, as ONNX with a free batch dimension."""
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
    return settings_of("distil", overrides)


def test_excluded_names_are_not_learned(data: Path, tmp_path: Path) -> None:
    from training.crops import load_crops

    assert len(load_crops([data / "crops.tar"], None, tmp_path)) == 65
    assert len(load_crops([data / "crops.tar"], data / "leave_out.txt", tmp_path)) == 64


def test_the_loss_falls(data: Path, teacher: Path, tmp_path: Path) -> None:
    from training.train import DistillationTrainer

    trainer = DistillationTrainer(config(data, teacher, tmp_path))
    losses = [trainer.step()["loss"] for _ in range(40)]
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.1


def test_a_seed_gives_the_same_steps_and_a_resumed_run_equals_an_uninterrupted_one(
    data: Path, teacher: Path, tmp_path: Path
) -> None:
    from training.loop import save
    from training.train import DistillationTrainer

    uninterrupted = DistillationTrainer(config(data, teacher, tmp_path / "a"))
    losses = [uninterrupted.step()["loss"] for _ in range(12)]
    first = DistillationTrainer(config(data, teacher, tmp_path / "b"))
    started_run = [first.step()["loss"] for _ in range(5)]
    save(first)
    second = DistillationTrainer(config(data, teacher, tmp_path / "b"))
    assert second.state.step == 5
    assert started_run + [second.step()["loss"] for _ in range(7)] == losses
    for weights, expected_weights in zip(
        second.state.ema.state_dict().values(), uninterrupted.state.ema.state_dict().values(), strict=True
    ):
        assert torch.equal(weights, expected_weights)


def test_the_first_hundred_steps_are_reproducible_bit_for_bit(data: Path, teacher: Path, tmp_path: Path) -> None:
    from training.train import DistillationTrainer

    def steps(run: str) -> tuple[list[dict[str, float]], dict[str, Any], dict[str, Any]]:
        trainer = DistillationTrainer(config(data, teacher, tmp_path / run, batch=4, stages="[[0,56]]", device="cpu"))
        return [trainer.step() for _ in range(100)], trainer.state.student.state_dict(), trainer.state.ema.state_dict()

    run_a, run_b = steps("a"), steps("b")
    assert run_a[0] == run_b[0]
    for state_a, state_b in zip(run_a[1:], run_b[1:], strict=True):
        assert state_a.keys() == state_b.keys()
        assert all(torch.equal(state_a[name], state_b[name]) for name in state_a)


def test_the_average_follows_the_student_and_faster_at_first() -> None:
    from training.state import new_state

    state = new_state(torch.nn.BatchNorm1d(2), 0.0)
    for step, share in ((0, 0.9), (5, 9 / 15), (90_000, 0.25)):
        state.step = step
        state.ema.weight.fill_(3.0)
        with torch.no_grad():
            state.student.weight.copy_(torch.tensor([5.0, 7.0]))
        state.student.running_mean.fill_(1.0)
        state.ema.running_mean.fill_(0.0)
        state.student.num_batches_tracked.fill_(step + 1)
        state.average(0.75)
        torch.testing.assert_close(state.ema.weight, torch.tensor([3 + 2 * share, 3 + 4 * share]))
        torch.testing.assert_close(state.ema.running_mean, torch.full((2,), share))
        assert int(state.ema.num_batches_tracked) == step + 1


def test_a_changed_tar_of_the_same_name_and_size_is_decoded_again(data: Path, tmp_path: Path) -> None:
    from training.crops import load_crops

    tar = tmp_path / "some.tar"
    content = (data / "crops.tar").read_bytes()
    tar.write_bytes(content)
    os.utime(tar, ns=(1, 1))
    before = load_crops([tar], None, tmp_path / "cache")[0].copy()
    tar.write_bytes(repack_tar(data / "crops.tar", skip=1, size=len(content)))
    os.utime(tar, ns=(2, 2))
    after = load_crops([tar], None, tmp_path / "cache")[0]
    assert tar.stat().st_size == len(content)
    assert (before != after).any()


def repack_tar(source: Path, skip: int, size: int) -> bytes:
    """Copy a tar without its first members, padded to the same size."""
    stream = io.BytesIO()
    with tarfile.open(source) as old, tarfile.open(fileobj=stream, mode="w") as new:
        for member in old.getmembers()[skip:]:
            new.addfile(member, old.extractfile(member))
    return stream.getvalue().ljust(size, b"\0")


@pytest.fixture(scope="module")
def started_run(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    from training.loop import save
    from training.train import DistillationTrainer

    run = tmp_path_factory.mktemp("begun")
    trainer = DistillationTrainer(config(data, teacher, run, batch=4))
    trainer.step()
    save(trainer)
    return run


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"seed": 1}, ("seed", 1, "last.pt", 0, "run=...")),
        ({"batch": 8}, ("batch", 8, "last.pt", 4)),
        ({"left_out": "null"}, ("left_out", None, "leave_out.txt")),
        ({"tars": "[crops.tar,crops.tar]"}, ("tars", "['crops.tar', 'crops.tar']", "['crops.tar']")),
        ({"backbone.dimension": 256}, ("backbone", 256, 512)),
        ({"teacher.mirror": "true"}, ("teacher", "'mirror': True", "'mirror': False")),
    ],
)
def test_a_run_does_not_resume_with_different_settings(
    data: Path, teacher: Path, started_run: Path, changes: dict[str, Any], values: Values
) -> None:
    from training.train import DistillationTrainer

    with raises(ValueError, *values):
        DistillationTrainer(config(data, teacher, started_run, **{"batch": 4, **changes}))


def test_a_run_resumes_with_more_samples_another_rate_or_an_older_checkpoint(
    data: Path, teacher: Path, started_run: Path
) -> None:
    from training.state import read_checkpoint
    from training.train import DistillationTrainer

    teacher_elsewhere = started_run / "elsewhere" / teacher.name
    teacher_elsewhere.parent.mkdir()
    teacher_elsewhere.write_bytes(teacher.read_bytes())
    changes = {"samples": 9000, "hold": 100, "learning_rate": 2e-3, "stages": "[[0,56]]", "augmentation.jpeg": 0.2}
    assert DistillationTrainer(config(data, teacher_elsewhere, started_run, batch=4, **changes)).state.step == 1
    content = read_checkpoint(started_run / "last.pt")
    for name in ("seed", "teacher", "left_out"):
        del content["config"][name]
    (started_run / "older").mkdir()
    torch.save(content, started_run / "older" / "last.pt")
    assert DistillationTrainer(config(data, teacher, started_run / "older", batch=4, seed=3)).state.step == 1


def test_a_start_from_another_network_or_kind_is_refused(
    data: Path, teacher: Path, started_run: Path, tmp_path: Path
) -> None:
    from training.train import DistillationTrainer

    for changes in ({"backbone.width": 0.5}, {"backbone.name": "mamba"}):
        with raises(ValueError, "backbone", "start=", "last.pt", 0.25):
            DistillationTrainer(config(data, teacher, tmp_path, start=started_run / "last.pt", **changes))
    assert DistillationTrainer(config(data, teacher, tmp_path, start=started_run / "last.pt", seed=8)).state.step == 1
    content = torch.load(started_run / "last.pt", weights_only=True)
    content["config"] = {"widths": [1, 2, 3]}
    torch.save(content, tmp_path / "detector.pt")
    with raises(ValueError, "detector.pt", "widths"):
        DistillationTrainer(config(data, teacher, tmp_path, start=tmp_path / "detector.pt"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_its_step_with_a_checkpoint(
    data: Path, teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int, code: int
) -> None:
    from training.loop import train
    from training.train import DistillationTrainer

    class Interrupted(DistillationTrainer):
        def step(self) -> dict[str, float]:
            values = super().step()
            if self.state.step == 3:
                os.kill(os.getpid(), number)
            return values

    before = signal.getsignal(number)
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as stopped:
        train(Interrupted(config(data, teacher, tmp_path, batch=4)))
    assert stopped.value.code == code
    assert signal.getsignal(number) is before
    assert_names(caplog.text, 12, 960)
    assert DistillationTrainer(config(data, teacher, tmp_path, batch=4)).state.step == 3


@pytest.mark.parametrize(("name", "form", "dimension"), [("mobilefacenet", "128", 128), ("w600k_mbf", "512", 512)])
def test_backbones_have_the_shapes_that_facemill_generates(
    name: str, form: str, dimension: int, tmp_path: Path
) -> None:
    from training.backbones import build_backbone

    generate(tmp_path / "random.onnx", form=form, seed=0)
    weights = [w for w in onnx.load(tmp_path / "random.onnx").graph.initializer if w.name.endswith(".weight")]
    network = build_backbone(name, dimension, 1.0, "prelu")
    parameters = [p for p in network.parameters() if p.ndim == 4]
    assert sorted(tuple(p.squeeze().shape) for p in parameters) == sorted(
        tuple(d for d in w.dims if d > 1) for w in weights
    )
    assert network.eval()(torch.zeros(2, 3, 112, 112)).shape == (2, dimension)


def test_a_strided_depthwise_convolution_answers_and_learns_in_full_precision() -> None:
    from training.backbones import StridedDepthwise, conv

    layer = conv(8, 8, 3, 2, 8, None)[0]
    assert isinstance(layer, StridedDepthwise)
    assert not isinstance(conv(8, 8, 3, 1, 8, None)[0], StridedDepthwise)
    x = torch.randn(2, 8, 14, 14, generator=torch.Generator().manual_seed(0)).bfloat16()
    plain = torch.nn.functional.conv2d(x.float(), layer.weight, stride=2, padding=1, groups=8)
    expected = torch.autograd.grad(plain.bfloat16().float().square().sum(), layer.weight)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, plain.bfloat16())
    assert torch.equal(torch.autograd.grad(y.float().square().sum(), layer.weight)[0], expected[0])


def test_a_missing_device_is_named() -> None:
    from training.device import use_device

    for name in ("cuda:77", "abacus"):
        with raises(ValueError, repr(name), "auto", "cpu", "cuda"):
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


def test_pictures_grow_in_stages() -> None:
    from training.sampling import input_size

    assert [input_size(samples, [(0, 56), (100, 80)]) for samples in (0, 99, 100, 500)] == [56, 56, 80, 80]


def test_every_pass_contains_every_crop_once() -> None:
    from training.sampling import batch_rows

    rows = np.concatenate([batch_rows(step, 16, 64, seed=1) for step in range(8)])
    assert sorted(rows[:64]) == sorted(rows[64:]) == list(range(64))
    assert list(rows[:64]) != list(rows[64:])


def test_targets_have_the_cosines_of_the_teacher() -> None:
    from training.losses import embedding_space

    answers = torch.nn.functional.normalize(torch.randn(20, 128, generator=torch.Generator().manual_seed(0)))
    targets = answers @ embedding_space(128, 512, seed=0)
    assert torch.allclose(targets @ targets.T, answers @ answers.T, atol=1e-5)
    with raises(ValueError, 128):
        embedding_space(128, 64, seed=0)


def test_ten_fold_accuracy_of_separated_scores_and_of_noise() -> None:
    from training.verification import ten_fold_accuracy

    rng = np.random.default_rng(0)
    same = np.arange(6000) % 2 == 0
    fold = np.arange(6000) // 600
    apart = np.where(same, 0.7, 0.1) + rng.normal(0, 0.05, 6000)
    assert ten_fold_accuracy(apart.astype(np.float32), same, fold) == 1.0
    assert 0.45 < ten_fold_accuracy(rng.normal(size=6000).astype(np.float32), same, fold) < 0.55


@pytest.fixture(scope="module")
def second_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another teacher with random weights, of 512 dimensions."""
    path = tmp_path_factory.mktemp("second") / "second.onnx"
    generate(path, form="512", seed=4)
    return path


def test_the_cosine_of_two_targets_is_the_weighted_mean_of_the_teachers_cosines(
    data: Path, teacher: Path, second_teacher: Path, tmp_path: Path
) -> None:
    from training.crops import load_crops
    from training.teacher import Teacher
    from training.teachers import Teachers

    crops = torch.from_numpy(load_crops([data / "crops.tar"], None, tmp_path)).permute(0, 3, 1, 2)
    images = crops[:12].float()
    changes = {"teacher.bfloat16": False, "second_teacher.path": second_teacher, "second_teacher.weight": 0.3}
    settings = config(data, teacher, tmp_path, **changes)
    targets = Teachers(settings, crops)(images)
    first, second = (Teacher(path, size=112, mean=127.5, std=127.5)(images) for path in (teacher, second_teacher))
    torch.testing.assert_close(targets.norm(dim=1), torch.ones(12))
    expected = 0.7 * first @ first.T + 0.3 * second @ second.T
    # 65 crops have at most 65 directions, all of which are kept.
    torch.testing.assert_close(targets @ targets.T, expected, atol=2e-3, rtol=0)


def test_the_first_teachers_dimensions_do_not_depend_on_a_second(
    data: Path, teacher: Path, second_teacher: Path, tmp_path: Path
) -> None:
    from training.crops import load_crops
    from training.teachers import Teachers

    crops = torch.from_numpy(load_crops([data / "crops.tar"], None, tmp_path)).permute(0, 3, 1, 2)
    alone = Teachers(config(data, teacher, tmp_path), crops)(crops[:4].float())
    both = Teachers(config(data, teacher, tmp_path, **{"second_teacher.path": second_teacher}), crops)(
        crops[:4].float()
    )
    torch.testing.assert_close((alone * both).sum(dim=1), torch.full((4,), 0.5**0.5))


def test_a_run_with_two_teachers_and_identities_learns_both_and_resumes_exactly(
    data: Path, teacher: Path, second_teacher: Path, tmp_path: Path
) -> None:
    from training.loop import save
    from training.train import DistillationTrainer

    folder = tmp_path / "data"
    folder.mkdir()
    write_tar(folder / "crops.tar", {f"crops/p_{row:02d}.jpg": (row // 4, row % 4) for row in range(48)})
    (folder / "labels.csv").write_text(
        "crop,age,identity\n" + "".join(f"p_{row:02d}.jpg,,{row // 4 + 70}\n" for row in range(0, 40))
    )
    changes = {
        "left_out": "null",
        "second_teacher.path": second_teacher,
        "identities.labels": "labels.csv",
        "identities.share": 0.5,
        "stages": "[[0,112]]",
    }

    def trainer(run: str) -> Any:
        return DistillationTrainer(config(folder, teacher, tmp_path / run, **changes))

    uninterrupted = trainer("a")
    values = [uninterrupted.step() for _ in range(24)]
    assert np.mean([v["loss"] for v in values[-6:]]) < np.mean([v["loss"] for v in values[:6]]) - 0.05
    assert all(v["identities"] > 0 for v in values[:2])
    first = trainer("b")
    losses = [first.step()["loss"] for _ in range(3)]
    save(first)
    second = trainer("b")
    assert losses + [second.step()["loss"] for _ in range(3)] == [v["loss"] for v in values[:6]]
    assert set(uninterrupted.identified.rows(5).tolist()) <= set(range(40))


def test_crops_without_a_label_have_no_person(data: Path, tmp_path: Path) -> None:
    from training.identified import load_identities

    (tmp_path / "labels.csv").write_text("crop,identity\np_00002.jpg,9\ncrops/p_00004.jpg,9\np_00003.jpg,\n")
    persons = load_identities(tmp_path / "labels.csv", [data / "crops.tar"], data / "leave_out.txt")
    assert persons.tolist() == [-1, -1, 0, -1, 0] + [-1] * 59


def test_labels_without_a_column_and_too_few_persons_are_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    from training.identified import load_identities
    from training.train import DistillationTrainer

    (data / "wrong.csv").write_text("crop,name\n")
    (data / "few.csv").write_text("crop,identity\np_00001.jpg,3\np_00002.jpg,3\n")
    with raises(ValueError, "wrong.csv", "crop", "identity"):
        load_identities(data / "wrong.csv", [data / "crops.tar"], None)
    with raises(ValueError, "identities", "crops_each=4"):
        DistillationTrainer(config(data, teacher, tmp_path, **{"identities.labels": "few.csv"}))
