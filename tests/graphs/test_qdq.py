"""The positions of Q/DQ nodes for each backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.calibrate import observe, value_range
from runtime.engines.onnxruntime import runner as ort_runner
from runtime.engines.onnxruntime.backend import OnnxRuntimeCpu
from runtime.engines.onnxruntime.runner import open_session
from runtime.engines.parity import synthetic_crops
from runtime.engines.tensorrt.backend import TensorRT
from runtime.errors import EngineError
from runtime.graphs.graph import simplify
from runtime.graphs.mobilefacenet import generate
from runtime.graphs.prepare import prepare_graph
from runtime.graphs.qdq import Scheme, find_layers, insert_qdq, prepare_for_qdq, tensors_to_observe
from tests.support.errors import raises
from tests.support.model_files import save, save_cnn, spec

CROPS = synthetic_crops(112, count=8)


def quantise_graph(graph: onnx.ModelProto, scheme: Scheme, kept_float: Collection[str] = ()) -> onnx.ModelProto:
    ready = prepare_for_qdq(graph)
    observations = observe(ready, tensors_to_observe(ready, scheme), CROPS)
    ranges = {name: value_range(values, "minmax") for name, values in observations.items()}
    stay = {node for layer in find_layers(ready) if layer.name in kept_float for node in layer.nodes}
    nodes = {node.name for node in ready.graph.node if node.op_type in scheme.operators} - stay
    return insert_qdq(ready, scheme, nodes, ranges)


@pytest.fixture
def graph(tmp_path: Path) -> onnx.ModelProto:
    return prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp32")


@pytest.fixture
def half(tmp_path: Path) -> onnx.ModelProto:
    return prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp16")


@pytest.fixture
def residual(tmp_path: Path) -> onnx.ModelProto:
    """MobileFaceNet with random weights: depthwise convolutions, PReLUs and residuals."""
    generate(tmp_path / "m.onnx", form="128", seed=0)
    return prepare_graph(tmp_path / "m.onnx", spec(dimension=128), "fp32")


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_a_layer_consists_of_weights_and_the_next_activation(graph: onnx.ModelProto) -> None:
    layers = find_layers(prepare_for_qdq(graph))
    kinds = {node.name: node.op_type for node in prepare_for_qdq(graph).graph.node}
    assert [[kinds[name] for name in layer.nodes] for layer in layers] == [["Conv", "Relu"], ["Conv"], ["MatMul"]]


def test_unnamed_nodes_get_a_name(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], name="named"), helper.make_node("Relu", ["a"], ["b"])]
    nodes += [helper.make_node("Conv", ["b", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])]
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3 * 112 * 112])],
    )
    path = save(tmp_path / "m.onnx", helper.make_graph(nodes, "g", *ends, [weight]))
    graph = prepare_graph(path, spec(dimension=3 * 112 * 112), "fp32")
    for node in graph.graph.node:
        node.name = "" if node.op_type == "Conv" else node.name
    ready = prepare_for_qdq(graph)
    assert len(find_layers(ready)) == 2
    names = [node.name for node in ready.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_onnx_runtime_uses_integer_operators_between_float_ends(graph: onnx.ModelProto) -> None:
    fused = simplify(quantise_graph(graph, OnnxRuntimeCpu.scheme), "the graph", extended=True)
    counts = operators(fused)
    assert (counts["QLinearConv"], counts["QLinearMatMul"]) == (2, 1)
    assert not {"Conv", "MatMul", "Relu"} & counts.keys()
    assert {"Cast", "Sub", "Transpose", "Div"} <= counts.keys()


@pytest.mark.slow
def test_depthwise_layers_and_residuals_become_integer_operators(residual: onnx.ModelProto) -> None:
    before = operators(residual)
    counts = operators(simplify(quantise_graph(residual, OnnxRuntimeCpu.scheme), "the graph", extended=True))
    assert (counts["QLinearConv"], counts["QLinearAdd"]) == (before["Conv"], before["Add"])
    assert not {"Conv", "FusedConv", "Add"} & counts.keys()


def test_on_the_cpu_weights_are_int8_by_channel_and_activations_uint8(graph: onnx.ModelProto) -> None:
    model = quantise_graph(graph, OnnxRuntimeCpu.scheme)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [t for t in tensors.values() if t.dtype == np.int8 and t.ndim > 1]
    assert {t.shape for t in weights} == {(8, 3, 5, 5), (16, 8, 7, 7), (256, 16)}
    points = [tensors[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {point.dtype for point in points} == {np.dtype(np.uint8)}
    scales = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert {(8,), (16,)} <= {tensors[name].shape for name in scales}


@pytest.mark.parametrize("kind", ["graph", "half"])
def test_for_tensorrt_all_is_symmetric_and_only_inputs_are_quantised(request: pytest.FixtureRequest, kind: str) -> None:
    before: onnx.ModelProto = request.getfixturevalue(kind)
    model = quantise_graph(before, TensorRT.scheme)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    of = {name: node for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    quantisers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in quantisers:
        assert tensors[node.input[2]].dtype == np.int8
        assert not tensors[node.input[2]].any()
        assert tensors[node.input[1]].dtype == (np.float16 if kind == "half" else np.float32)
    assert not any(tensor.dtype == np.int32 for tensor in tensors.values())  # a bias
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            assert [of[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert readers[node.output[0]] == 1
    # One on the input of each layer and none after it, so that the next operator can be fused into the convolution.
    assert sum(node.op_type == "QuantizeLinear" for node in quantisers) == 3


def test_the_unquantised_part_of_an_fp16_graph_stays_fp16(half: onnx.ModelProto) -> None:
    model = quantise_graph(half, TensorRT.scheme)
    (opset,) = (entry.version for entry in model.opset_import if not entry.domain)
    assert opset >= 19  # Q/DQ in float16
    onnx.checker.check_model(model, full_check=True)
    rows = open_session(model.SerializeToString()).run(None, {"images": CROPS})[0]
    expected = open_session(half.SerializeToString()).run(None, {"images": CROPS})[0]
    assert np.einsum("nd,nd->n", rows, expected).min() > 0.99


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("scheme", [OnnxRuntimeCpu.scheme, TensorRT.scheme], ids=["cpu", "tensorrt"])
def test_an_unquantised_layer_keeps_its_weights(graph: onnx.ModelProto, scheme: Scheme, layer: int) -> None:
    """ONNX Runtime would otherwise quantise them with one scale per tensor, between neighbouring Q/DQ nodes."""
    name = find_layers(prepare_for_qdq(graph))[layer].name
    model = quantise_graph(graph, scheme, [name])
    weights = {w.name: numpy_helper.to_array(w) for w in graph.graph.initializer}
    node = next(node for node in model.graph.node if node.name == name)
    stored = next(numpy_helper.to_array(w) for w in model.graph.initializer if w.name == node.input[1])
    np.testing.assert_array_equal(stored, weights[node.input[1]])
    rows = open_session(model.SerializeToString()).run(None, {"images": CROPS})[0]
    np.testing.assert_allclose(rows, by_hand(model), atol=1e-6)


@pytest.mark.parametrize("saturates", [False, True])
def test_exact_multiplication_gives_the_outputs_of_the_graph(
    graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    """Processors without VNNI use this setting; with VNNI both settings are exact."""
    if not saturates and ort_runner._saturates():
        pytest.skip("this processor has no VNNI")
    monkeypatch.setattr(ort_runner, "_saturates", lambda: saturates)
    model = quantise_graph(graph, OnnxRuntimeCpu.scheme)
    rows = open_session(model.SerializeToString()).run(None, {"images": CROPS})[0]
    np.testing.assert_allclose(rows, by_hand(model), atol=1e-6)


def by_hand(model: onnx.ModelProto) -> np.ndarray:
    """Evaluate the graph node by node with onnx's reference implementation, which needs opset 19."""
    from onnx import version_converter
    from onnx.reference import ReferenceEvaluator

    newer = version_converter.convert_version(model, 19)
    return np.asarray(ReferenceEvaluator(newer).run(None, {"images": CROPS})[0])


def test_a_failure_of_the_quantiser_is_an_engine_error(graph: onnx.ModelProto) -> None:
    ready = prepare_for_qdq(graph)
    with raises(EngineError, "ONNX Runtime", "Quantization parameters"):
        insert_qdq(ready, OnnxRuntimeCpu.scheme, {layer.name for layer in find_layers(ready)}, {})
