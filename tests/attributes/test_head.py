"""Heads for embeddings: against NumPy, by the model of a file, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from runtime.attributes.answers import AGES, VALUES
from runtime.attributes.head import find_head, read_head
from runtime.errors import ModelError
from tests.support.errors import raises

LAYERS = {"weight1": (8, 6), "bias1": (6,), "weight2": (6, VALUES), "bias2": (VALUES,)}


def write_head(path: Path, model_sha256: str = "ab" * 32, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(3)
    layers = {name: rng.normal(size=shape).astype(np.float16) for name, shape in LAYERS.items()} | changes
    np.savez(path, facts=json.dumps({"model": "tiny", "model_sha256": model_sha256}), **layers)
    return path


def test_a_head_answers_with_probabilities(tmp_path: Path) -> None:
    head = read_head(write_head(tmp_path / "tiny.npz"))
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    vectors[2] = 0
    answers = head.answer(vectors)
    values = np.maximum(vectors @ head.weight1 + head.bias1, 0) @ head.weight2 + head.bias2
    shares = np.exp(values[:, :AGES]) / np.exp(values[:, :AGES]).sum(axis=1, keepdims=True)
    rows = [0, 1, 3, 4]
    np.testing.assert_allclose(answers[rows, :AGES], shares[rows], rtol=1e-4)
    np.testing.assert_allclose(answers[rows, AGES], 1 / (1 + np.exp(-values[rows, AGES])), rtol=1e-4)
    assert np.isnan(answers[2]).all()


def test_the_head_of_a_model_is_found_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path))
    write_head(tmp_path / "mine.npz")
    assert find_head("tiny", "ab" * 32).name == "mine"
    with raises(ModelError, "other", "--from photos"):
        find_head("other", "cd" * 32)
    with raises(ModelError, "older", "unknown"):
        find_head("older", None)


@pytest.mark.parametrize(
    "changes",
    [{"bias1": np.zeros(3, np.float32)}, {"weight2": np.zeros((6, 5), np.float32)}, {"bias2": np.full(VALUES, np.nan)}],
)
def test_layers_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    with raises(ModelError, tmp_path / "bad.npz"):
        read_head(write_head(tmp_path / "bad.npz", **changes))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write_head(tmp_path / "head.npz")
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 2], b"no archive"):
        path.write_bytes(content)
        with raises(ModelError, path):
            read_head(path)
    with raises(ModelError, tmp_path / "missing.npz"):
        read_head(tmp_path / "missing.npz")
