"""The shipped models are complete, match their cards, build engines, find faces and recognise people."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import onnx
import pytest

from runtime.assets import asset_dir
from runtime.demo.portraits import encode
from runtime.engines.backends import open_runner
from runtime.engines.build import build_engine
from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.engines.weights import weights_for
from runtime.metrics.pairs import read_pairs
from runtime.modelspec import load_spec
from runtime.modelstore import BETTER, BETTER_DETECTOR, SHIPPED, SHIPPED_DETECTOR, SHIPPED_LANDMARKS, resolve_weights
from runtime.sources.pathtable import write_paths
from runtime.storage.contract import EmbeddingContract
from runtime.storage.runfolder import RunFolder, StoredPlan
from tests.support import encoded_images as photographs
from tests.support.errors import assert_names
from tests.support.facemill_command import facemill


@pytest.mark.parametrize("name", [SHIPPED, SHIPPED_DETECTOR, SHIPPED_LANDMARKS])
def test_the_file_is_small_and_matches_its_model_file_and_card(name: str) -> None:
    spec = load_spec(name)
    path = resolve_weights(spec)  # a different checksum is refused
    assert path.parent == asset_dir("models")
    assert path.stat().st_size == spec.size_bytes <= 4_000_000
    card = (asset_dir("models") / f"{name}.md").read_text(encoding="utf-8")
    assert str(spec.sha256) in card
    figures = re.findall(r"[\d.]+ %", spec.accuracy)
    assert len(figures) >= 2
    assert all(figure in card for figure in figures)


@pytest.mark.slow
def test_fp16_weights_become_an_fp32_engine_of_unit_vectors(tmp_path: Path) -> None:
    spec = load_spec(SHIPPED)
    built = build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path)
    assert (built.engine.info.precision, built.engine.info.dimension, built.engine.info.trained) == ("fp32", 512, True)
    assert built.engine.info.parity.minimum > 0.99999
    graph = onnx.load(built.engine.path).graph
    assert onnx.TensorProto.FLOAT16 not in {tensor.data_type for tensor in graph.initializer}
    with open_runner(built.engine) as runner:
        vectors = runner.infer(synthetic_crops(112, count=5))
    assert vectors.shape == (5, 512)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_the_detector_finds_drawn_people_and_no_face_in_scenery(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for person in range(20):
        (folder / f"{person:02d}.jpg").write_bytes(encode(0, person, 0, (300, 400)))
    for seed, size in enumerate([(640, 480), (200, 200), (480, 640)]):
        (folder / f"nobody-{seed}.png").write_bytes(photographs.encode(photographs.scene(*size, seed=seed), "PNG"))
    result = facemill("process", folder, "-o", tmp_path / "o.h5", "--backend", "cpu", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["outcomes"] == {"embedded": 20, "no-face": 3}
    with h5py.File(tmp_path / "o.h5") as file:
        boxes, marks = file["faces/box"][:], file["faces/landmarks"][:]  # (20, 4), (20, 5, 2)
        contract = json.loads(file["metadata"].attrs["contract"])
    assert SHIPPED_DETECTOR in str(contract)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert np.abs(middles - (150, 200)).max() < 60
    assert ((marks >= boxes[:, None, :2]) & (marks <= boxes[:, None, 2:])).all()
    assert (marks[:, 0, 0] < marks[:, 1, 0]).all()  # left eye first, as seen in the picture
    assert (marks[:, :2, 1].max(axis=1) < marks[:, 3:, 1].min(axis=1)).all()  # eyes above the mouth


def recall(name: str) -> float:
    """Share of 160 portraits of 40 synthetic people whose nearest other portrait shows the same person."""
    data = [encode(0, person, shot, (112, 112)) for person in range(40) for shot in range(4)]
    crops = np.stack([cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) for jpeg in data])
    spec = load_spec(name)
    vectors = reference_embeddings(spec, weights_for(spec), crops)  # (160, 512)
    scores = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return float((scores.argmax(axis=1) // 4 == np.arange(len(vectors)) // 4).mean())


@pytest.mark.slow
def test_the_shipped_model_recognises_drawn_people_better_than_random_weights() -> None:
    assert recall(SHIPPED) > 0.95
    assert recall("random-512") < 0.8


@pytest.mark.slow
def test_the_shipped_model_recognises_people_in_unaligned_photos(shared: Path, tmp_path: Path) -> None:
    """Evaluate 200 pairs of LFW, the start of the first fold."""
    with tarfile.open(shared / "data" / "lfw_pairs.tar") as archive:
        lines = archive.extractfile("lfw/pairs.txt").read().decode().splitlines()  # type: ignore[union-attr]
        chosen = tmp_path / "pairs.txt"
        chosen.write_text("\n".join(["1\t100", *lines[1:101], *lines[301:401]]))
        pairs = read_pairs(chosen)
        for name in {*pairs.left, *pairs.right}:
            archive.extract(f"lfw/{name}.jpg", tmp_path, filter="data")
    result = facemill("evaluate", tmp_path / "lfw", "--pairs", chosen, "--json", "--backend", "cpu",
                    FACEMILL_MODELS=shared / "models")  # fmt: skip
    assert result.returncode == 0, result.stderr
    (evaluation,) = json.loads(result.stdout)["evaluations"]
    assert (evaluation["model"], evaluation["pairs"]["pairs"]) == (SHIPPED, 200)
    assert evaluation["pairs"]["accuracy"] > 0.9


def test_the_shipped_model_is_the_default_and_recorded_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEMILL_CACHE", str(tmp_path / "cache"))  # of a machine that was told nothing yet
    (tmp_path / "in").mkdir()
    for shot in range(2):
        (tmp_path / "in" / f"{shot}.jpg").write_bytes(encode(0, 0, shot, (112, 112)))
    result = facemill("process", tmp_path / "in", "-o", tmp_path / "o.h5", "--align", "none", "--backend", "cpu")
    assert result.returncode == 0, result.stderr
    assert_names(result.stderr, "model: facemill-512")
    assert "facemill models fetch w600k_mbf" in result.stderr
    assert "WARNING" not in result.stderr
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["metadata"].attrs["model"] == SHIPPED


@pytest.mark.slow
def test_build_engine_uses_the_shipped_model_by_default(tmp_path: Path) -> None:
    result = facemill("build-engine", "--output", tmp_path, "--json", "--backend", "cpu")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["model"] == SHIPPED


def install_better_models(cache: Path) -> None:
    """Install unreadable files as the better models, so that using them is an error."""
    (cache / "models").mkdir(exist_ok=True)
    for name in (BETTER, BETTER_DETECTOR):
        (cache / "models" / load_spec(name).file).write_bytes(b"newer")


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
def test_a_file_with_the_shipped_models_resumes_with_them_after_better_ones_arrive(
    tmp_path: Path, finished: bool
) -> None:
    (tmp_path / "in").mkdir()
    for person in range(6):
        (tmp_path / "in" / f"{person}.jpg").write_bytes(encode(0, person, 0, (300, 400)))
    command = ("process", tmp_path / "in", "-o", tmp_path / "o.h5", "--backend", "cpu", "--json")
    result = facemill(*command, FACEMILL_CACHE=tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    if not finished:  # the state after a run was killed before its end
        with h5py.File(tmp_path / "o.h5") as file:
            contract = EmbeddingContract.from_json(file["metadata"].attrs["contract"])
            plan = StoredPlan(contract, contract.root, 6, "2026-01-01T00:00:00+00:00")
        with RunFolder(tmp_path / "o.h5") as folder:
            write_paths(folder.paths_file, [f"{person}.jpg".encode() for person in range(6)])
            folder.write_plan(plan)
        (tmp_path / "o.h5").unlink()
    install_better_models(tmp_path / "cache")
    again = facemill(*command, FACEMILL_CACHE=tmp_path / "cache")
    assert again.returncode == 0, again.stderr
    assert_names(again.stderr, "model: facemill-512")
    assert_names(again.stderr, "detector: facemill-det")
    assert json.loads(again.stdout)["outcomes"] == {"embedded": 6}
    anew = facemill(*command, "--force", FACEMILL_CACHE=tmp_path / "cache")
    assert anew.returncode == 1
    assert_names(anew.stderr, f"model: {BETTER}")


@pytest.mark.slow
def test_an_evaluation_resumes_with_the_shipped_models(tmp_path: Path) -> None:
    for person in range(3):
        folder = tmp_path / "in" / str(person)
        folder.mkdir(parents=True)
        for shot in range(2):
            (folder / f"{shot}.jpg").write_bytes(encode(0, person, shot, (300, 400)))
    command = ("evaluate", tmp_path / "in", "-o", tmp_path / "report", "--backend", "cpu")
    assert facemill(*command, FACEMILL_CACHE=tmp_path / "cache").returncode == 0
    install_better_models(tmp_path / "cache")
    again = facemill(*command, FACEMILL_CACHE=tmp_path / "cache")
    assert again.returncode == 0, again.stderr
    assert_names(again.stderr, "detector: facemill-det")
