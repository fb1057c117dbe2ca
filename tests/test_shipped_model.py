"""The model that ships: whole, described by its card, an engine at once, and it tells people apart."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import onnx
from console import facemill
from portraits import encode

from runtime.assets import asset_dir
from runtime.engines.build import build_engine
from runtime.engines.open import open_runner
from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.engines.weights import weights_for
from runtime.metrics.pairs import read_pairs
from runtime.modelspec import load_spec
from runtime.modelstore import SHIPPED, resolve_weights

CARD = asset_dir("models") / f"{SHIPPED}.md"


def test_the_file_is_small_and_the_one_that_model_file_and_card_state() -> None:
    spec = load_spec(SHIPPED)
    path = resolve_weights(spec)  # refuses another checksum
    assert path.parent == asset_dir("models")
    assert path.stat().st_size == spec.size_bytes <= 4_000_000
    card = CARD.read_text(encoding="utf-8")
    assert str(spec.sha256) in card
    figures = re.findall(r"[\d.]+ %", spec.accuracy)
    assert len(figures) == 3
    assert all(figure in card for figure in figures)


def test_its_fp16_weights_become_an_fp32_engine_of_unit_vectors(tmp_path: Path) -> None:
    spec = load_spec(SHIPPED)
    built = build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path)
    assert (built.info.precision, built.info.dimension, built.info.trained) == ("fp32", 512, True)
    assert built.info.parity_min > 0.99999
    graph = onnx.load(built.path).graph
    assert onnx.TensorProto.FLOAT16 not in {tensor.data_type for tensor in graph.initializer}
    with open_runner(built.path) as runner:
        vectors = runner.infer(synthetic_crops(112, count=5))
    assert vectors.shape == (5, 512)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def recall(name: str) -> float:
    """Of 160 portraits of 40 people who do not exist, the part whose nearest other one shows the same person."""
    data = [encode(0, person, shot, (112, 112)) for person in range(40) for shot in range(4)]
    crops = np.stack([cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR_RGB) for one in data])
    spec = load_spec(name)
    vectors = reference_embeddings(spec, weights_for(spec), crops)  # (160, 512)
    scores = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return float((scores.argmax(axis=1) // 4 == np.arange(len(vectors)) // 4).mean())


def test_it_tells_drawn_people_apart_as_random_weights_do_not() -> None:
    assert recall(SHIPPED) > 0.95
    assert recall("random-512") < 0.8


def test_it_recognises_people_in_unaligned_photographs(shared: Path, tmp_path: Path) -> None:
    """200 pairs of LFW: the beginning of the first fold."""
    with tarfile.open(shared / "data" / "lfw_pairs.tar") as archive:
        lines = archive.extractfile("lfw/pairs.txt").read().decode().splitlines()  # type: ignore[union-attr]
        chosen = tmp_path / "pairs.txt"
        chosen.write_text("\n".join(["1\t100", *lines[1:101], *lines[301:401]]))
        pairs = read_pairs(chosen)
        for name in {*pairs.left, *pairs.right}:
            archive.extract(f"lfw/{name}.jpg", tmp_path, filter="data")
    done = facemill("evaluate", tmp_path / "lfw", "--pairs", chosen, "--json", "--backend", "cpu",
                    FACEMILL_MODELS=shared / "models")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["evaluations"]
    assert (found["model"], found["pairs"]["pairs"]) == (SHIPPED, 200)
    assert found["pairs"]["accuracy"] > 0.9


def test_it_is_taken_where_no_model_is_named_and_the_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for shot in range(2):
        (tmp_path / "in" / f"{shot}.jpg").write_bytes(encode(0, 0, shot, (112, 112)))
    done = facemill("process", tmp_path / "in", "-o", tmp_path / "o.h5", "--align", "none", "--backend", "cpu")
    assert done.returncode == 0, done.stderr
    assert "model: facemill-512, which is shipped" in done.stderr
    assert "facemill models fetch w600k_mbf" in done.stderr
    assert "WARNING" not in done.stderr
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["metadata"].attrs["model"] == SHIPPED


def test_build_engine_takes_it_too(tmp_path: Path) -> None:
    done = facemill("build-engine", "--output", tmp_path, "--json", "--backend", "cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == SHIPPED
