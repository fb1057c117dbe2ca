"""Training of the attribute network, if torch is installed: labels, targets, a falling loss, resuming, export."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.errors import raises
from tests.support.training_extra import settings_of, torch_of_extra, write_tar

torch = torch_of_extra()


def write_teacher(path: Path, side: int, classes: int) -> None:
    """Write a network of dlib's inputs and outputs: the softmax of a product with the mean colours."""
    weights = np.random.default_rng(side).normal(size=(3, classes)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "teacher",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a tar of 60 crops, labels of 50 of them, and two teachers."""
    folder = tmp_path / "data"
    folder.mkdir()
    names = [f"crop_{n:03d}.jpg" for n in range(60)]
    write_tar(folder / "a.tar", {f"crops/{name}": (n // 3, n % 3) for n, name in enumerate(names)})
    with (folder / "labels.csv").open("w", newline="") as file:
        known = [(name, n, "man" if n % 2 else "woman") for n, name in enumerate(names[:50])]
        rows = [*known, *((name, "", "") for name in names[50:])]
        csv.writer(file).writerows([("crop", "age", "gender"), *rows])
    write_teacher(folder / "age-v1.onnx", 64, 81)
    write_teacher(folder / "gender-v1.onnx", 32, 2)
    return folder


def settings(data: Path, run: Path, **changes: Any) -> Any:
    values = {
        **{"data": data, "teachers": data, "run": run, "tars": "[a.tar]", "left_out": "null", "labels": "labels.csv"},
        **{"samples": 32, "batch": 8, "width": 0.25, "stages": "[[0,64]]", "warm_up": 8, "hold": 16},
        **{"verify_every": 16, "log_every": 1, "device": "cpu"},
    }
    return settings_of("attributes", values | changes)


def test_labels_and_the_crops_that_measure(data: Path) -> None:
    from training.attribute_labels import is_held_out, read_labels

    names = [f"crop_{n:03d}.jpg" for n in range(60)]
    labels = read_labels(data / "labels.csv", names)
    np.testing.assert_array_equal(labels.ages[:50], np.arange(50))
    assert np.isnan(labels.ages[50:]).all()
    assert labels.women[:4].tolist() == [1, 0, 1, 0]
    assert 3 <= labels.held_out.sum() <= 17
    assert not labels.held_out[50:].any()
    again = read_labels(data / "labels.csv", names[::-1])
    np.testing.assert_array_equal(again.held_out[::-1], labels.held_out)  # by the name alone
    assert abs(np.mean([is_held_out(f"utk_{n:05d}.jpg") for n in range(20_000)]) - 0.2) < 0.01


@pytest.mark.parametrize("line", ["crop_000.jpg,old,man", "crop_000.jpg,30,boy", "crop_000.jpg,30,"])
def test_wrong_labels_are_refused(tmp_path: Path, line: str) -> None:
    from training.attribute_labels import read_labels

    path = tmp_path / "labels.csv"
    path.write_text(f"crop,age,gender\n{line}\n")
    with raises(ValueError, path, "line 2"):
        read_labels(path, ["crop_000.jpg"])
    path.write_text("name,age\n")
    with raises(ValueError, path, "gender"):
        read_labels(path, [])


def test_rare_ages_count_more_and_the_mean_is_one() -> None:
    from training.attribute_labels import age_weights

    ages = np.array([30.0] * 80 + [70.0] * 5 + [np.nan] * 5, np.float32)
    learned = np.ones(90, np.bool_)
    weights = age_weights(ages, learned, 0.5)
    assert abs(weights[:85].mean() - 1) < 1e-5
    assert abs(weights[80] / weights[0] - 4) < 1e-4  # (80 / 5) ** 0.5
    assert (weights[85:] == 1).all()
    assert (age_weights(ages, learned, 0.0) == 1).all()


def test_distributions_have_the_age_as_their_mean() -> None:
    from training.attributes import AGES, age_distribution

    rows = age_distribution(torch.tensor([2.0, 30.0, 70.0, 115.0]))
    means = rows @ torch.arange(AGES, dtype=torch.float32)
    assert abs(float(means[1]) - 30) < 0.01
    assert abs(float(means[2]) - 70) < 0.01
    assert float(means[3]) > 95
    widths = (rows * (torch.arange(AGES) - means[:, None]).square()).sum(dim=1).sqrt()
    assert float(widths[0]) < float(widths[1]) < float(widths[2])
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(4))


@pytest.mark.parametrize("side", [64, 80, 112])
def test_the_network_takes_several_sizes(side: int) -> None:
    from training.attributes import VALUES, AttributeNet

    assert AttributeNet(0.25)(torch.zeros(2, 3, side, side)).shape == (2, VALUES)


def test_the_teachers_answer_for_mirror_images_and_only_where_asked(data: Path, tmp_path: Path) -> None:
    from training.attribute_labels import ask_teachers

    crops = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
    aged = np.array([True, False, True, True, False])
    ages, women = ask_teachers(crops, "key", data, tmp_path, aged)
    mirrored_ages, mirrored = ask_teachers(crops[:, :, ::-1], "other", data, tmp_path, aged)
    assert (ages[~aged] == 0).all()
    np.testing.assert_allclose(ages[aged].sum(axis=1), 1, rtol=1e-5)
    # The part that dlib sees lies nearly in the middle, so that mirroring changes little.
    np.testing.assert_allclose(mirrored_ages[aged], ages[aged], atol=0.1)
    np.testing.assert_allclose(mirrored, women, atol=0.1)
    (data / "age-v1.onnx").write_bytes(b"none")
    with raises(ValueError, data / "age-v1.onnx"):
        ask_teachers(crops, "third", data, tmp_path, aged)


def test_a_run_learns_resumes_and_never_sees_the_crops_held_out(data: Path, tmp_path: Path) -> None:
    from training.loop import save, train
    from training.train_attributes import AttributeTrainer

    whole = AttributeTrainer(settings(data, tmp_path / "whole"))
    assert not set(whole.learned.tolist()) & set(whole.held_out.tolist())
    train(whole)
    first = AttributeTrainer(settings(data, tmp_path / "parts"))
    for _ in range(2):
        first.step()
    save(first)
    second = AttributeTrainer(settings(data, tmp_path / "parts"))
    assert second.state.samples == 16
    train(second)
    for name, value in whole.state.ema.state_dict().items():
        torch.testing.assert_close(second.state.ema.state_dict()[name], value, msg=name)
    figures = second.verify()
    assert set(figures) == {"age_error", "child_error", "gender_right", "adults_right", "inside"}


def test_the_loss_falls(data: Path, tmp_path: Path) -> None:
    from training.train_attributes import AttributeTrainer

    trainer = AttributeTrainer(settings(data, tmp_path / "run", samples=800, learning_rate=3e-3, hold=800))
    losses = [trainer.step()["loss"] for _ in range(40)]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])


def test_an_exported_network_answers_alike_and_starts_another_run(data: Path, tmp_path: Path) -> None:
    from runtime.attributes.answers import VALUES, read_answers
    from runtime.engines.backends import backend_of
    from runtime.engines.build import build_engine
    from runtime.modelspec import load_spec
    from training.export_attributes import Probabilities, export
    from training.loop import train
    from training.train_attributes import AttributeTrainer

    trainer = AttributeTrainer(settings(data, tmp_path / "run"))
    train(trainer)
    result = export(tmp_path / "run" / "last.pt", tmp_path / "mine.onnx")
    assert result.samples == 32
    spec = load_spec(str(tmp_path / "mine.toml"))
    assert (spec.task, spec.dimension, spec.size) == ("attributes", VALUES, 112)
    engine = build_engine(spec, tmp_path / "mine.onnx", backend="cpu", output=tmp_path).engine
    crops = trainer.pixels[:6].numpy()
    with backend_of("cpu").open(engine.content(), engine.info) as runner:
        answers = runner.infer(np.ascontiguousarray(crops))
    images = torch.from_numpy((crops.astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = Probabilities(trainer.state.ema, 64).eval()(images).numpy()
    np.testing.assert_allclose(answers, expected, atol=2e-3)
    np.testing.assert_allclose(answers[:, :-1].sum(axis=1), 1, atol=1e-3)  # not of length 1: probabilities
    assert not np.isnan(read_answers(answers, ["age"])["age"]).any()
    other = AttributeTrainer(settings(data, tmp_path / "other", start=tmp_path / "mine.toml"))
    with torch.no_grad():
        started = Probabilities(other.state.ema, 64).eval()(images).numpy()
    np.testing.assert_allclose(started, expected, atol=5e-3)
    with raises(ValueError, "widths"):
        torch.save({}, tmp_path / "widths.pt")
        export(tmp_path / "widths.pt", tmp_path / "no.onnx")


def test_a_head_learns_what_embeddings_show(tmp_path: Path) -> None:
    from runtime.attributes.head import read_head
    from training.attribute_labels import AttributeLabels
    from training.train_head import measure, train_head, write_head

    rng = np.random.default_rng(0)
    ages, women = rng.uniform(5, 80, 600).astype(np.float32), rng.integers(0, 2, 600).astype(np.float32)
    vectors = np.stack([ages / 80, women, 1 - ages / 80, 1 - women], 1).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = AttributeLabels(ages, women, np.arange(600) % 5 == 0)
    head = train_head(torch.from_numpy(vectors), labels)
    figures = measure(head, torch.from_numpy(vectors), labels)
    assert figures["age_error"] < 5
    assert figures["gender_right"] > 0.95
    write_head(head, tmp_path / "head.npz", "tiny", "ab" * 32)
    answers = read_head(tmp_path / "head.npz").answer(vectors)
    with torch.no_grad():
        values = head(torch.from_numpy(vectors))
    np.testing.assert_allclose(answers[:, -1], torch.sigmoid(values[:, -1]).numpy(), atol=0.02)
