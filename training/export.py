#!/usr/bin/env python3
"""A checkpoint's averaged weights as a model: python -m training.export runs/distil/last.pt models/mine.onnx

Writes the ONNX file, weights in FP16, and its model file beside it (models/mine.toml). Where there is a model file
already, its words are kept: title, licence, accuracy.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.errors import ParityError
from runtime.modelspec import load_spec

from .backbones import build_backbone
from .command import command, want_folder
from .state import read_checkpoint
from .verification import embed

SIZE = 112
OPSET = 17
LARGEST_GAP = 1e-4  # of one number of a unit vector, ONNX to PyTorch
SMALLEST_COSINE = 0.9999  # FP16 weights to FP32 ones

_MODEL_FILE = """\
name = {name}
title = {title}
file = {file}
input_name = "input"
output_name = "embedding"
size = {size}
channel_order = "rgb"
mean = [127.5, 127.5, 127.5]
std = [127.5, 127.5, 127.5]
dimension = {dimension}
licence = {licence}
accuracy = {accuracy}
accuracy_source = {accuracy_source}
sha256 = {sha256}
size_bytes = {size_bytes}
"""
_WORDS = ("title", "licence", "accuracy", "accuracy_source")


@dataclass(frozen=True)
class Exported:
    """What was written, and how equal it proved.

    Attributes:
        size_bytes: of the ONNX file.
        samples: pictures that the weights have learned from.
        gap: largest difference of a number of a unit vector, FP32 ONNX to PyTorch.
        cosine: smallest one, FP16 weights to FP32 weights.
    """

    size_bytes: int
    samples: int
    gap: float
    cosine: float

    def __str__(self) -> str:
        return f"{self.gap:.2g}; FP16 weights to FP32: smallest cosine {self.cosine:.6f}"


def export(checkpoint: Path, target: Path) -> Exported:
    """Write the averaged weights of a checkpoint as `target` and the model file beside it; or, if unequal, nothing.

    Args:
        checkpoint: of training/train.py or training/train_identities.py.
        target: the ONNX file to write; replaced if it exists.
    Raises:
        ValueError: the checkpoint is of no such network.
        ParityError: the ONNX file does not answer like the network.
    """
    model, samples = load_averaged(checkpoint)
    whole = to_onnx(model)
    content = halve_weights(whole).SerializeToString(deterministic=True)
    crops = synthetic_crops(SIZE)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        made, plain = Path(folder) / target.name, Path(folder) / "plain"
        made.write_bytes(content)
        plain.write_bytes(whole.SerializeToString())
        described = made.with_suffix(".toml")
        described.write_text(model_file(target, content, whole), encoding="utf-8")
        spec = load_spec(str(described))
        exact = reference_embeddings(spec, plain, crops)  # (N, D)
        halved = reference_embeddings(spec, made, crops)
        gap = float(np.abs(exact - embed(model, crops)).max())
        cosine = float((exact * halved).sum(axis=1).min())
        if not (gap <= LARGEST_GAP and cosine >= SMALLEST_COSINE):
            raise ParityError(
                f"the ONNX file of {checkpoint} is not the network: largest difference {gap:.2g}, wanted at most "
                f"{LARGEST_GAP}; smallest cosine of FP16 weights {cosine:.6f}, wanted at least {SMALLEST_COSINE}"
            )
        made.replace(target)
        described.replace(target.with_suffix(".toml"))
    return Exported(len(content), samples, gap, cosine)


def load_averaged(checkpoint: Path) -> tuple[nn.Module, int]:
    """The averaged network of a checkpoint, and the samples that it has learned from. Nothing in it is executed.

    Raises:
        ValueError: it is none of such a network.
    """
    content = read_checkpoint(checkpoint)
    if "backbone" not in content["config"]:
        raise ValueError(
            f"{checkpoint} is of a detector; wanted: one of training.train, or python -m training.export_detector"
        )
    model = build_backbone(**content["config"]["backbone"])
    model.load_state_dict(content["ema"])
    return model.eval(), int(content["samples"])


def to_onnx(model: nn.Module) -> onnx.ModelProto:
    """The network as FP32 ONNX: `input` (N, 3, 112, 112) to `embedding` (N, D); batch norms within convolutions."""
    return traced(model, (1, 3, SIZE, SIZE), ["embedding"], {"input": {0: "N"}, "embedding": {0: "N"}})


def traced(
    model: nn.Module, shape: Sequence[int], outputs: Sequence[str], free: Mapping[str, Mapping[int, str]]
) -> onnx.ModelProto:
    """A network in evaluation mode as FP32 ONNX; batch norms within convolutions.

    Args:
        model: of one input, which is named `input`.
        shape: of that.
        outputs: their names.
        free: of inputs and outputs, by name: dimensions that the file leaves open, and what they are called.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the old one; it needs no further package
        torch.onnx.export(
            model,
            (torch.zeros(*shape),),
            file,
            input_names=["input"],
            output_names=list(outputs),
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(file.getvalue())


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are kept in FP16, each with a Cast to FP32; biases, which are few, stay.

    Whoever reads it folds the Casts and has an FP32 network again, of half the size on disk.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    casts = []
    for tensor in halved.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}.half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    onnx.checker.check_model(halved)
    return halved


def model_file(target: Path, content: bytes, graph: onnx.ModelProto) -> str:
    """The TOML of an ONNX file: its facts, and the words of the model file that it replaces."""
    dimension = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return fill_in(_MODEL_FILE, target, content, size=SIZE, dimension=dimension)


def fill_in(template: str, target: Path, content: bytes, **facts: object) -> str:
    """A model file from its template: facts, and the words of the model file that it replaces.

    Args:
        template: TOML with `{key}` for each value.
        target: the ONNX file that will hold `content`.
        content: its bytes.
        facts: of this network.
    """
    beside = target.with_suffix(".toml")
    words = dict.fromkeys(_WORDS, "not stated")
    if beside.exists():
        before = load_spec(str(beside))
        words = {key: getattr(before, key) for key in _WORDS}
    of_file = {
        "name": target.stem,
        "file": target.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    values = {**facts, **of_file, **words}
    return template.format(**{key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})


def run_export(words: str | None, export: Callable[[Path, Path], Any]) -> None:
    """The command of a module that exports.

    Args:
        words: what it does, for --help.
        export: checkpoint and target to what was written: `size_bytes`, `samples`, and the proof as its text.
    """
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="last.pt of a run")
    parser.add_argument("target", type=Path, help="the ONNX file to write")
    chosen = parser.parse_args()

    @command
    def main() -> None:
        done = export(chosen.checkpoint, want_folder(chosen.target))
        print(
            f"{chosen.target} and its model file: {done.size_bytes:,} bytes, after {done.samples:,} samples\n"
            f"ONNX to PyTorch: largest difference {done}"
        )

    main()


if __name__ == "__main__":
    run_export(__doc__, export)
