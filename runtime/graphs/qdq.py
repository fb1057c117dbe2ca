"""Insert Q/DQ into a graph at the nodes and tensors of a backend's scheme, with ONNX Runtime's static quantiser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, Interrupted
from ..extras import require

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

WEIGHTED = ("Conv", "Gemm", "MatMul")
CLIPPING = ("Relu", "Clip")
_ACTIVATIONS = (*CLIPPING, "PRelu", "LeakyRelu")
PASSING = (
    "Reshape",
    "Flatten",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
)  # output range = input range
_HALF_OPSET = 19  # from here on Q/DQ takes float16


@dataclass(frozen=True, slots=True)
class Scheme:
    """Where a backend needs Q/DQ. Weights are always int8 per channel.

    Attributes:
        operators: operators that it computes in INT8.
        symmetric: whether activations are int8 around zero; else they are uint8 with a zero point.
        inputs_only: whether Q/DQ is at the inputs of layers only, with biases in float.
        rest: precision of the layers that are not in INT8.
    """

    operators: tuple[str, ...]
    symmetric: bool
    inputs_only: bool
    rest: str = "fp32"


@dataclass(frozen=True, slots=True)
class Layer:
    """Nodes that are quantised, or left in float, together.

    Attributes:
        name: name of the node with the weights.
        nodes: names of that node and of the activations that only it feeds.
    """

    name: str
    nodes: tuple[str, ...]


def prepare_for_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph with a name for every node, in an opset that supports Q/DQ of its types."""
    import onnx
    from onnx import TensorProto, version_converter

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in copy.graph.initializer)
    if half and next(opset.version for opset in copy.opset_import if not opset.domain) < _HALF_OPSET:
        copy = version_converter.convert_version(copy, _HALF_OPSET)
    for node in copy.graph.node:
        node.name = node.name or node.output[0]
    return copy


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """Convolutions and products with constant weights, in the order of the graph, from `prepare_for_qdq`."""
    constants = {tensor.name for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    activations = {node.input[0]: node for node in model.graph.node if node.op_type in _ACTIVATIONS}
    layers = []
    for node in model.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in constants:
            nodes, top = [node.name], node.output[0]
            while top in activations and readers[top] == 1:
                nodes.append(activations[top].name)
                top = activations[top].output[0]
            layers.append(Layer(node.name, tuple(nodes)))
    return layers


def tensors_to_observe(model: onnx.ModelProto, scheme: Scheme) -> set[str]:
    """Names of the tensors whose ranges `insert_qdq` needs."""
    produced: set[str] = set()
    needed: set[str] = set()
    clipped: set[str] = set()
    readers = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        produced.update(node.output)
        if node.op_type in scheme.operators:
            needed.update(node.input if scheme.inputs_only else (*node.input, *node.output))
            if node.op_type in CLIPPING and readers[node.input[0]] == 1:
                clipped.add(node.input[0])
    return needed & produced - clipped


def insert_qdq(
    model: onnx.ModelProto, scheme: Scheme, nodes: Collection[str], ranges: Mapping[str, NDArray[Any]]
) -> onnx.ModelProto:
    """Copy a graph with Q/DQ: weights per channel, activations per tensor.

    Args:
        model: a graph from `prepare_for_qdq`.
        scheme: scheme of the backend.
        nodes: names of the nodes to quantise, at least one.
        ranges: (2,) low and high, in the tensor's own dtype, of each tensor in `tensors_to_observe`.
    Raises:
        EngineError: ONNX Runtime cannot quantise the graph.
    """
    import onnx

    require("onnxruntime")
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    assert nodes, "to ONNX Runtime an empty list means every node"
    limits = dict(ranges)
    for node in model.graph.node:  # a tensor that is clipped at once gets the range after clipping
        if node.op_type in CLIPPING and node.output[0] in limits:
            limits.setdefault(node.input[0], limits[node.output[0]])
    tensor_ranges = TensorsData(
        CalibrationMethod.MinMax, {name: TensorData(lowest=low, highest=high) for name, (low, high) in limits.items()}
    )
    options = {
        "ActivationSymmetric": scheme.symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": not scheme.inputs_only,
        "OpTypesToExcludeOutputQuantization": list(scheme.operators) if scheme.inputs_only else [],
    }
    kind = QuantType.QInt8 if scheme.symmetric else QuantType.QUInt8
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # ONNX Runtime 1.20 changes its input model
    try:
        quantizer = QDQQuantizer(
            copy, True, False, QuantType.QInt8, kind, tensor_ranges, sorted(nodes), [], list(scheme.operators), options
        )
        quantised: onnx.ModelProto = quantizer.quantize_model()
        quantizer.model.topological_sort()  # the new nodes are at the end
    except Interrupted:  # raised by a signal, wherever the program is
        raise
    except Exception as err:  # its errors share no base class
        raise EngineError(f"ONNX Runtime cannot quantise the graph: {type(err).__name__}: {err}") from err
    return quantised
