"""A landmark network that is easy to check: it finds five dots of five pure colours.

Each landmark is the middle of the pixels of its colour: the weighted mean of the places of all pixels. So its answer is
exact, also in a square that is turned or off, which no trained network promises. A dot that is not in the square is as
likely everywhere, and its doubt is large.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.build import build_engine
from runtime.engines.engine import Engine
from runtime.faces.align import template
from runtime.faces.second_look import MARGIN
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from tests.support.model_files import write_model_file

SIDE = 96
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255))  # RGB, one for each landmark
_SHARPNESS = 40.0  # a pixel of the right colour weighs exp(20) times a black one
_SURE, _UNSURE = -3.0, 3.0  # logarithms of the expected errors

FACTS = {
    "name": "dots",
    "title": "finds dots of five colours, for tests",
    "file": "dots.onnx",
    "size": SIDE,
    "channel_order": "rgb",
    "mean": (127.5, 127.5, 127.5),
    "std": (127.5, 127.5, 127.5),
    "dimension": 15,
    "trained": True,
    "task": "landmarks",
}


def save_dots(folder: Path) -> Path:
    """Write the model and its model file; returns the path of the model file."""
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    colours = np.array(COLOURS, np.float32) / 127.5 - 1  # (5, 3)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    places = np.stack([x.ravel(), y.ravel()], axis=1)  # (SIDE * SIDE, 2)
    nodes = [
        # How alike each pixel is to each colour: 0 for the same colour, negative for others.
        helper.make_node("Reshape", ["input", constant("flat", np.array([0, 1, 3, -1], np.int64))], ["pixels"]),
        helper.make_node("Sub", ["pixels", constant("colours", colours[None, :, :, None])], ["off"]),
        helper.make_node("Mul", ["off", "off"], ["square"]),
        helper.make_node("ReduceSum", ["square", constant("axis", np.array([2], np.int64))], ["far"], keepdims=0),
        helper.make_node("Mul", ["far", constant("sharp", np.array(-_SHARPNESS, np.float32))], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),  # (N, 5, SIDE * SIDE)
        helper.make_node("MatMul", ["weights", constant("places", places)], ["points"]),  # (N, 5, 2)
        helper.make_node("Flatten", ["points"], ["coordinates"], axis=1),
        helper.make_node("ReduceMin", ["far"], ["nearest"], axes=[2], keepdims=0),  # (N, 5): 0 where the dot is seen
        helper.make_node("Mul", ["nearest", constant("slope", np.array(_UNSURE - _SURE, np.float32))], ["sloped"]),
        helper.make_node("Add", ["sloped", constant("sure", np.array(_SURE, np.float32))], ["doubts"]),
        helper.make_node("Concat", ["coordinates", "doubts"], ["landmarks"], axis=1),
    ]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    target = helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["N", 15])
    graph = helper.make_graph(nodes, "dots", [source], [target], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "dots.onnx")
    return write_model_file(folder / "dots.toml", **FACTS)


def save_drift(folder: Path, seed: int = 3) -> Path:
    """Write another model: its landmarks drift from the template by the mean colour of the square, by several pixels.

    So its answer depends on the pixels everywhere, and small differences of the pixels change it little.
    """
    weights = np.random.default_rng(seed).normal(0, 6, (3, 15)).astype(np.float32)
    weights[:, 10:] = 0
    bias = np.concatenate([template(SIDE, MARGIN).ravel(), np.full(5, _SURE)]).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["colour"]),
        helper.make_node("Gemm", ["colour", "weights", "bias"], ["landmarks"]),
    ]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    target = helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["N", 15])
    graph = helper.make_graph(nodes, "drift", [source], [target], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "drift.onnx")
    return write_model_file(folder / "drift.toml", **{**FACTS, "name": "drift", "file": "drift.onnx"})


def build_dots(folder: Path) -> Engine:
    """Write the model into a folder, and build its engine for the CPU there."""
    model = load_spec(str(save_dots(folder)))
    return build_engine(model, resolve_weights(model), backend="cpu", output=folder).engine


def draw_dots(height: int, width: int, landmarks: NDArray[np.floating], radius: float) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: a dark picture with a dot at each of five landmarks (5, 2), pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    for (across, down), colour in zip(landmarks, COLOURS, strict=True):
        image[np.hypot(x - across, y - down) <= radius] = colour
    return cv2.GaussianBlur(image, (0, 0), 0.6)
