"""The engine's graph, compared with NumPy preprocessing and the model's ONNX file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.onnxruntime.runner import OrtRunner
from runtime.engines.parity import BARS, measure_parity, reference_embeddings, synthetic_crops
from runtime.graphs.half import precision_of
from runtime.graphs.mobilefacenet import generate
from runtime.graphs.prepare import prepare_graph
from runtime.modelspec import ModelSpec
from tests.support.model_files import info, save, save_cnn, spec

IMAGENET = {
    "mean": (255 * 0.485, 255 * 0.456, 255 * 0.406),
    "std": (255 * 0.229, 255 * 0.224, 255 * 0.225),
}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def runner(weights: Path, model: ModelSpec, precision: str = "fp32") -> OrtRunner:
    graph = prepare_graph(weights, model, precision)
    sidecar = info(model=model.name, dimension=model.dimension, size=model.size, precision=precision)
    return OrtRunner(graph.SerializeToString(), sidecar)


def operators(weights: Path, model: ModelSpec, precision: str = "fp32") -> Counter[str]:
    return Counter(node.op_type for node in prepare_graph(weights, model, precision).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1)])
@pytest.mark.parametrize("normalisation", [{}, IMAGENET, PLAIN, {"mean": (10.0, 20.0, 30.0), "std": (1.0, 1.0, 1.0)}])
@pytest.mark.parametrize("conv_first", [True, False])
def test_folding_does_not_change_the_outputs(
    tmp_path: Path, pads: tuple[int, int, int, int], normalisation: dict[str, Any], precision: str, conv_first: bool
) -> None:
    model = spec(**normalisation)
    # Without a normalisation to about 1, the weights scale 0..255 down.
    gain = 1 / 100 if model.std[0] == 1 else 1.0
    weights = save_cnn(tmp_path / "m.onnx", pads=pads, gain=gain, conv_first=conv_first)
    parity = measure_parity(runner(weights, model, precision), model, weights)
    assert parity.images == 64
    assert parity.minimum >= BARS[precision].minimum


def test_the_mean_is_folded_without_padding_and_subtracted_with_padding(tmp_path: Path) -> None:
    bare = save_cnn(tmp_path / "bare.onnx", pads=(0, 0, 0, 0))
    padded = save_cnn(tmp_path / "padded.onnx")
    assert operators(bare, spec())["Sub"] == 0
    assert operators(padded, spec())["Sub"] == 1
    assert operators(padded, spec(**PLAIN))["Sub"] == 0
    assert operators(bare, spec()) - operators(bare, spec(**PLAIN)) == Counter()


@pytest.mark.slow
def test_a_grouped_first_convolution_keeps_the_outputs(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.random.default_rng(1).standard_normal((6, 1, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], group=3, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    ends = [
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6, 1, 1])],
    ]
    weights = save(tmp_path / "m.onnx", helper.make_graph(nodes, "g", *ends, [weight]))
    model = spec(dimension=6, **IMAGENET)
    assert measure_parity(runner(weights, model), model, weights).minimum >= BARS["fp32"].minimum


@pytest.mark.slow
@pytest.mark.parametrize("form", ["128", "512"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_generated_networks_equal_onnx_runtime(tmp_path: Path, form: str, precision: str) -> None:
    generate(tmp_path / "m.onnx", form=form, seed=0)
    model = spec(input_name="input", output_name="embedding", dimension=int(form))
    parity = measure_parity(runner(tmp_path / "m.onnx", model, precision), model, tmp_path / "m.onnx")
    assert parity.minimum >= BARS[precision].minimum


@pytest.mark.slow
@pytest.mark.parametrize("target", [(1, -1), (1, 256), (-1, 256)])
def test_a_file_with_batch_one_and_opset_11_takes_batches(tmp_path: Path, target: tuple[int, ...]) -> None:
    weights = save_cnn(tmp_path / "m.onnx", opset=11, batch=1, target=target)
    with runner(weights, spec()) as engine:
        assert measure_parity(engine, spec(), weights).minimum >= BARS["fp32"].minimum
        crops = synthetic_crops(112, count=5)
        together = engine.infer(crops)
        alone = np.concatenate([engine.infer(crop[None]) for crop in crops])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_real_file_equals_onnx_runtime(shared: Path, precision: str) -> None:
    weights = shared / "models" / "mobilefacenet_128.onnx"
    if not weights.exists():
        pytest.skip(f"{weights.name} is not there")
    model = spec(input_name="input0", output_name="output0", dimension=128, **IMAGENET)
    parity = measure_parity(runner(weights, model, precision), model, weights)
    assert parity.minimum >= BARS[precision].minimum


@pytest.mark.slow
@pytest.mark.parametrize("names", [("images", "embeddings"), ("embeddings", "images"), ("in/0-Cast", "out/1-Mul")])
def test_a_file_may_use_the_same_names_as_facemill(tmp_path: Path, names: tuple[str, str]) -> None:
    weights = save_cnn(tmp_path / "m.onnx", names=names)
    assert measure_parity(runner(weights, spec()), spec(), weights).minimum >= BARS["fp32"].minimum


def save_mean_colour(path: Path) -> Path:
    """(N, 3, 112, 112) to its mean, (N, 3, 1, 1): a zero vector for an image of the normalisation's mean."""
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    ends = [
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 1, 1])],
    ]
    return save(path, helper.make_graph([node], "g", *ends))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_zero_vector_stays_zero_and_the_rest_become_unit_rows(tmp_path: Path, precision: str) -> None:
    weights = save_mean_colour(tmp_path / "m.onnx")
    model = spec(dimension=3, mean=(100.0, 50.0, 0.0), std=(1.0, 1.0, 1.0))
    images = np.zeros((3, 112, 112, 3), np.uint8)
    images[0] = (100, 50, 0)  # the mean itself
    images[1] = (103, 54, 0)
    with runner(weights, model, precision) as engine:
        rows = engine.infer(images)
    assert rows.shape == (3, 3)
    assert rows[0].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(rows[1], [0.6, 0.8, 0.0], atol=1e-6)
    assert abs(float(np.linalg.norm(rows[2])) - 1) < 1e-6


def test_colours_are_not_swapped(tmp_path: Path) -> None:
    """The graph accepts channels in the given order; the sidecar records that order."""
    weights = save_mean_colour(tmp_path / "m.onnx")
    red = np.zeros((1, 112, 112, 3), np.uint8)
    red[..., 0] = 255
    with runner(weights, spec(dimension=3, **PLAIN)) as engine:
        assert engine.infer(red).tolist() == [[1.0, 0.0, 0.0]]


def test_an_fp16_body_has_fp32_ends(tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "m.onnx")
    half, full = (prepare_graph(weights, spec(), precision) for precision in ("fp16", "fp32"))
    assert (precision_of(half), precision_of(full)) == ("fp16", "fp32")
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert {kind for name, kind in kinds.items() if name.startswith("body/")} == {
        TensorProto.FLOAT16,
        TensorProto.INT64,
    }
    for graph in (half.graph, full.graph):
        ends = [(end.name, end.type.tensor_type.elem_type) for end in (*graph.input, *graph.output)]
        assert ends == [("images", TensorProto.UINT8), ("embeddings", TensorProto.FLOAT)]
    onnx.checker.check_model(half, full_check=True)


def reference_by_hand(weights: Path, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    import onnxruntime

    pixels = (crops.astype(np.float32).transpose(0, 3, 1, 2) - 127.5) / 127.5
    rows = onnxruntime.InferenceSession(weights).run(None, {"image": pixels})[0].astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_the_reference_equals_plain_onnx_runtime(tmp_path: Path) -> None:
    weights, crops = save_cnn(tmp_path / "m.onnx"), synthetic_crops(112, count=3)
    expected = reference_by_hand(weights, crops)
    np.testing.assert_allclose(reference_embeddings(spec(), weights, crops), expected, atol=1e-7)
