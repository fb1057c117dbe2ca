"""Read and normalise an ONNX file of unknown origin.

The result has one float32 NCHW input with a free batch dimension, one output, opset 13 or later, all constants among
the initializers, and no outdated shapes.
"""

from __future__ import annotations

import heapq
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Interrupted, ModelError
from ..extras import require
from ..modelspec import ModelSpec
from ..modelstore import mistaken_for

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

OLDEST_OPSET = 13  # from here on ReduceSum takes its axes as an input; TensorRT and FP16 need it too
BATCH = "N"


def load_graph(weights: Path, spec: ModelSpec) -> onnx.ModelProto:
    """Read, check and normalise a model's ONNX file.

    Args:
        weights: the ONNX file, without weights in other files.
        spec: the model file; an empty tensor name means the only tensor.
    Raises:
        ModelError: the file is damaged, uses unknown operators, or does not match the spec.
    """
    model = read_graph(weights)
    _choose_tensors(model, spec, weights)
    model = upgrade(model, weights)
    _free_batch(model)
    model = simplify(model, f"the ONNX file {weights}")
    _check_output(model, spec, weights)
    return model


def simplify(model: onnx.ModelProto, label: str, *, extended: bool = False) -> onnx.ModelProto:
    """Optimise a graph with ONNX Runtime.

    The basic level folds constants, merges BatchNorm into convolutions, and keeps standard operators only. `extended`
    adds fusions for the CPU provider that do not depend on the processor.

    Raises:
        ModelError: ONNX Runtime rejects the graph.
    """
    import onnx

    ort = require("onnxruntime")
    levels = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if extended else levels.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="facemill-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "simple.onnx")
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Interrupted:  # raised by a signal, wherever the program is
            raise
        except Exception as err:  # ONNX Runtime's errors share no base class
            raise ModelError(f"{label} is rejected by ONNX Runtime {ort.__version__}: {err}") from err
        simple = onnx.load(options.optimized_model_filepath)
    # ONNX Runtime lists every operator set that it knows; other parsers expect only the used ones.
    used = {node.domain for node in simple.graph.node} | {""}
    opsets = [opset for opset in simple.opset_import if opset.domain in used]
    del simple.opset_import[:]
    simple.opset_import.extend(opsets)
    return simple


def read_graph(weights: Path) -> onnx.ModelProto:
    """Read and check an ONNX file without changing it.

    Raises:
        ModelError: the file is damaged, or keeps weights in other files.
    """
    import onnx

    try:
        model = onnx.load(weights, load_external_data=False)
        _refuse_external_data(model, weights)
        sort_nodes(model.graph)  # some converters write them in another order than ONNX demands
        onnx.checker.check_model(model)
    except OSError as err:
        raise ModelError(f"the ONNX file {weights} cannot be read: {err.strerror or err}") from err
    except ModelError:
        raise
    except Interrupted:  # raised by a signal, wherever the program is
        raise
    except Exception as err:  # protobuf and onnx raise several classes
        checked = isinstance(err, onnx.checker.ValidationError)
        fault = f"not valid, says onnx {onnx.__version__}" if checked else "damaged or truncated"
        raise ModelError(
            f"the ONNX file {weights} ({weights.stat().st_size:,} bytes) is {mistaken_for(weights)}{fault}: "
            f"{type(err).__name__}: {err}. Fetch or export it again"
        ) from err
    if model.functions:
        raise ModelError(
            f"the ONNX file {weights} defines its own functions; expected: none. Export it with them inlined"
        )
    return model


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put the nodes of a graph, and of the graphs within it, after the nodes whose values they take.

    Sorted nodes keep their order. What has no such order (a cycle) stays for the checker to name.
    """
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                sort_nodes(inner)
    maker = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    needs = [{maker[name] for name in _values_of(node) if name in maker} for node in graph.node]
    users: list[list[int]] = [[] for _ in needs]
    for number, needed in enumerate(needs):
        for other in needed:
            users[other].append(number)
    order: list[int] = []
    ready = [number for number, needed in enumerate(needs) if not needed]  # ascending, and so a heap
    while ready:
        order.append(heapq.heappop(ready))
        for user in users[order[-1]]:
            needs[user].discard(order[-1])
            if not needs[user]:
                heapq.heappush(ready, user)
    if len(order) == len(needs) and order != sorted(order):
        nodes = [type(graph.node[number]).FromString(graph.node[number].SerializeToString()) for number in order]
        del graph.node[:]
        graph.node.extend(nodes)


def _values_of(node: onnx.NodeProto) -> set[str]:
    """The values that a node takes, those of the graphs within it among them."""
    values = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            made = {name for within in inner.node for name in within.output}
            values |= {name for within in inner.node for name in _values_of(within)} - made
    return values


def _refuse_external_data(model: onnx.ModelProto, weights: Path) -> None:
    """Reject weights in other files, because the SHA-256 of the file identifies the weights everywhere."""
    import onnx

    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            joined = str(weights.with_name("joined.onnx"))
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise ModelError(
                f"the ONNX file {weights} keeps weights in another file ({location}); expected: all in one file. Join "
                f'them with: python -c "import onnx; onnx.save(onnx.load({str(weights)!r}), {joined!r})"'
            )


def _choose_tensors(model: onnx.ModelProto, spec: ModelSpec, weights: Path) -> None:
    """Keep only the input and the output that the spec names, or the only ones."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]  # old files list weights as inputs
    if len(inputs) != 1 or spec.input_name not in ("", inputs[0].name):
        raise ModelError(
            f"the ONNX file {weights} has the inputs {_names(inputs)}; expected: exactly one"
            + (f", named {spec.input_name!r} by the model file {spec.name}" if spec.input_name else "")
        )
    outputs = [value for value in graph.output if spec.output_name in ("", value.name)]
    if len(outputs) != 1:
        expected = repr(spec.output_name) if spec.output_name else "exactly one, or its name as output_name"
        raise ModelError(f"the ONNX file {weights} has the outputs {_names(graph.output)}; expected: {expected}")
    _check_input(inputs[0], spec, weights)
    for field, kept in ((graph.input, inputs[0]), (graph.output, outputs[0])):
        for value in [value for value in field if value.name != kept.name]:
            field.remove(value)


def _check_input(value: onnx.ValueInfoProto, spec: ModelSpec, weights: Path) -> None:
    import onnx

    tensor = value.type.tensor_type
    shape = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
    expected = [3, spec.size, spec.size]
    fits = len(shape) == 4 and all(
        isinstance(length, str) or length == side for length, side in zip(shape[1:], expected, strict=True)
    )
    if tensor.elem_type != onnx.TensorProto.FLOAT or not fits:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise ModelError(
            f"the input {value.name!r} of the ONNX file {weights} is {kind} {shape}; expected by the model file "
            f"{spec.name}: float [{BATCH}, 3, {spec.size}, {spec.size}]"
        )
    for dim, length in zip(tensor.shape.dim[1:], expected, strict=True):
        dim.dim_value = length


def _names(values: Iterable[onnx.ValueInfoProto]) -> str:
    return ", ".join(repr(value.name) for value in values) or "(none)"


def upgrade(model: onnx.ModelProto, weights: Path) -> onnx.ModelProto:
    """Convert a model to opset 13 or later."""
    from onnx import version_converter

    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    if opset >= OLDEST_OPSET:
        return model
    del model.graph.value_info[:]
    try:
        upgraded = version_converter.convert_version(model, OLDEST_OPSET)
    except Interrupted:  # raised by a signal, wherever the program is
        raise
    except Exception as err:  # the converter raises bare RuntimeError and ConvertError
        raise ModelError(
            f"the ONNX file {weights} has opset {opset}, which cannot be upgraded to {OLDEST_OPSET}: {err}. "
            f"Export it again with opset {OLDEST_OPSET} or later"
        ) from err
    logger.info("%s: opset %d upgraded to %d", weights.name, opset, OLDEST_OPSET)
    return upgraded


def _free_batch(model: onnx.ModelProto) -> None:
    """Make the first dimension symbolic in the input, the output and every Reshape that contains it."""
    from onnx import helper, numpy_helper

    graph = model.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for end in (graph.input[0], graph.output[0]):
        if end.type.tensor_type.shape.dim:
            end.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]
    if not batch:
        return
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            is_tensor = node.attribute[0].name == "value"
            constants[node.output[0]] = numpy_helper.to_array(value) if is_tensor else np.asarray(value)
    from_images = {graph.input[0].name}
    for node in graph.node:
        if not from_images.isdisjoint(node.input):
            from_images.update(node.output)
            if node.op_type == "Reshape" and node.input[1] in constants:
                _free_reshape(graph, node, constants[node.input[1]], batch)


def _free_reshape(graph: onnx.GraphProto, node: onnx.NodeProto, target: NDArray[Any], batch: int) -> None:
    """Change [batch, ...] to [-1, ...], or to [0, ...] (same as the input) if it already has a -1."""
    from onnx import numpy_helper

    if not target.size or target[0] != batch:
        return
    shape = target.astype(np.int64)  # a copy
    shape[0] = 0 if -1 in shape else -1
    name = f"{node.output[0]}.any_batch"  # other nodes may use the old constant, so it stays
    graph.initializer.append(numpy_helper.from_array(shape, name))
    node.input[1] = name


def _check_output(model: onnx.ModelProto, spec: ModelSpec, weights: Path) -> None:
    """Check the length of the output, if shape inference knows it."""
    dims = model.graph.output[0].type.tensor_type.shape.dim
    shape = [dim.dim_value for dim in dims]
    known = all(shape[1:])
    if dims and (len(shape) < 2 or (known and np.prod(shape[1:]) != spec.dimension)):
        raise ModelError(
            f"the output {model.graph.output[0].name!r} of the ONNX file {weights} is "
            f"{[BATCH, *shape[1:]]}; expected by the model file {spec.name}: [{BATCH}, {spec.dimension}]"
        )
