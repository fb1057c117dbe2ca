"""A face detector that is easy to check: it detects every red square as a face.

It is built like YuNet's file: a fixed size of 640x640, three strides, and heads of a convolution, a Transpose, a
Reshape and, for scores, a Sigmoid. Only the cells of stride 32 answer. The box of a face is three cells wide, and its
landmarks are placed as in ArcFace's template.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.build import build_engine
from runtime.engines.engine import Engine
from runtime.faces.align import TEMPLATE
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from tests.support.model_files import write_model_file

SIDE = 640
CELL = 32
BOX_CELLS = 3.0
# Landmarks relative to the middle of the box, in units of its side.
LANDMARKS = (TEMPLATE - 55.5) / 112

FACTS = {
    "name": "red-squares",
    "title": "detects red squares as faces, for tests",
    "file": "red-squares.onnx",
    "size": 224,
    "channel_order": "bgr",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "dimension": 15,
    "trained": True,
    "task": "detect",
    "decode": "yunet",
}


def save_red_squares(folder: Path) -> Path:
    """Write the model and its model file; returns the path of the model file."""
    nodes, outputs, constants = [], [], []

    def constant(name: str, value: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    # YuNet measures from the corner of a cell; its middle is half a cell away.
    landmarks = (LANDMARKS * BOX_CELLS + 0.5).ravel()
    box = np.array([0.5, 0.5, np.log(BOX_CELLS), np.log(BOX_CELLS)])
    for kind, values in (("cls", np.zeros(1)), ("obj", np.zeros(1)), ("bbox", box), ("kps", landmarks)):
        for stride in (8, 16, 32):
            weights = np.zeros((len(values), 3, stride, stride), np.float32)
            bias = values.astype(np.float32)
            if kind in ("cls", "obj"):
                bias = np.full(1, -20, np.float32)
                if stride == CELL:  # blue, green, red: a cell of pure red scores 20
                    weights[0] = (np.array([-1, -1, 1]) * 40 / 255 / stride**2)[:, None, None]
            name = f"{kind}_{stride}"
            inputs = ["input", constant(f"{name}.w", weights), constant(f"{name}.b", bias)]
            nodes.append(helper.make_node("Conv", inputs, [f"{name}.conv"], strides=[stride, stride]))
            nodes.append(helper.make_node("Transpose", [f"{name}.conv"], [f"{name}.t"], perm=[0, 2, 3, 1]))
            count = (SIDE // stride) ** 2
            shape = constant(f"{name}.shape", np.array([1, count, len(values)], np.int64))
            scored = kind in ("cls", "obj")
            nodes.append(helper.make_node("Reshape", [f"{name}.t", shape], [f"{name}.r" if scored else name]))
            if scored:
                nodes.append(helper.make_node("Sigmoid", [f"{name}.r"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, len(values)]))
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "red-squares", [source], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.save(model, folder / "red-squares.onnx")
    return write_model_file(folder / "red-squares.toml", **FACTS)


def picture(height: int, width: int, *squares: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of dull noise with red squares: left, top, side."""
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 90, (height, width, 3), dtype=np.uint8)
    for left, top, side in squares:
        image[top : top + side, left : left + side] = (255, 0, 0)
        # Eyes, nose and mouth, so that crops of different squares differ and have edges for the sharpness.
        marks = rng.integers(0, 2, (4, 4)).astype(bool)
        size = side // 4
        for y, x in np.argwhere(marks):
            image[top + y * size : top + y * size + size // 3, left + x * size : left + x * size + size // 3, 2] = 60
    return image


def build_red_squares(folder: Path) -> Engine:
    """Write the model into a folder, and build its engine for the CPU there."""
    model = load_spec(str(save_red_squares(folder)))
    return build_engine(model, resolve_weights(model), backend="cpu", output=folder).engine
