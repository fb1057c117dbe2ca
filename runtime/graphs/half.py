"""Rewrite a graph to FP16. Strongly typed TensorRT takes its precision from the graph only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_FLOAT32_INPUTS = {"Resize": (2,)}  # operator -> inputs that always stay float32


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph with input, output, weights and everything in between in float16.

    Weights outside the range of float16 are clipped; the parity check judges the result.

    Args:
        model: a float32 graph, with its constants among the initializers.
    """
    import onnx
    from onnx import TensorProto

    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    kept = {
        node.input[index]
        for node in graph.node
        for index in _FLOAT32_INPUTS.get(node.op_type, ())
        if index < len(node.input)
    }
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(_to_half_tensor(tensor))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(_to_half_tensor(attribute.t))
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del graph.value_info[:]
    return half


def _to_half_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    from onnx import numpy_helper

    array = np.clip(numpy_helper.to_array(tensor), -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)
    return numpy_helper.from_array(array, tensor.name)


def precision_of(model: onnx.ModelProto) -> str:
    """The smallest type among the weights: "int8", "fp16" or "fp32"."""
    from onnx import TensorProto

    kinds = {tensor.data_type for tensor in model.graph.initializer}
    if TensorProto.INT8 in kinds:
        return "int8"
    return "fp16" if TensorProto.FLOAT16 in kinds else "fp32"
