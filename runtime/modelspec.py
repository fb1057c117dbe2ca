"""Model files: `models/*.toml` to a ModelSpec."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .assets import asset_dir
from .errors import ModelError

TASKS = ("embed", "detect")  # what networks do; landmarks and attributes may follow

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
        generator: arguments of the architecture generator for a model that is generated; empty otherwise.
        task: one of TASKS. A detector's `size` is the long side of the pictures that it is best at, its `dimension` the
            values of an anchor.
        decode: for a detector the name of its decoder in faces/detectors.py, such as "yunet"; empty for others.
        folder: the folder that the TOML was read from; weights may lie beside it.
        threshold, threshold_source: the cosine from which two photographs are said to show one person, for the weights
            that `sha256` names, and what it was measured on; None where unknown.
    """

    name: str
    title: str
    file: str
    input_name: str
    output_name: str
    size: int
    channel_order: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dimension: int
    licence: str
    accuracy: str
    accuracy_source: str
    url: str | None
    sha256: str | None
    size_bytes: int | None
    trained: bool
    generator: tuple[tuple[str, int | str], ...]
    task: str
    decode: str
    folder: Path
    threshold: float | None = None
    threshold_source: str | None = None

    @property
    def detects(self) -> bool:
        """Whether the network finds faces."""
        return self.task == "detect"


def load_spec(name: str, *, detects: bool = False) -> ModelSpec:
    """The model of a registered name, or of the TOML file at a path.

    Args:
        name: of either.
        detects: a face detector is wanted: of one whose model file is missing, a detector's is shown.
    Raises:
        ModelError: there is none, or the TOML does not state what it must; the message says which key.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        option, task, size, dimension = _DETECT if detects else _EMBED
        raise ModelError(
            f"{name} is an ONNX file; wanted: a model file that says how to use it. Write this beside it, as "
            f"{path.with_suffix('.toml')}, and give {option} {path.with_suffix('.toml')}:\n\n"
            + _TEMPLATE.format(stem=path.stem, file=path.name, task=task, size=size, dimension=dimension)
        )
    if path.suffix == ".toml":
        return _read(path)
    files = _registered()
    if name not in files:
        near = difflib.get_close_matches(name, files, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ModelError(f"no model is named {name!r}; {hint}wanted: one of {', '.join(files)}, or a PATH.toml")
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
        raise ModelError(f"FACEMILL_MODELS names {name}, which is no folder; wanted: a folder of model files")
    return [Path(name)]


def _read(path: Path) -> ModelSpec:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ModelError(f"the model file {path} cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ModelError(f"the model file {path} is not TOML: {err}") from err
    if "detector" in raw:  # the key of both, before models had tasks
        raw = {**raw, "task": "detect", "decode": raw["detector"]}
        del raw["detector"]
    unknown = raw.keys() - _KEYS.keys()
    if unknown:
        raise ModelError(f"the model file {path} has the unknown key {min(unknown)!r}; wanted: {', '.join(_KEYS)}")
    values = {key: rule(path, key, raw) for key, rule in _KEYS.items()}
    return ModelSpec(**values, folder=path.resolve().parent)


def _refuse(path: Path, key: str, raw: Mapping[str, Any], wanted: str) -> ModelError:
    seen = f"is {raw[key]!r}" if key in raw else "is missing"
    return ModelError(f"in the model file {path}, {key} {seen}; wanted: {wanted}")


def _text(path: Path, key: str, raw: Mapping[str, Any]) -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise _refuse(path, key, raw, "text")
    return value


def _file_name(path: Path, key: str, raw: Mapping[str, Any]) -> str:
    value = _text(path, key, raw)
    if not value or Path(value).name != value:
        raise _refuse(path, key, raw, "the name of an ONNX file, without a folder")
    return value


def _sha256(path: Path, key: str, raw: Mapping[str, Any]) -> str:
    value = _text(path, key, raw)
    if len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise _refuse(path, key, raw, "64 hexadecimal digits, in small letters")
    return value


def _count(path: Path, key: str, raw: Mapping[str, Any]) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refuse(path, key, raw, "a whole number from 1")
    return value


def _one_of(*values: str, default: str | None = None) -> Callable[..., Any]:
    def rule(path: Path, key: str, raw: Mapping[str, Any]) -> str:
        value = raw.get(key, default)
        if value is None or value not in (*values, default):
            raise _refuse(path, key, raw, " or ".join(f'"{name}"' for name in values))
        return str(value)

    return rule


def _triple(path: Path, key: str, raw: Mapping[str, Any]) -> tuple[float, ...]:
    value = raw.get(key)
    numbers = isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) for v in value)
    if not numbers or (key == "std" and min(value) <= 0):  # type: ignore[arg-type]
        raise _refuse(path, key, raw, "three numbers, one a channel" + (", above 0" if key == "std" else ""))
    return tuple(map(float, value))  # type: ignore[arg-type]


def _truth(path: Path, key: str, raw: Mapping[str, Any]) -> bool:
    value = raw.get(key, True)
    if not isinstance(value, bool):
        raise _refuse(path, key, raw, "true or false")
    return value


def _cosine(path: Path, key: str, raw: Mapping[str, Any]) -> float:
    if type(raw[key]) not in (int, float) or not -1 <= raw[key] <= 1:
        raise _refuse(path, key, raw, "a cosine, from -1 to 1")
    return float(raw[key])


def _arguments(path: Path, key: str, raw: Mapping[str, Any]) -> tuple[tuple[str, int | str], ...]:
    value = raw.get(key, {})
    if not isinstance(value, dict):
        raise _refuse(path, key, raw, 'a table: form = "128" or "512", seed = a whole number')
    return tuple(sorted(value.items()))


def _decoder(path: Path, key: str, raw: Mapping[str, Any]) -> str:
    detects = raw.get("task") == "detect"
    value = raw.get(key, "")
    if not isinstance(value, str) or bool(value) != detects:
        raise _refuse(path, key, raw, 'the name of a decoder, such as "yunet"' if detects else "no decoder to embed")
    return value


def _optional(rule: Callable[..., Any]) -> Callable[..., Any]:
    return lambda path, key, raw: rule(path, key, raw) if key in raw else None


_KEYS: dict[str, Callable[..., Any]] = {
    "name": _text,
    "title": _text,
    "file": _file_name,
    "input_name": _text,
    "output_name": _text,
    "size": _count,
    "channel_order": _one_of("rgb", "bgr"),
    "mean": _triple,
    "std": _triple,
    "dimension": _count,
    "licence": _text,
    "accuracy": _text,
    "accuracy_source": _text,
    "url": _optional(_text),
    "sha256": _optional(_sha256),
    "size_bytes": _optional(_count),
    "trained": _truth,
    "generator": _arguments,
    "task": _one_of(*TASKS, default="embed"),
    "decode": _decoder,
    "threshold": _optional(_cosine),
    "threshold_source": _optional(_text),
}
