"""The model of the tests: its spec, its model file, its engine's facts, and small ONNX graphs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.engine import Engine, EngineInfo, read_engine, write_engine
from runtime.modelspec import ModelSpec

SPEC = ModelSpec(
    name="test-model",
    title="a model of the tests",
    file="model.onnx",
    input_name="",
    output_name="",
    size=112,
    channel_order="rgb",
    mean=(127.5, 127.5, 127.5),
    std=(127.5, 127.5, 127.5),
    dimension=16,
    licence="Apache-2.0",
    accuracy="none",
    accuracy_source="none",
    trained=False,
)


def spec(**changes: Any) -> ModelSpec:
    return replace(SPEC, **changes)


def write_model_file(path: Path, **changes: Any) -> Path:
    """Write the TOML of SPEC with changes."""
    facts = {name: value for name, value in asdict(spec(**changes)).items() if value is not None and name != "folder"}
    # JSON's strings, numbers and lists are valid TOML.
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in facts.items()))
    return path


def info(**changes: Any) -> EngineInfo:
    """Make the facts of an engine of SPEC, with changes."""
    base = EngineInfo(
        model=SPEC.name,
        model_sha256="0" * 64,
        trained=False,
        dimension=SPEC.dimension,
        size=SPEC.size,
        channel_order=SPEC.channel_order,
        backend="cpu",
        backend_version="onnxruntime",
        precision="fp32",
        profile=(1, 8, 64),
        device="cpu",
        engine_sha256="1" * 64,
        tool_version="0",
    )
    return replace(base, **changes)


def copy_engine(engine: Path, target: Path, **changes: Any) -> Engine:
    """Copy an engine to another path, with changed facts in its sidecar."""
    return write_engine(target, engine.read_bytes(), replace(read_engine(engine).info, **changes))


def save_cnn(
    path: Path,
    *,
    opset: int = 17,
    batch: int | str = "N",
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    names: tuple[str, str] = ("image", "vector"),
    target: tuple[int, ...] = (-1, 256),
    gain: float = 1.0,
    conv_first: bool = True,
) -> Path:
    """Save a network: convolution, ReLU, convolution, Reshape with a constant shape, matrix product.

    Args:
        path: path of the ONNX file.
        opset: opset of the graph.
        batch: batch size or its name; a number fixes the batch, as many published files do.
        pads: padding of the first convolution.
        names: names of input and output.
        target: shape of the Reshape.
        gain: factor of the first convolution's weights.
        conv_first: False puts an Add before the convolution.
    """
    rng = np.random.default_rng(3)
    weights = {
        "w1": gain * rng.standard_normal((8, 3, 5, 5)) / 8,
        "b1": rng.standard_normal(8) / 8,
        "w2": rng.standard_normal((16, 8, 7, 7)) / 20,
        "fc": rng.standard_normal((16 * 16, 16)) / 16,
        "tenth": np.array(0.1),
    }
    source = names[0]
    nodes = [] if conv_first else [helper.make_node("Add", [source, "tenth"], ["shifted"])]
    if not conv_first:
        source = "shifted"
    nodes += [
        helper.make_node("Conv", [source, "w1", "b1"], ["c1"], strides=[4, 4], pads=list(pads), kernel_shape=[5, 5]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[7, 7], kernel_shape=[7, 7], pads=[1, 1, 1, 1]),
        helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array(target, np.int64))),
        helper.make_node("Reshape", ["c2", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc"], [names[1]]),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [batch, 3, 112, 112])],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [batch, 16])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return save(path, graph, opset)


def write_tiny_model(folder: Path) -> Path:
    """Write a model file next to its ONNX file: a network that separates photos and runs fast.

    Args:
        folder: an existing folder.
    Returns:
        The model file.
    """
    rng = np.random.default_rng(7)
    weights = {
        "w": rng.standard_normal((8, 3, 16, 16)) / 16,
        "m": rng.standard_normal((8 * 49, 16)) / 8,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["features"], strides=[16, 16]),
            helper.make_node("Flatten", ["features"], ["flat"]),
            helper.make_node("MatMul", ["flat", "m"], ["vector"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    save(folder / "tiny.onnx", graph)
    names = {"name": "tiny", "file": "tiny.onnx", "input_name": "image", "output_name": "vector"}
    return write_model_file(folder / "tiny.toml", **names)


def build_tiny_engine(model: Path, folder: Path) -> Path:
    """Build the CPU engine of a model file, with facemill, into a folder."""
    from runtime.engines.build import build_engine
    from runtime.modelspec import load_spec
    from runtime.modelstore import resolve_weights

    spec = load_spec(str(model))
    return build_engine(spec, resolve_weights(spec), backend="cpu", output=folder).engine.path


def save(path: Path, graph: onnx.GraphProto, opset: int = 17) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path
