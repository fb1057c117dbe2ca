"""Prepare the graph of an engine: uint8 pixels in; unit vectors, faces or landmarks out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..faces.detectors import decoder_of
from ..modelspec import ModelSpec
from .detector import HEIGHT, WIDTH, load_detector
from .graph import BATCH, load_graph
from .half import to_half
from .tensors import FACES, INPUT, LANDMARKS, OUTPUT

if TYPE_CHECKING:
    import onnx


SMALLEST_NORM = 1e-12  # a shorter row is divided by this, so that a zero row stays zero instead of NaN
BODY = "body/"  # prefix of the names of the model's own nodes and tensors, so that they cannot clash with ours


def prepare_graph(weights: Path, spec: ModelSpec, precision: str) -> onnx.ModelProto:
    """Prepare a graph: `images` (N, S, S, 3) uint8 to `embeddings` (N, D) float32 unit rows.

    Normalisation and L2 are in float32 at either end, even if the body is float16. The graph of a detector takes images
    of any size (N, H, W, 3) and returns `faces` (N, P, V) float32. The graph of a landmark network returns `landmarks`
    (N, 15) float32; that for attributes returns its rows as they are.

    Args:
        weights: the model's ONNX file.
        spec: its model file.
        precision: "fp32" or "fp16".
    Raises:
        ModelError: the file is damaged or does not match the spec.
    """
    body = load_detector(weights, spec) if spec.detects else load_graph(weights, spec)
    mean = np.asarray(spec.mean, np.float64)
    std = np.asarray(spec.std, np.float64)
    if precision == "fp16":
        # No folding: divided by std, the first weights would leave the normal range of float16 and lose digits.
        body = to_half(body)
    else:
        mean, std = _fold(body.graph, mean, std)
    return _wrap(body, spec, mean, std)


def _fold(
    graph: onnx.GraphProto, mean: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move the normalisation into the first convolution as far as that is exact.

    The scale can always move. The mean can move only without padding: padding is zero after the normalisation, and the
    bias of a folded mean would apply to it too.

    Returns:
        The mean and std that remain for the input.
    """
    from onnx import numpy_helper

    users = [node for node in graph.node if graph.input[0].name in node.input]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if len(users) != 1 or users[0].op_type != "Conv" or any(name not in constants for name in users[0].input[1:]):
        return mean, std
    conv = users[0]
    weight = numpy_helper.to_array(constants[conv.input[1]]).astype(np.float64)  # (out, 3, kernel, kernel)
    if weight.shape[1] != 3:  # grouped: each output channel sees only some of the colours
        return mean, std
    weight /= std[:, None, None]
    name = f"{conv.output[0]}.folded"
    _replace_input(graph, conv, 1, f"{name}.weight", weight)
    if _is_padded(conv):
        return mean, np.ones(3)
    bias = numpy_helper.to_array(constants[conv.input[2]]) if len(conv.input) > 2 else np.zeros(len(weight))
    _replace_input(graph, conv, 2, f"{name}.bias", bias - np.einsum("oihw,i->o", weight, mean))
    return np.zeros(3), np.ones(3)


def _is_padded(conv: onnx.NodeProto) -> bool:
    attributes = {attribute.name: attribute for attribute in conv.attribute}
    automatic = attributes["auto_pad"].s if "auto_pad" in attributes else b"NOTSET"
    if automatic == b"NOTSET":
        return "pads" in attributes and any(attributes["pads"].ints)
    return bool(automatic != b"VALID")


def _replace_input(
    graph: onnx.GraphProto, node: onnx.NodeProto, index: int, name: str, array: NDArray[np.float64]
) -> None:
    """Give a node its own constant. Other nodes may use the old one."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    inputs = [*node.input[:index], name, *node.input[index + 1 :]]
    del node.input[:]
    node.input.extend(inputs)


def _wrap(
    body: onnx.ModelProto, spec: ModelSpec, mean: NDArray[np.float64], std: NDArray[np.float64]
) -> onnx.ModelProto:
    """Add the uint8 NHWC input and the remaining normalisation before the body, and L2 after it."""
    import onnx
    from onnx import TensorProto, compose, helper

    body = compose.add_prefix(body, BODY)
    graph = body.graph
    source, target = graph.input[0].name, graph.output[0].name
    body_type = graph.input[0].type.tensor_type.elem_type
    before, after = _Chain(INPUT, "in"), _Chain(target, "out")
    before.add("Cast", to=TensorProto.FLOAT)  # TensorRT accepts only a Cast on uint8
    if mean.any():
        # A whole image of means, because ONNX Runtime is slow to broadcast three numbers to every pixel. It is before
        # the Transpose, which ONNX Runtime moves after the Sub anyway when convolutions are INT8.
        image = (1, 1) if spec.detects else (spec.size, spec.size)
        before.add("Sub", np.broadcast_to(mean.astype(np.float32), (1, *image, 3)))
    before.add("Transpose", perm=[0, 3, 1, 2])
    if (std != 1).any():
        before.add("Mul", (1 / std).reshape(1, 3, 1, 1).astype(np.float32))
    before.add("Cast", to=body_type, output=source)
    name: str
    shape: list[int | str]
    sides: list[int | str]
    if spec.detects:
        after.add("Cast", to=TensorProto.FLOAT, output=FACES)
        name, shape, sides = FACES, ["P", decoder_of(spec.decode).values], [HEIGHT, WIDTH]
    elif spec.task == "landmarks":
        after.add("Cast", to=TensorProto.FLOAT, output=LANDMARKS)
        name, shape, sides = LANDMARKS, [spec.dimension], [spec.size, spec.size]
    elif spec.task == "attributes":  # probabilities, as they are
        after.add("Cast", to=TensorProto.FLOAT, output=OUTPUT)
        name, shape, sides = OUTPUT, [spec.dimension], [spec.size, spec.size]
    else:
        _add_l2(after, flat=len(graph.output[0].type.tensor_type.shape.dim) == 2)
        name, shape, sides = OUTPUT, [spec.dimension], [spec.size, spec.size]

    wrapped = helper.make_graph(
        [*before.nodes, *graph.node, *after.nodes],
        f"{spec.name}-engine",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [BATCH, *sides, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])],
        [*graph.initializer, *before.constants, *after.constants],
    )
    model = helper.make_model(wrapped, opset_imports=body.opset_import, ir_version=body.ir_version)
    model.producer_name = "facemill"
    onnx.checker.check_model(model)
    return model


def _add_l2(after: _Chain, *, flat: bool) -> None:
    """Add the steps from rows of any shape to float32 unit rows."""
    from onnx import TensorProto

    vectors = after.add("Cast", to=TensorProto.FLOAT)
    if not flat:
        vectors = after.add("Flatten", axis=1)  # (N, D): some networks return (N, D, 1, 1)
    after.add("Mul", vectors)
    after.add("ReduceSum", np.array([1], np.int64), keepdims=1)
    after.add("Sqrt")
    norms = after.add("Max", np.array(SMALLEST_NORM, np.float32))  # (N, 1)
    after.top = vectors
    after.add("Div", norms, output=OUTPUT)


class _Chain:
    """Nodes in a row, each with the output of the one before as input; `top` is the last output."""

    def __init__(self, top: str, prefix: str) -> None:
        self.top = top
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = prefix

    def add(
        self, op: str, second: str | NDArray[Any] | None = None, *, output: str | None = None, **attributes: Any
    ) -> str:
        """Append a node with an optional second input, a tensor name or a constant. Returns the output name."""
        from onnx import helper, numpy_helper

        name = f"{self._prefix}/{len(self.nodes)}-{op}"
        inputs = [self.top]
        if isinstance(second, str):
            inputs.append(second)
        elif second is not None:
            self.constants.append(numpy_helper.from_array(second, f"{name}.constant"))
            inputs.append(self.constants[-1].name)
        self.top = output or name
        self.nodes.append(helper.make_node(op, inputs, [self.top], name=name, **attributes))
        return self.top
