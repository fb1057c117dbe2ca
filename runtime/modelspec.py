"""Model files: `models/*.toml` to a ModelSpec."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .assets import asset_dir
from .errors import ModelError
from .schema import Annotated, Rule, convert, parse_toml

TASKS = ("embed", "detect")  # what networks do; landmarks and attributes may follow

COUNT = Rule("a whole number from 1", lambda count: count >= 1)
SHA256 = Rule("64 hexadecimal digits, in small letters", re.compile("[0-9a-f]{64}").fullmatch)
FILE_NAME = Rule("the name of an ONNX file, without a folder", lambda name: bool(name) and Path(name).name == name)
CHANNEL_ORDER = Rule('"rgb" or "bgr"', lambda order: order in ("rgb", "bgr"))
MEAN = Rule("three numbers, one a channel")
STD = Rule("three numbers, one a channel, above 0", lambda std: min(std) > 0)
GENERATOR = Rule('a table: form = "128" or "512", seed = a whole number')
TASK = Rule('"embed" or "detect"', lambda task: task in TASKS)
COSINE = Rule("a cosine, from -1 to 1", lambda cosine: -1 <= cosine <= 1)

_TEMPLATE = """\
name = "{stem}"
task = "{task}"
title = "what it is, in one line"
file = "{file}"
input_name = ""                  # tensor names; empty: the only one
output_name = ""
size = {size}                       # pixels: side of the crop; of a detector, long side of its pictures
channel_order = "rgb"            # or "bgr"
mean = [127.5, 127.5, 127.5]     # the network sees (x - mean) / std, x in 0..255
std = [127.5, 127.5, 127.5]
dimension = {dimension}
licence = "..."
accuracy = "..."
accuracy_source = "..."
"""
_EMBED = ("--model", "embed", 112, "512                  # length of the embedding")
_DETECT = ("--detector", "detect", 320, '15\ndecode = "scrfd"                 # or "yunet": mean 0, std 1, "bgr"')


@dataclass(frozen=True, slots=True)
class Generator:
    """What the generator of random MobileFaceNets is given.

    Attributes:
        form: width of the network and length of its embedding, see graphs/mobilefacenet.py.
        seed: of the weights.
    """

    form: Literal["128", "512"]
    seed: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All that is to be known of a model to run it and to trust it.

    Attributes:
        name: the name on the command line.
        title: one line for people.
        file: name of its ONNX file.
        input_name, output_name: tensor names in the ONNX file; empty for the only one.
        size: side of the square crop it takes, pixels.
        channel_order: "rgb" or "bgr".
        mean, std: per channel in that order, in grey levels: the network sees (x - mean) / std for x in 0..255.
        dimension: length of the embedding.
        licence: SPDX name or words; shown when fetched and listed.
        accuracy, accuracy_source: the published figure and where it was published.
        url, sha256, size_bytes: where the file is to be had and how to know it; None where unknown.
        trained: False for random weights: embeddings identify nobody.
        generator: for a model whose weights are generated; None for a file.
        task: one of TASKS. A detector's `size` is the long side of the pictures that it is best at, its `dimension` the
            values of an anchor.
        decode: for a detector the name of its decoder in faces/detectors.py, such as "yunet"; empty for others.
        folder: the folder that the TOML was read from; weights may lie beside it.
        threshold, threshold_source: the cosine from which two photos are said to show one person, for the weights
            that `sha256` names, and what it was measured on; None where unknown.
    """

    name: str
    title: str
    file: Annotated[str, FILE_NAME]
    input_name: str
    output_name: str
    size: Annotated[int, COUNT]
    channel_order: Annotated[str, CHANNEL_ORDER]
    mean: Annotated[tuple[float, float, float], MEAN]
    std: Annotated[tuple[float, float, float], STD]
    dimension: Annotated[int, COUNT]
    licence: str
    accuracy: str
    accuracy_source: str
    url: str | None = None
    sha256: Annotated[str, SHA256] | None = None
    size_bytes: Annotated[int, COUNT] | None = None
    trained: bool = True
    generator: Annotated[Generator, GENERATOR] | None = None
    task: Annotated[str, TASK] = "embed"
    decode: str = ""
    threshold: Annotated[float, COSINE] | None = None
    threshold_source: str | None = None
    folder: Path = Path()

    @property
    def detects(self) -> bool:
        """Whether the network finds faces."""
        return self.task == "detect"


def load_spec(name: str, *, detects: bool = False) -> ModelSpec:
    """The model of a registered name, or of the TOML file at a path.

    Args:
        name: of either.
        detects: a face detector is expected: of one whose model file is missing, a detector's is shown.
    Raises:
        ModelError: there is none, or the TOML does not state what it must; the message says which key.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        option, task, size, dimension = _DETECT if detects else _EMBED
        raise ModelError(
            f"{name} is an ONNX file; expected: a model file that says how to use it. Write this beside it, as "
            f"{path.with_suffix('.toml')}, and give {option} {path.with_suffix('.toml')}:\n\n"
            + _TEMPLATE.format(stem=path.stem, file=path.name, task=task, size=size, dimension=dimension)
        )
    if path.suffix == ".toml":
        return _read(path)
    files = _registered()
    if name not in files:
        near = difflib.get_close_matches(name, files, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ModelError(f"no model is named {name!r}; {hint}expected: one of {', '.join(files)}, or a PATH.toml")
    return _read(files[name])


def list_specs() -> list[ModelSpec]:
    """Every registered model, by name."""
    return [_read(path) for path in _registered().values()]


def _registered() -> dict[str, Path]:
    """Model files by name; the user's folder wins over what is shipped."""
    folders = [asset_dir("models"), *own_folder()]
    found = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def own_folder() -> list[Path]:
    """The folder that FACEMILL_MODELS names, if it does."""
    name = os.environ.get("FACEMILL_MODELS")
    if not name:
        return []
    if not Path(name).is_dir():
        raise ModelError(f"FACEMILL_MODELS names {name}, which is no folder; expected: a folder of model files")
    return [Path(name)]


def _read(path: Path) -> ModelSpec:
    try:
        raw = parse_toml(path.read_text(encoding="utf-8"))
        if "detector" in raw:  # the key of model files before models had tasks
            raw = {**raw, "task": "detect", "decode": raw["detector"]}
            del raw["detector"]
        if "folder" in raw:
            raise ValueError("there is the unknown key 'folder'")
        spec = convert(raw, ModelSpec)
        if spec.detects != bool(spec.decode):
            what = 'the name of a decoder, such as "yunet"' if spec.detects else 'nothing, for the task "embed"'
            raise ValueError(f"decode is {spec.decode!r}; expected: {what}")
    except OSError as err:
        raise ModelError(f"the model file {path} cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ModelError(f"in the model file {path}, {err}") from err
    return replace(spec, folder=path.resolve().parent)
