"""A detector unlike YuNet and SCRFD needs one decode function and one model file; tested end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.backends import open_runner
from runtime.engines.build import build_engine
from runtime.engines.engine import Engine
from runtime.errors import ModelError
from runtime.faces.align import TEMPLATE
from runtime.faces.detectors import DECODERS, Decoder
from runtime.faces.rules import FaceRules
from runtime.images.decode import Limits
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from runtime.pipeline.face_work import crop_stages
from runtime.records import Encoded
from tests.support import encoded_images as make
from tests.support.errors import raises
from tests.support.model_files import info
from tests.support.red_square_detector import picture

SIDE, CELL = 320, 16  # pixels: side of the pictures that the file expects, and of a cell of its only grid
BOX = 90.0  # pixels: side of every box
PLACES = (TEMPLATE - 55.5) / 112

MODEL_FILE = """
name = "one-head"
title = "one head of 16 values, the score last, for tests"
task = "detect"
decode = "corners"
file = "one-head.onnx"
input_name = ""
output_name = ""
size = 320
channel_order = "rgb"
mean = [0.0, 0.0, 0.0]
std = [255.0, 255.0, 255.0]
dimension = 16
licence = "Apache-2.0"
accuracy = "none"
accuracy_source = "none"
"""


def decode_corners(
    values: NDArray[np.float32], cells: NDArray[np.float32], strides: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Decode boxes (corners) and landmarks (points), in pixels from the middle of the cell."""
    middle = (cells + 0.5) * strides[:, None]
    boxes = values[:, :4] + np.tile(middle, 2)
    return boxes, values[:, 4:14].reshape(-1, 5, 2) + middle[:, None]


CORNERS = Decoder((CELL,), anchors=1, sure=0.8, decode=decode_corners, heads=(16,), score_at=15)


def save_one_head(folder: Path) -> Path:
    """A convolution and a Sigmoid on its last channel: no Reshape, one stride, one output (1, 16, H, W)."""
    weights = np.zeros((16, 3, CELL, CELL), np.float32)
    weights[15] = np.array([1, -1, -1], np.float32)[:, None, None] * 40 / CELL**2  # a cell of pure red comes to 20
    bias = np.zeros(16, np.float32)
    bias[:4] = np.array([-1, -1, 1, 1]) * BOX / 2
    bias[4:14] = (PLACES * BOX).ravel()
    bias[15] = -20
    constants = {"w": weights, "b": bias, "start": [0], "last": [15], "stop": [16], "axis": [1]}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["all"], strides=[CELL, CELL]),
        helper.make_node("Slice", ["all", "start", "last", "axis"], ["places"]),
        helper.make_node("Slice", ["all", "last", "stop", "axis"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Concat", ["places", "scores"], ["faces"], axis=1),
    ]
    cells = SIDE // CELL
    graph = helper.make_graph(
        nodes,
        "one-head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, [1, 16, cells, cells])],
        [
            numpy_helper.from_array(np.asarray(value, None if isinstance(value, np.ndarray) else np.int64), name)
            for name, value in constants.items()
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "one-head.onnx"
    )
    (folder / "one-head.toml").write_text(MODEL_FILE)
    return folder / "one-head.toml"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setitem(DECODERS, "corners", CORNERS)
    spec = load_spec(str(save_one_head(tmp_path)))
    return build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path).engine


def test_the_engine_of_the_new_family_is_built_and_proven(engine: Engine) -> None:
    facts = engine.info
    assert (facts.task, facts.decode, facts.dimension) == ("detect", "corners", 16)
    assert facts.parity.images == 4
    assert facts.parity.minimum > 0.99999


def test_faces_of_the_new_family_become_crops(engine: Engine) -> None:
    squares = [(100, 60, 90), (20, 200, 90)]
    files = tuple(make.encode(picture(320, 240, square, seed=i), "PNG") for i, square in enumerate(squares))
    with open_runner(engine, threads=1) as runner:
        crops_of = crop_stages(info(size=112), Limits(), FaceRules("detect", min_iod=0), runner)
        batch = crops_of(Encoded(np.arange(2), files=files))
    assert batch.rows.tolist() == [0, 1]
    assert batch.images.shape == (2, 112, 112, 3)
    assert batch.faces is not None
    for box, (x, y, side) in zip(batch.faces["box"], squares, strict=True):
        middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
        assert np.abs(middle - (x + side / 2, y + side / 2)).max() < side / 3


def test_a_model_file_without_a_decoder_gets_a_list_of_decoders(tmp_path: Path) -> None:
    spec = load_spec(str(save_one_head(tmp_path)))
    with raises(ModelError, "corners", "yunet", "scrfd"):
        build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path)
