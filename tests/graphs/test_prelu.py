"""PRelu expressed in other operators gives the same outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.onnxruntime.runner import open_session
from runtime.graphs.prelu import replace_prelu


def network(shape: tuple[int, ...], constant: bool = True) -> onnx.ModelProto:
    """PRelu after PRelu; slopes below 0 and above 1 are among them."""
    slopes = np.linspace(-0.5, 1.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    nodes = [
        helper.make_node("PRelu", ["x", "slopes"], ["y"], "first"),
        helper.make_node("PRelu", ["y", "slopes"], ["z"], "second"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, 5, 4])]
    if not constant:
        inputs.append(helper.make_tensor_value_info("slopes", TensorProto.FLOAT, shape))
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 6, 5, 4])]
    initializers = [numpy_helper.from_array(slopes, "slopes")] if constant else []
    graph = helper.make_graph(nodes, "prelu", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1)])
def test_replacing_prelu_gives_the_same_outputs(shape: tuple[int, ...]) -> None:
    model = network(shape)
    replaced = replace_prelu(model)
    onnx.checker.check_model(replaced)
    assert kinds(model) == {"PRelu"}
    assert kinds(replaced) == {"Relu", "Conv", "Add"}
    assert not {tensor.name for tensor in replaced.graph.initializer} & {"slopes"}
    x = np.random.default_rng(0).normal(0, 3, (3, 6, 5, 4)).astype(np.float32)
    answers = [
        open_session(variant.SerializeToString(), threads=1).run(None, {"x": x})[0] for variant in (model, replaced)
    ]
    np.testing.assert_allclose(answers[1], answers[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1,), (4,), (6, 5, 4), (2, 6, 1, 1)])
def test_slopes_that_are_not_one_per_channel_stay(shape: tuple[int, ...]) -> None:
    model = network((6, 1, 1))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), "slopes"))
    assert kinds(replace_prelu(model)) == {"PRelu"}


def test_slopes_that_are_computed_stay() -> None:
    assert kinds(replace_prelu(network((6, 1, 1), constant=False))) == {"PRelu"}
