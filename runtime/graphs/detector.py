"""Load the ONNX file of a face detector: images of any size in, one row for every anchor out.

A file has outputs (N, P, values), or (N, values, H, W), for each head and stride; the `Decoder` of its family lists the
heads. Files fix the batch, and often the size, in the Transpose and the Reshape before an output. These are changed.
faces/detectors.py explains the numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import Interrupted, ModelError
from ..extras import require
from ..faces.detectors import Decoder, decoder_of
from ..modelspec import ModelSpec
from .graph import BATCH, read_graph, simplify, upgrade
from .tensors import FACES

if TYPE_CHECKING:
    import onnx

HEIGHT, WIDTH = "H", "W"
_SMALLEST_SIDE = 160  # pixels: of the view in which every photo is searched
_SIDE = 640  # pixels: of the images for a file that takes any size


def load_detector(weights: Path, spec: ModelSpec) -> onnx.ModelProto:
    """Load the network: (N, 3, H, W) float32 to (N, P, V) float32.

    Args:
        weights: the ONNX file.
        spec: its model file, which names the decoder.
    Raises:
        ModelError: the file is damaged, or is not a detector of this family.
    """
    from onnx import TensorProto, helper

    model = upgrade(read_graph(weights), weights)
    graph = model.graph
    decoder = decoder_of(spec.decode)
    heads = _free_heads(model, decoder, weights)
    constants = {tensor.name for tensor in graph.initializer}
    (source,) = [value for value in graph.input if value.name not in constants]
    for dim, name in zip(source.type.tensor_type.shape.dim, (BATCH, None, HEIGHT, WIDTH), strict=True):
        if name is not None:
            dim.dim_param = name
    names = {name for node in graph.node for name in node.output}
    result = FACES if FACES not in names else f"{FACES}.joined"
    graph.node.extend(_join(heads, decoder, result))
    del graph.value_info[:], graph.output[:]
    graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, [BATCH, "P", decoder.values]))
    return simplify(model, f"the detector {weights}")


def _free_heads(model: onnx.ModelProto, decoder: Decoder, weights: Path) -> dict[int, list[str]]:
    """Outputs by values per anchor (1: scores, 4: boxes, 10: landmarks), strides ascending, any batch and size."""
    from onnx import helper, numpy_helper

    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = np.asarray(numpy_helper.to_array(helper.get_attribute_value(node.attribute[0])))
    heads: dict[int, list[str]] = {values: [] for values in decoder.heads}
    for output in graph.output:
        name, node = output.name, producers[output.name]
        dims = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
        node = producers[node.input[0]] if node.op_type == "Sigmoid" else node
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None:
            values = int(shape[-1])
            _free_reshape(graph, node, producers, values, name)
        elif len(dims) == 4 and dims[1] % decoder.anchors == 0:  # the output of a convolution
            values = dims[1] // decoder.anchors
            name = _flatten(graph, name, values)
        else:
            values = dims[-1] if len(dims) == 3 else 0
        if values not in heads:
            expected = ", ".join(map(str, decoder.heads))
            raise ModelError(
                f"the ONNX file {weights} has the output {output.name!r}, made by {node.op_type}; expected: heads of "
                f"{expected} values per anchor, as (N, anchors, values) or (N, values, H, W)"
            )
        heads[values].append(name)
    _check_counts({values: len(names) for values, names in heads.items()}, decoder, weights)
    return heads


def _free_reshape(
    graph: onnx.GraphProto, node: onnx.NodeProto, producers: dict[str, onnx.NodeProto], values: int, output: str
) -> None:
    """Let a Reshape, and the Transpose before it, take any batch and size."""
    from onnx import helper, numpy_helper

    transpose = producers.get(node.input[0])
    if transpose is not None and transpose.op_type == "Transpose":  # SCRFD's is right for a batch of one only
        del transpose.attribute[:]
        transpose.attribute.append(helper.make_attribute("perm", [0, 2, 3, 1]))
    name = f"{output}.any_size"
    graph.initializer.append(numpy_helper.from_array(np.array([0, -1, values], np.int64), name))
    node.input[1] = name


def _flatten(graph: onnx.GraphProto, name: str, values: int) -> str:
    """(N, anchors * values, H, W) to (N, P, values)."""
    from onnx import helper, numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array([0, -1, values], np.int64), f"{name}.any_size"))
    graph.node.append(helper.make_node("Transpose", [name], [f"{name}.last"], perm=[0, 2, 3, 1]))
    graph.node.append(helper.make_node("Reshape", [f"{name}.last", f"{name}.any_size"], [f"{name}.flat"]))
    return f"{name}.flat"


def _check_counts(counts: dict[int, int], decoder: Decoder, weights: Path) -> None:
    """Check the number of outputs: one per head and stride, or one per head; there may be two of scores."""
    per_head = 1 if set(counts.values()) == {1} else len(decoder.strides)
    allowed = {values: {per_head, 2 * per_head} if values == 1 else {per_head} for values in counts}
    if any(count not in allowed[values] for values, count in counts.items()):
        raise ModelError(
            f"the ONNX file {weights} has {counts} outputs by values per anchor; expected: one each per stride"
        )


def _join(heads: dict[int, list[str]], decoder: Decoder, result: str) -> list[onnx.NodeProto]:
    """Nodes that concatenate all heads into one tensor, `result` (N, P, V)."""
    from onnx import helper

    nodes, parts = [], []
    count = min(len(names) for names in heads.values())
    for i, stride in enumerate(decoder.strides[:count]):
        columns = [heads[values][i] for values in decoder.heads]
        if len(heads.get(1, ())) > count:  # YuNet: the geometric mean of "a face" and "an object"
            pair = [heads[1][i], heads[1][i + count]]
            nodes.append(helper.make_node("Mul", pair, [f"{result}.product{stride}"]))
            columns[decoder.heads.index(1)] = f"{result}.score{stride}"
            nodes.append(helper.make_node("Sqrt", [f"{result}.product{stride}"], [f"{result}.score{stride}"]))
        parts.append(f"{result}.stride{stride}")
        nodes.append(helper.make_node("Concat", columns, [parts[-1]], axis=2))
    return [*nodes, helper.make_node("Concat", parts, [result], axis=1)]


def image_size(weights: Path) -> tuple[int, int]:
    """(H, W) of the images for which a detector's file was exported; 640 x 640 if it takes any size.

    Raises:
        ModelError: the file is damaged, or its images are smaller than a view.
    """
    source = read_graph(weights).graph.input[0]
    height, width = (dim.dim_value or _SIDE for dim in source.type.tensor_type.shape.dim[2:])
    if min(height, width) < _SMALLEST_SIDE:
        raise ModelError(
            f"the ONNX file {weights} takes images of {width}x{height} pixels; expected: at least "
            f"{_SMALLEST_SIDE}x{_SMALLEST_SIDE}. Export it for larger images, or for any size"
        )
    return height, width


def reference_faces(weights: Path, spec: ModelSpec, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Run the unchanged ONNX file on ONNX Runtime, one image at a time.

    Args:
        weights, spec: the model.
        images: (N, H, W, 3) uint8, of the size from `image_size`.
    Returns:
        (N, P, V) float64.
    Raises:
        ModelError: ONNX Runtime cannot run the file.
    """
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    pixels = ((images.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)  # (N, 3, H, W)
    try:
        session = ort.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        outputs = [session.run(None, {name: np.ascontiguousarray(image[None])}) for image in pixels]
    except Interrupted:  # raised by a signal, wherever the program is
        raise
    except Exception as err:  # ONNX Runtime's errors share no base class
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot run the ONNX file {weights}: {err}") from err
    decoder = decoder_of(spec.decode)
    return np.stack([_assemble(image_outputs, decoder) for image_outputs in outputs])


def _assemble(outputs: list[NDArray[np.float32]], decoder: Decoder) -> NDArray[np.float64]:
    """(P, V) of one image from the outputs of the file."""
    flat = []
    for output in outputs:
        last = output.transpose(0, 2, 3, 1) if output.ndim == 4 else output
        values = output.shape[1] // decoder.anchors if output.ndim == 4 else output.shape[-1]
        flat.append(last.reshape(-1, values).astype(np.float64))
    heads = {values: [part for part in flat if part.shape[1] == values] for values in decoder.heads}
    count = min(map(len, heads.values()))
    if len(heads.get(1, ())) > count:
        heads[1] = [np.sqrt(a * b) for a, b in zip(heads[1][:count], heads[1][count:], strict=True)]
    return np.concatenate([np.hstack(parts) for parts in zip(*heads.values(), strict=True)])
