"""Shared by the tests of attributes: a file with known ages and genders, and a network that reads them from colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import runtime
from runtime.attributes.answers import VALUES
from runtime.records import ATTRIBUTES, unread_attributes
from runtime.storage.dataset import edit_file
from runtime.storage.format import append_attributes, create_attributes
from tests.support.people_files import embed_folder

NAMES = ("age", "gender")


def drawn_attributes(count: int, seed: int = 0) -> NDArray[np.void]:
    """(count,) ATTRIBUTES; every seventh row is unread."""
    rng = np.random.default_rng(seed)
    attributes = np.zeros(count, ATTRIBUTES)
    attributes["age"] = rng.uniform(0, 90, count)
    attributes["age_low"] = np.maximum(attributes["age"] - rng.uniform(1, 12, count), 0)
    attributes["age_high"] = attributes["age"] + rng.uniform(1, 12, count)
    attributes["gender"] = rng.choice([b"man", b"woman"], count)
    attributes["gender_score"] = rng.uniform(0.5, 1, count)
    attributes[::7] = unread_attributes(len(attributes[::7]))
    return attributes


def add_columns(file: Path, attributes: NDArray[np.void]) -> None:
    """Put attributes into a finished file, as `facemill attributes` does."""
    from dataclasses import replace

    from runtime.storage.contract import EmbeddingContract

    with edit_file(file) as target:
        create_attributes(target, NAMES)
        append_attributes(target, attributes)
        metadata = target["metadata"].attrs
        contract = EmbeddingContract.from_json(str(metadata["contract"]))
        names: dict[str, Any] = {"attribute_names": ",".join(NAMES), "attribute_model": "m", "attribute_sha256": "ab"}
        metadata.update(replace(contract, **names).attributes())


def write_attribute_model(folder: Path, name: str = "facemill-attributes") -> Path:
    """Write a network and its model file: the age is 100 times the mean of red, a woman has more green than blue.

    Both as shares of 255 over the whole crop. Returns the model file.
    """
    ages = np.arange(VALUES - 1, dtype=np.float32)
    constants = {
        "pick": np.array([[1, 0, 0], [0, 1, -1]], np.float32).T,  # (3, 2): red; green minus blue
        "ages": ages[None] / 100,
        "sharp": np.float32(-4e4),
        "steep": np.float32(40),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "pick"], ["picked"]),
        helper.make_node("Gather", ["picked", "first"], ["red"], axis=1),
        helper.make_node("Sub", ["red", "ages"], ["gap"]),
        helper.make_node("Mul", ["gap", "gap"], ["square"]),
        helper.make_node("Mul", ["square", "sharp"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["shares"], axis=1),
        helper.make_node("Gather", ["picked", "second"], ["colour"], axis=1),
        helper.make_node("Mul", ["colour", "steep"], ["steeper"]),
        helper.make_node("Sigmoid", ["steeper"], ["woman"]),
        helper.make_node("Concat", ["shares", "woman"], ["attributes"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "attributes",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("attributes", TensorProto.FLOAT, ["N", VALUES])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / f"{name}.onnx"))
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\ntask = "attributes"\ntitle = "ages by colour"\nfile = "{name}.onnx"\ninput_name = "input"\n'
        f'output_name = "attributes"\nsize = 112\nchannel_order = "rgb"\nmean = [0.0, 0.0, 0.0]\n'
        f'std = [255.0, 255.0, 255.0]\ndimension = {VALUES}\nlicence = "none"\n'
        'accuracy = "none"\naccuracy_source = "none"\n'
    )
    return path


def embed_with_attributes(folder: Path, engine: Path) -> Path:
    """Embed the `photos` of a folder into its `people.h5`, and add ages and genders."""
    path = embed_folder(folder / "photos", folder / "people.h5", engine)
    with runtime.open(path) as gallery:
        rows = gallery.rows
    add_columns(path, drawn_attributes(rows))
    return path
