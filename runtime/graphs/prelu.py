"""Replace PRelu by operators that ONNX Runtime runs fast on a CPU: for a PRelu it leaves its blocked layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx


def replace_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph with PRelu(x) replaced by a x + (1 - a) Relu(x), as depthwise 1x1 convolutions.

    These stay in the blocked layout, and the sum is fused into the second one. A PRelu is kept unless its slopes are
    constant, with one per channel.

    Args:
        model: a float32 graph.
    """
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        slopes = constants.get(node.input[1]) if node.op_type == "PRelu" else None
        if slopes is None or not _is_per_channel(list(slopes.dims)):
            nodes.append(node)
            continue
        source, target = node.input[0], node.output[0]
        slope = numpy_helper.to_array(slopes).reshape(-1, 1, 1, 1)

        def scale(tensor: str, factors: NDArray[np.float32], name: str, to: str = target) -> onnx.NodeProto:
            copy.graph.initializer.append(numpy_helper.from_array(factors.astype(np.float32), f"{to}/{name}.factors"))
            inputs, outputs = [tensor, f"{to}/{name}.factors"], [f"{to}/{name}"]
            return helper.make_node("Conv", inputs, outputs, outputs[0], kernel_shape=[1, 1], group=len(factors))

        nodes.append(helper.make_node("Relu", [source], [f"{target}/relu"], f"{target}/relu"))
        nodes.append(scale(source, slope, "whole"))
        nodes.append(scale(f"{target}/relu", 1 - slope, "positive"))
        nodes.append(helper.make_node("Add", [f"{target}/whole", f"{target}/positive"], [target], f"{target}/sum"))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in used]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def _is_per_channel(shape: list[int]) -> bool:
    """Whether slopes of this shape have one value per channel of (N, C, H, W)."""
    return len(shape) in (3, 4) and shape[-2:] == [1, 1] and (len(shape) == 3 or shape[0] == 1)
