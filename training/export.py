#!/usr/bin/env python3
"""Export a checkpoint's averaged weights as a model: python -m training.export runs/distil/last.pt models/mine.onnx

Writes the ONNX file, with weights in FP16, and its model file in the same folder (models/mine.toml). If the model file
exists, its title, licence and accuracy are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.errors import ParityError
from runtime.modelspec import ModelSpec, load_spec

from .backbones import build_backbone
from .command import command, require_folder
from .state import read_checkpoint
from .verification import embed

SIZE = 112
OPSET = 17
LARGEST_GAP = 1e-4  # per number of a unit vector, ONNX to PyTorch
SMALLEST_COSINE = 0.9999  # FP16 weights to FP32 ones

# Of every network but the detectors, which take grey levels.
NORMALISED: Mapping[str, object] = {"channel_order": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3}
_TEXT_KEYS = ("title", "licence", "accuracy", "accuracy_source")


@dataclass(frozen=True)
class ExportedModel:
    """An exported model, and how close it is to the network.

    Attributes:
        size_bytes: size of the ONNX file.
        samples: images that the weights have learned from.
        gap: largest difference of a number of a unit vector, FP32 ONNX to PyTorch.
        cosine: smallest cosine, FP16 weights to FP32 weights.
    """

    size_bytes: int
    samples: int
    gap: float
    cosine: float

    def __str__(self) -> str:
        return f"{self.gap:.2g}; FP16 weights to FP32: smallest cosine {self.cosine:.6f}"


def export(checkpoint: Path, target: Path) -> ExportedModel:
    """Write the averaged weights of a checkpoint to `target`, and the model file to the same folder.

    Args:
        checkpoint: checkpoint of training/train.py or training/train_identities.py.
        target: the ONNX file to write; replaced if it exists.
    Raises:
        ValueError: the checkpoint is of another kind of network.
        ParityError: the ONNX file does not answer like the network; nothing is written.
    """
    model, samples = load_averaged(checkpoint)
    full = to_onnx(model)
    crops = synthetic_crops(SIZE)
    dimension = full.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    names = {"input_name": "input", "output_name": "embedding"}
    with _new_files(target, full, {**names, "size": SIZE, **NORMALISED, "dimension": dimension}) as new:
        full_rows = reference_embeddings(new.spec, new.full, crops)  # (N, D)
        halved = reference_embeddings(new.spec, new.halved, crops)
        gap = float(np.abs(full_rows - embed(model, crops)).max())
        cosine = float((full_rows * halved).sum(axis=1).min())
        if not (gap <= LARGEST_GAP and cosine >= SMALLEST_COSINE):
            raise ParityError(
                f"the ONNX file of {checkpoint} differs from the network: largest difference {gap:.2g}, expected at "
                f"most {LARGEST_GAP}; smallest cosine of FP16 weights {cosine:.6f}, expected at least {SMALLEST_COSINE}"
            )
    return ExportedModel(new.size_bytes, samples, gap, cosine)


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported network that does not embed, and how close it is to the network of the checkpoint.

    Attributes:
        size_bytes: size of the ONNX file.
        samples: images that the weights have learned from.
        gap: largest difference of a number, FP32 ONNX to PyTorch.
        half_gap: largest difference of a number, FP16 weights to FP32 weights.
    """

    size_bytes: int
    samples: int
    gap: float
    half_gap: float

    def __str__(self) -> str:
        return f"{self.gap:.2g}; FP16 weights to FP32: {self.half_gap:.2g}"


def write_network(
    checkpoint: Path,
    target: Path,
    full: onnx.ModelProto,
    facts: Mapping[str, object],
    *,
    samples: int,
    answer: Callable[[ModelSpec, Path], NDArray[np.floating]],
    expected: NDArray[np.floating],
    largest_gaps: tuple[float, float],
) -> ExportedNetwork:
    """Write a network with its weights in FP16, and its model file, if both files answer like the network.

    Args:
        checkpoint: where the network comes from, for the message.
        target: the ONNX file to write; replaced if it exists.
        full: the network as FP32 ONNX.
        facts: values for the model file, see `fill_in`.
        samples: images that the weights have learned from.
        answer: what an ONNX file answers, by the model file.
        expected: what the network answers to the same images.
        largest_gaps: largest differences of a number: FP32 ONNX to `expected`, and FP16 weights to FP32 weights.
    Raises:
        ParityError: a difference is larger; nothing is written.
    """
    with _new_files(target, full, facts) as new:
        full_answers = answer(new.spec, new.full)
        gap = float(np.abs(full_answers - expected).max())
        half_gap = float(np.abs(full_answers - answer(new.spec, new.halved)).max())
        if not (gap <= largest_gaps[0] and half_gap <= largest_gaps[1]):
            raise ParityError(
                f"the ONNX file of {checkpoint} differs from the network: largest difference {gap:.2g}, expected at "
                f"most {largest_gaps[0]}; of FP16 weights {half_gap:.2g}, expected at most {largest_gaps[1]}"
            )
    return ExportedNetwork(new.size_bytes, samples, gap, half_gap)


@dataclass(frozen=True)
class _NewFiles:
    """A network as two ONNX files, with FP32 and with FP16 weights, and the model file of both."""

    spec: ModelSpec
    full: Path
    halved: Path
    size_bytes: int


@contextmanager
def _new_files(target: Path, full: onnx.ModelProto, facts: Mapping[str, object]) -> Iterator[_NewFiles]:
    """Write a network in a temporary folder. When the block succeeds, the FP16 file and its model file are in place."""
    content = halve_weights(full).SerializeToString(deterministic=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        halved_file, full_file = Path(folder) / target.name, Path(folder) / "plain"
        halved_file.write_bytes(content)
        full_file.write_bytes(full.SerializeToString())
        toml_file = halved_file.with_suffix(".toml")
        toml_file.write_text(fill_in(target, content, facts), encoding="utf-8")
        yield _NewFiles(load_spec(str(toml_file)), full_file, halved_file, len(content))
        halved_file.replace(target)
        toml_file.replace(target.with_suffix(".toml"))


def load_averaged(checkpoint: Path) -> tuple[nn.Module, int]:
    """Load the averaged network of a checkpoint, and the number of samples it has learned from. Executes no code in it.

    Raises:
        ValueError: the checkpoint is of another network.
    """
    content = read_checkpoint(checkpoint)
    if "backbone" not in content["config"]:
        raise ValueError(
            f"{checkpoint} is of another network; expected: a checkpoint of training.train. For others use "
            "python -m training.export_detector or training.export_attributes"
        )
    model = build_backbone(**content["config"]["backbone"])
    model.load_state_dict(content["ema"])
    return model.eval(), int(content["samples"])


def to_onnx(model: nn.Module) -> onnx.ModelProto:
    """Convert to FP32 ONNX: `input` (N, 3, 112, 112) to `embedding` (N, D); batch norms folded into convolutions."""
    return trace_to_onnx(model, (1, 3, SIZE, SIZE), ["embedding"], {"input": {0: "N"}, "embedding": {0: "N"}})


def trace_to_onnx(
    model: nn.Module, shape: Sequence[int], outputs: Sequence[str], free: Mapping[str, Mapping[int, str]]
) -> onnx.ModelProto:
    """Convert a network in evaluation mode to FP32 ONNX, with batch norms folded into convolutions.

    Args:
        model: network with one input, which is named `input`.
        shape: shape of the input.
        outputs: names of the outputs.
        free: dimensions that the file leaves open and their names, by input or output.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that this exporter is old; the new one needs another package
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
    """Copy a model with its weights in FP16, each with a Cast to FP32; biases, which are few, stay in FP32.

    A reader folds the Casts and gets an FP32 network from a file of half the size.
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


def fill_in(target: Path, content: bytes, facts: Mapping[str, object]) -> str:
    """The text of a model file (TOML), with the title, licence and accuracy of the model file that it replaces.

    Args:
        target: path of the ONNX file.
        content: bytes of the ONNX file.
        facts: the other keys of `runtime.modelspec.ModelSpec`.
    """
    old_model_file = target.with_suffix(".toml")
    texts = dict.fromkeys(_TEXT_KEYS, "not stated")
    if old_model_file.exists():
        before = load_spec(str(old_model_file))
        texts = {key: getattr(before, key) for key in _TEXT_KEYS}
    title = texts.pop("title")
    file_facts = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    values = {"name": target.stem, "title": title, "file": target.name, **facts, **texts, **file_facts}
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def run_export(description: str | None, export: Callable[[Path, Path], Any]) -> None:
    """Run the command of an export module.

    Args:
        description: text for --help.
        export: takes checkpoint and target; returns an object with `size_bytes` and `samples`, whose text is the
            comparison.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint: last.pt of a run")
    parser.add_argument("target", type=Path, help="ONNX file to write")
    chosen = parser.parse_args()

    @command
    def main() -> None:
        result = export(chosen.checkpoint, require_folder(chosen.target))
        print(
            f"{chosen.target} and its model file: {result.size_bytes:,} bytes, after {result.samples:,} samples\n"
            f"ONNX to PyTorch: largest difference {result}"
        )

    main()


if __name__ == "__main__":
    run_export(__doc__, export)
