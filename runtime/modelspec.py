"""Read model files: `models/*.toml` to a ModelSpec."""

from __future__ import annotations

import difflib
import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .assets import asset_dir
from .errors import ModelError
from .regular import TooLarge, read_regular
from .schema import Annotated, Rule, convert, parse_toml

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 20  # of a model file

TASKS = ("embed", "detect", "landmarks", "attributes")  # of networks
LANDMARK_VALUES = 15  # of a landmark network: x and y of five landmarks, and the doubt about each

COUNT = Rule("a whole number of at least 1", lambda count: count >= 1)
SHA256 = Rule("64 hexadecimal digits, in lower case", re.compile("[0-9a-f]{64}").fullmatch)
FILE_NAME = Rule("the name of an ONNX file, without a folder", lambda name: bool(name) and Path(name).name == name)
CHANNEL_ORDER = Rule('"rgb" or "bgr"', lambda order: order in ("rgb", "bgr"))
MEAN = Rule("three numbers, one per channel")
STD = Rule("three numbers above 0, one per channel", lambda std: min(std) > 0)
GENERATOR = Rule('a table: form = "128" or "512", seed = a whole number')
TASK = Rule(" or ".join(f'"{task}"' for task in TASKS), lambda task: task in TASKS)
COSINE = Rule("a cosine, from -1 to 1", lambda cosine: -1 <= cosine <= 1)

_TEMPLATE = """\
name = "{stem}"
task = "{task}"
title = "what it is, in one line"
file = "{file}"
input_name = ""                  # tensor names; empty: the only one
output_name = ""
size = {size}                       # pixels: side of the crop; of a detector, long side of its images
channel_order = "rgb"            # or "bgr"
mean = [127.5, 127.5, 127.5]     # the network sees (x - mean) / std, x in 0..255
std = [127.5, 127.5, 127.5]
dimension = {dimension}
licence = "..."
accuracy = "..."
accuracy_source = "..."
"""
_EXAMPLES = {  # by task: the option that takes such a model, and the example's size and dimension
    "embed": ("--model", 112, "512                  # length of the embedding"),
    "detect": ("--detector", 320, '15\ndecode = "scrfd"                 # or "yunet": mean 0, std 1, "bgr"'),
    "landmarks": ("--landmarks", 96, f"{LANDMARK_VALUES}                   # x and y of five landmarks, five doubts"),
}


@dataclass(frozen=True, slots=True)
class Generator:
    """The parameters of a generated MobileFaceNet with random weights.

    Attributes:
        form: width of the network and length of its embedding, see graphs/mobilefacenet.py.
        seed: random seed of the weights.
    """

    form: Literal["128", "512"]
    seed: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model file: everything needed to run a model and to trust it.

    Attributes:
        name: the name on the command line.
        title: one line for people.
        file: name of its ONNX file.
        input_name, output_name: tensor names in the ONNX file; empty for the only one.
        size: side of the square crop it takes, pixels.
        channel_order: "rgb" or "bgr".
        mean, std: per channel in that order, in grey levels: the network sees (x - mean) / std for x in 0..255.
        dimension: length of the embedding.
        licence: SPDX name or text; shown when the model is fetched and listed.
        accuracy, accuracy_source: the published accuracy and its source.
        url, sha256, size_bytes: address, checksum and size of the file; None if unknown.
        trained: False for random weights, whose embeddings cannot identify a person.
        generator: for a model whose weights are generated; None for a file.
        task: one of TASKS. For a detector `size` is the long side of the images that suit it best, and `dimension` the
            number of values per anchor. For a landmark network `size` is the side of a face's square, and `dimension`
            is LANDMARK_VALUES; faces/second_look.py explains both. A network for "attributes" takes crops, and answers
            with probabilities of the ages 0 to 100 and of "woman".
        decode: for a detector the name of its decoder in faces/detectors.py, for example "yunet"; empty for others.
        folder: the folder of the TOML file, which may contain the weights too.
        threshold, threshold_source: the minimum cosine of two photos of one person, for the weights with this `sha256`,
            and the data on which it was measured; None if unknown.
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
        """Whether the network detects faces."""
        return self.task == "detect"


def load_spec(name: str, *, task: str = "embed") -> ModelSpec:
    """Read the model file of a registered name or at a path.

    Args:
        name: a registered name, or the path of a TOML file.
        task: the task of the expected model, for the example in the message for a missing model file.
    Raises:
        ModelError: the name is unknown, or a key of the TOML file is missing or wrong.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        option, size, dimension = _EXAMPLES[task]
        raise ModelError(
            f"{name} is an ONNX file; expected: a model file that describes it. Write this to "
            f"{path.with_suffix('.toml')}, and use {option} {path.with_suffix('.toml')}:\n\n"
            + _TEMPLATE.format(stem=path.stem, file=path.name, task=task, size=size, dimension=dimension)
        )
    if path.suffix == ".toml":
        return _read(path)
    files = _registered()
    if name not in files:
        near = difflib.get_close_matches(name, files, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ModelError(f"unknown model {name!r}; {hint}expected: one of {', '.join(files)}, or a PATH.toml")
    return _read(files[name])


def list_specs(left_out: list[str] | None = None) -> list[ModelSpec]:
    """Read every registered model file, in the order of the names.

    A TOML file in the user's folder that is no model file is left out.

    Args:
        left_out: receives the reason for each of those files; None to log a warning instead.
    """
    specs = []
    for path in _registered().values():
        try:
            specs.append(_read(path))
        except ModelError as err:
            if path.parent == asset_dir("models"):
                raise
            if left_out is None:
                logger.warning("left out: %s", err.message)
            else:
                left_out.append(err.message)
    return specs


def _registered() -> dict[str, Path]:
    """Model files by name. Those in the user's folder override the included ones."""
    folders = [asset_dir("models"), *user_folder()]
    files = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return dict(sorted(files.items()))


def user_folder() -> list[Path]:
    """The folder in FACEMILL_MODELS, if set."""
    name = os.environ.get("FACEMILL_MODELS")
    if not name:
        return []
    if not Path(name).is_dir():
        raise ModelError(f"FACEMILL_MODELS names {name}, which is not a folder; expected: a folder of model files")
    return [Path(name)]


def _read(path: Path) -> ModelSpec:
    try:
        raw = parse_toml(read_regular(path, _MAX_BYTES).decode("utf-8"))
        if "detector" in raw:  # the key of model files before models had tasks
            raw = {**raw, "task": "detect", "decode": raw["detector"]}
            del raw["detector"]
        if "folder" in raw:
            raise ValueError("the key 'folder' is unknown")
        spec = convert(raw, ModelSpec)
        if spec.detects != bool(spec.decode):
            nothing = f'nothing, for the task "{spec.task}"'
            expected = 'the name of a decoder, for example "yunet"' if spec.detects else nothing
            raise ValueError(f"decode is {spec.decode!r}; expected: {expected}")
        if spec.task == "landmarks" and spec.dimension != LANDMARK_VALUES:
            raise ValueError(f'dimension is {spec.dimension}; expected: {LANDMARK_VALUES}, for the task "landmarks"')
    except TooLarge as err:
        raise ModelError(
            f"the model file {path} cannot be read: {err.strerror}. Name the TOML file that describes the model, not "
            f"its weights"
        ) from err
    except OSError as err:
        raise ModelError(f"the model file {path} cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ModelError(f"in the model file {path}, {err}") from err
    return replace(spec, folder=path.resolve().parent)
