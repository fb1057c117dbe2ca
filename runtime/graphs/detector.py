"""A face detector's ONNX file to the graph of an engine: pictures of any size in, one answer for every anchor out.

YuNet and SCRFD end alike, stride by stride: a convolution, a Transpose, a Reshape and, for scores, a Sigmoid. The files
fix the batch, and YuNet's the size, in the last two of them; those are what is changed. What a detector's numbers mean
is in faces/detectors.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..extras import require
from ..faces.detectors import STRIDES, VALUES
from ..modelspec import ModelSpec
from .graph import BATCH, read_graph, simplify, upgrade
from .tensors import FACES

if TYPE_CHECKING:
    import onnx

HEIGHT, WIDTH = "H", "W"


def load_detector(weights: Path, spec: ModelSpec) -> onnx.ModelProto:
    """The network alone: (N, 3, H, W) float32 to (N, P, 15) float32.

    Args:
        weights: the ONNX file.
        spec: its model file, which names the family.
    Raises:
        ModelError: the file is damaged, or is no detector of this kind.
    """
    from onnx import TensorProto, helper

    model = upgrade(read_graph(weights), weights)
    graph = model.graph
    heads = _free_heads(model, weights)
    constants = {tensor.name for tensor in graph.initializer}
    (source,) = [value for value in graph.input if value.name not in constants]
    for dim, name in zip(source.type.tensor_type.shape.dim, (BATCH, None, HEIGHT, WIDTH), strict=True):
        if name is not None:
            dim.dim_param = name
    graph.node.extend(_joined(heads))
    del graph.value_info[:], graph.output[:]
    graph.output.append(helper.make_tensor_value_info(FACES, TensorProto.FLOAT, [BATCH, "P", VALUES]))
    return simplify(model, f"the detector {weights}")


def _free_heads(model: onnx.ModelProto, weights: Path) -> dict[int, list[str]]:
    """Outputs by values per anchor (1: scores, 4: boxes, 10: landmarks), strides rising; freed of batch and size."""
    from onnx import helper, numpy_helper

    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = np.asarray(numpy_helper.to_array(helper.get_attribute_value(node.attribute[0])))
    heads: dict[int, list[str]] = {1: [], 4: [], 10: []}
    for value in graph.output:
        node = made_by[value.name]
        node = made_by[node.input[0]] if node.op_type == "Sigmoid" else node
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or int(shape[-1]) not in heads:
            raise ModelError(
                f"the ONNX file {weights} has the output {value.name!r}, made by {node.op_type}; wanted: scores, boxes "
                f"and landmarks of a YuNet or SCRFD detector, each made by a Reshape to (anchors, 1, 4 or 10)"
            )
        turn = made_by[node.input[0]]
        if turn.op_type == "Transpose":  # SCRFD's puts the batch third, which is right for a batch of one alone
            del turn.attribute[:]
            turn.attribute.append(helper.make_attribute("perm", [0, 2, 3, 1]))
        heads[int(shape[-1])].append(value.name)
        name = f"{value.name}.any_size"
        graph.initializer.append(numpy_helper.from_array(np.array([0, -1, shape[-1]], np.int64), name))
        node.input[1] = name
    counts = {values: len(names) for values, names in heads.items()}
    if counts[4] != len(STRIDES) or counts[10] != len(STRIDES) or counts[1] not in (len(STRIDES), 2 * len(STRIDES)):
        raise ModelError(
            f"the ONNX file {weights} has {counts} outputs by values per anchor; wanted: one each per stride"
        )
    return heads


def _joined(heads: dict[int, list[str]]) -> list[onnx.NodeProto]:
    """Nodes that put all heads into one (N, P, 15)."""
    from onnx import helper

    nodes, parts = [], []
    for i, stride in enumerate(STRIDES):
        score = heads[1][i]
        if len(heads[1]) > len(STRIDES):  # YuNet: the geometric mean of "a face" and "an object"
            nodes.append(helper.make_node("Mul", [score, heads[1][i + len(STRIDES)]], [f"{FACES}.product{stride}"]))
            score = f"{FACES}.score{stride}"
            nodes.append(helper.make_node("Sqrt", [f"{FACES}.product{stride}"], [score]))
        parts.append(f"{FACES}.stride{stride}")
        nodes.append(helper.make_node("Concat", [score, heads[4][i], heads[10][i]], [parts[-1]], axis=2))
    return [*nodes, helper.make_node("Concat", parts, [FACES], axis=1)]


def reference_faces(weights: Path, spec: ModelSpec, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The file's own answer, untouched, on ONNX Runtime, one picture at a time.

    Args:
        weights, spec: the model.
        pictures: (N, 640, 640, 3) uint8: the one size that the files are made for.
    Returns:
        (N, P, 15) float64.
    Raises:
        ModelError: ONNX Runtime refuses the file.
    """
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    pixels = ((pictures.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)  # (N, 3, 640, 640)
    try:
        session = ort.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        answers = [session.run(None, {name: np.ascontiguousarray(one[None])}) for one in pixels]
    except Exception as err:  # ONNX Runtime's errors share no base class
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot run the ONNX file {weights}: {err}") from err
    return np.stack([_assembled(answer) for answer in answers])


def _assembled(outputs: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """(P, 15) of one picture from the file's outputs."""
    flat = [output.reshape(-1, output.shape[-1]).astype(np.float64) for output in outputs]
    scores, boxes, landmarks = ([part for part in flat if part.shape[1] == values] for values in (1, 4, 10))
    if len(scores) > len(STRIDES):
        scores = [np.sqrt(a * b) for a, b in zip(scores[: len(STRIDES)], scores[len(STRIDES) :], strict=True)]
    return np.concatenate([np.hstack(parts) for parts in zip(scores, boxes, landmarks, strict=True)])
