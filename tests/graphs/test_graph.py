"""ONNX files of all kinds: invalid ones are refused with the reason, old ones are upgraded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.errors import ModelError
from runtime.graphs.graph import load_graph
from runtime.modelspec import ModelSpec
from tests.support.errors import Values, raises
from tests.support.model_files import save, save_cnn, spec


def value(name: str, shape: list[object], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def truncated(path: Path) -> None:
    path.write_bytes(save_cnn(path).read_bytes()[:3000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


def missing(path: Path) -> None:
    assert not path.exists()


def folder(path: Path) -> None:
    path.mkdir()


def two_inputs(path: Path) -> None:
    shape = ["N", 3, 112, 112]
    add = helper.make_node("Add", ["left", "right"], ["sum"])
    save(path, helper.make_graph([add], "g", [value("left", shape), value("right", shape)], [value("sum", shape)]))


def two_outputs(path: Path) -> None:
    shape = ["N", 3, 112, 112]
    nodes = [helper.make_node("Relu", ["x"], ["one"]), helper.make_node("Neg", ["x"], ["two"])]
    save(path, helper.make_graph(nodes, "g", [value("x", shape)], [value("one", shape), value("two", shape)]))


def wrong_size(path: Path) -> None:
    shape = ["N", 3, 128, 128]
    save(
        path, helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", shape)], [value("y", shape)])
    )


def nhwc(path: Path) -> None:
    shape = ["N", 112, 112, 3]
    save(
        path, helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", shape)], [value("y", shape)])
    )


def float16_input(path: Path) -> None:
    ends = [[value(name, ["N", 3, 112, 112], TensorProto.FLOAT16)] for name in ("x", "y")]
    save(path, helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", *ends))


def wrong_dimension(path: Path) -> None:
    flatten = helper.make_node("Flatten", ["x"], ["y"])
    save(path, helper.make_graph([flatten], "g", [value("x", ["N", 3, 112, 112])], [value("y", ["N", 3 * 112 * 112])]))


def unknown_operator(path: Path) -> None:
    node = helper.make_node("FancyAttention", ["x"], ["y"], domain="com.example")
    graph = helper.make_graph([node], "g", [value("x", ["N", 3, 112, 112])], [value("y", ["N", 16])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def external_data(path: Path) -> None:
    model = onnx.load(save_cnn(path))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def external_data_missing(path: Path) -> None:
    external_data(path)
    (path.parent / "weights.bin").unlink()


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (truncated, ("3,000 bytes", "DecodeError")),
        (empty, ("0 bytes", "ValidationError")),
        (text, ("26 bytes", "DecodeError")),
        (missing, ("No such file",)),
        (folder, ("Is a directory",)),
        (two_inputs, ("left", "right")),
        (two_outputs, ("'one'", "'two'", "output_name")),
        (wrong_size, ("['N', 3, 128, 128]", "[N, 3, 112, 112]")),
        (nhwc, ("['N', 112, 112, 3]", "[N, 3, 112, 112]")),
        (float16_input, ("float16", "float [N, 3, 112, 112]")),
        (wrong_dimension, ("['N', 37632]", "[N, 16]")),
        (unknown_operator, ("ONNX Runtime", "FancyAttention")),
        (external_data, ("weights.bin", "joined.onnx")),
        (external_data_missing, ("weights.bin",)),
    ],
)
def test_an_invalid_file_is_refused_with_the_reason(
    tmp_path: Path, make: Callable[[Path], None], values: Values
) -> None:
    path = tmp_path / "model.onnx"
    make(path)
    with raises(ModelError, path, *values):
        load_graph(path, spec())


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    content = save_cnn(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in np.linspace(0, len(content) - 1, 60).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            load_graph(path, spec())


@pytest.mark.parametrize(
    ("model_spec", "values"),
    [
        (spec(input_name="data"), ("'image'", "'data'")),
        (spec(output_name="fc1"), ("'vector'", "'fc1'")),
        (spec(size=224), ("['N', 3, 112, 112]", "[N, 3, 224, 224]")),
        (spec(dimension=128), ("['N', 16]", "[N, 128]")),
    ],
)
def test_a_file_that_contradicts_its_spec_is_refused(tmp_path: Path, model_spec: ModelSpec, values: Values) -> None:
    with raises(ModelError, *values):
        load_graph(save_cnn(tmp_path / "m.onnx"), model_spec)


def test_the_named_output_is_selected(tmp_path: Path) -> None:
    path = save_cnn(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.output.append(value("r1", ["N", 8, 28, 28]))
    onnx.save(model, path)
    graph = load_graph(path, spec(output_name="vector")).graph
    assert [output.name for output in graph.output] == ["vector"]


@pytest.mark.parametrize("opset", [10, 11, 12])
def test_an_old_file_gets_a_new_opset_and_a_free_batch(tmp_path: Path, opset: int) -> None:
    path = save_cnn(tmp_path / "m.onnx", opset=opset, batch=1, target=(1, 256))
    model = load_graph(path, spec())
    assert {(o.domain, o.version >= 13) for o in model.opset_import} == {("", True)}
    for end in (model.graph.input[0], model.graph.output[0]):
        assert end.type.tensor_type.shape.dim[0].dim_param
    shapes = [numpy_helper.to_array(t).tolist() for t in model.graph.initializer if t.data_type == TensorProto.INT64]
    assert shapes == [[-1, 256]]


def test_a_shape_may_be_a_list_in_a_constant_node(tmp_path: Path) -> None:
    path = save_cnn(tmp_path / "m.onnx", batch=1)
    model = onnx.load(path)
    shape = next(node for node in model.graph.node if node.op_type == "Constant")
    shape.CopyFrom(helper.make_node("Constant", [], ["shape"], value_ints=[1, 256]))
    onnx.save(model, path)
    tensors = load_graph(path, spec()).graph.initializer
    assert [numpy_helper.to_array(t).tolist() for t in tensors if t.data_type == TensorProto.INT64] == [[-1, 256]]


def test_a_shape_shared_by_two_reshapes_is_changed_only_for_the_image(tmp_path: Path) -> None:
    """One Reshape is fed by the image, the other by weights; both name the same shape."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Reshape", ["mean", "shape"], ["flat"]),
        helper.make_node("Reshape", ["w", "shape"], ["row"]),
        helper.make_node("Add", ["flat", "row"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 3], np.int64), "shape"),
        numpy_helper.from_array(np.ones((3, 1), np.float32), "w"),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", [1, 3, 112, 112])], [value("y", [1, 3])], constants)
    model = load_graph(save(tmp_path / "m.onnx", graph), spec(dimension=3))
    row = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    assert list(row.dims) == [1, 3]


def test_weights_listed_as_inputs_are_not_inputs(tmp_path: Path) -> None:
    path = save_cnn(tmp_path / "m.onnx", opset=11)
    model = onnx.load(path)
    model.graph.input.extend(value(t.name, list(t.dims)) for t in model.graph.initializer)
    onnx.save(model, path)
    assert [end.name for end in load_graph(path, spec()).graph.input] == ["image"]
