"""From a checkpoint to a facemill model, if torch is installed: equal outputs, an engine, and texts that are kept."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from runtime.engines.build import build_engine
from runtime.errors import ParityError
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from tests.support.errors import raises
from tests.support.training_extra import torch_of_extra, write_checkpoint

torch = torch_of_extra()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a narrow network with trained batch norms, so that folding changes the weights."""
    backbone = {"name": "mobilefacenet", "dimension": 64, "width": 0.25, "activation": "prelu"}
    return write_checkpoint(tmp_path / "last.pt", backbone)


def test_an_exported_model_equals_the_network_and_becomes_an_engine(checkpoint: Path, tmp_path: Path) -> None:
    from training.export import export

    target = tmp_path / "mine.onnx"
    result = export(checkpoint, target)
    assert result.gap < 1e-4
    assert result.cosine > 0.9999
    assert (result.samples, result.size_bytes) == (48, target.stat().st_size)
    graph = onnx.load(target).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    halved = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert len(halved) == sum(len(t.dims) > 1 for t in graph.initializer) > 30
    spec = load_spec(str(tmp_path / "mine.toml"))
    assert (spec.name, spec.dimension, spec.licence, spec.trained) == ("mine", 64, "not stated", True)
    built = build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path / "engines")
    assert built.engine.info.parity.minimum > 0.99999
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines", "last.pt", "mine.onnx", "mine.toml"]


def test_texts_are_kept_and_facts_are_updated(checkpoint: Path, tmp_path: Path) -> None:
    from training.export import export

    target, described = tmp_path / "mine.onnx", tmp_path / "mine.toml"
    export(checkpoint, target)
    text = described.read_text()
    described.write_text(
        text.replace('licence = "not stated"', 'licence = "ask \\"Änne\\""').replace("dimension = 64", "dimension = 3")
    )
    export(checkpoint, target)
    spec = load_spec(str(described))
    assert (spec.licence, spec.dimension) == ('ask "Änne"', 64)
    assert resolve_weights(spec) == target


def test_a_file_with_different_outputs_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import export

    monkeypatch.setattr(export, "halve_weights", permute_weights)
    with raises(ParityError, "FP16"):
        export.export(checkpoint, tmp_path / "mine.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def permute_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with the weights of its last convolution in another order."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    last = [tensor for tensor in copy.graph.initializer if len(tensor.dims) == 4][-1]
    last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last)[::-1].copy(), last.name))
    return copy


def test_an_unsuitable_checkpoint_is_named(checkpoint: Path, tmp_path: Path) -> None:
    from training.export import export
    from training.export_detector import export as export_detector
    from training.export_landmarks import export as export_landmarks

    for content in (b"", b"junk" * 99, checkpoint.read_bytes()[:-999]):
        (tmp_path / "junk.pt").write_bytes(content)
        with raises(ValueError, "junk.pt"):
            export(tmp_path / "junk.pt", tmp_path / "mine.onnx")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with raises(ValueError, "other.pt"):
        export(tmp_path / "other.pt", tmp_path / "mine.onnx")
    with raises(ValueError, checkpoint):
        export_detector(checkpoint, tmp_path / "mine.onnx")
    with raises(ValueError, checkpoint):
        export_landmarks(checkpoint, tmp_path / "mine.onnx")
    stored = torch.load(checkpoint, weights_only=True)
    torch.save({**stored, "config": {"widths": [8, 16, 24]}}, tmp_path / "detector.pt")
    with raises(ValueError, "detector.pt"):
        export(tmp_path / "detector.pt", tmp_path / "mine.onnx")
