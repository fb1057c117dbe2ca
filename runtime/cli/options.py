"""Options that several commands share. A group of options reaches the command as one frozen object."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .. import defaults

if TYPE_CHECKING:
    from ..faces.rules import FaceRules

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH = click.Path(path_type=Path)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def exclusive(*names: str, why: str = "") -> Decorator:
    """Refuse a command line that names more than one of some options.

    Args:
        names: as the command line spells them.
        why: the reason, for the message.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def checked(*args: Any, **values: Any) -> Any:
            named = [name for name in names if is_given(name)]
            if len(named) > 1:
                reason = f": {why}" if why else ""
                raise click.UsageError(f"{' and '.join(named)} exclude each other{reason}")
            return command(*args, **values)

        return checked

    return decorate


def excludes(name: str, *others: str, why: str = "") -> Decorator:
    """Refuse a command line that names an option together with one of several others."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        return apply([exclusive(name, other, why=why) for other in others], command)

    return decorate


def is_given(name: str) -> bool:
    """Whether the command line names an option of the command that runs."""
    context = click.get_current_context()
    option = next(option for option in context.command.params if name in (*option.opts, *option.secondary_opts))
    return context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT


def grouped(name: str, kind: type, *decorators: Decorator) -> Decorator:
    """Add options to a command, which gets their values as one object.

    Args:
        name: of the command's parameter.
        kind: a dataclass, whose fields are named as the options are.
        decorators: the options.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def gathered(*args: Any, **values: Any) -> Any:
            given = {field.name: values.pop(field.name) for field in dataclasses.fields(kind)}
            return command(*args, **{name: kind(**given)}, **values)

        return apply(decorators, gathered)

    return decorate


def apply(decorators: Sequence[Decorator], command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with several decorators, the first one outermost."""
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def cosine(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A score: -1 to 1, and so not NaN."""
    if value is not None and not -1 <= value <= 1:
        raise click.BadParameter(f"{value} is not a number from -1 to 1", ctx, param)
    return value


def device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """auto, cpu, gpu or the number of a GPU."""
    if value not in ("auto", "cpu", "gpu") and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is none of auto, cpu, gpu and the number of a GPU", ctx, param)
    return value


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds of `90s`, `30m`, `2h`, `1h30m` or `1d`."""
    if value is None:
        return None
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", value):
        raise click.BadParameter(f"{value!r} is no duration; expected: 90s, 30m, 2h, 1h30m or 1d", ctx, param)
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", value))


def auto_or_count(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """`auto` (None) or a whole number from 1."""
    if value == "auto":
        return None
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'auto' nor a whole number from 1", ctx, param)


def device_option(help_text: str) -> Decorator:
    """`--device auto|cpu|gpu|N`."""
    return click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|gpu|N", callback=device, help=help_text
    )


def force_option(help_text: str) -> Decorator:
    """`--force`."""
    return click.option("--force", is_flag=True, help=help_text)


file_argument = click.argument("file", type=PATH)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON on stdout.")
page_option = click.option("--html", "page", type=PATH, help="Also write an HTML page with the photos.")
log_option = click.option("--log", "log_file", type=PATH, help="Also append the log to this file.")
file_engine_option = click.option(
    "--engine", type=PATH, help="Engine file to use if the engine that FILE names is gone."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """A group of options."""

    def values(self) -> dict[str, Any]:
        """The options by name, as the library's functions take them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, slots=True)
class EngineOptions(Options):
    """Which engine embeds: an engine file, or one of a model, built when needed.

    Attributes:
        engine: an engine file.
        model: a registered name or a model file; None for the default.
        backend: "auto", "cpu", "cuda" or "tensorrt".
    """

    engine: Path | None
    model: str | None
    backend: str


backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="Backend that runs the model. auto takes the fastest on this machine; a named backend never falls back.",
)
model_option = click.option(
    "--model",
    help="Registered model or model file (PATH.toml); its engine is built when needed.  "
    "[default: w600k_mbf if its file is on this machine, else facemill-512; a resumed file keeps its model]",
)
engine_options = grouped(
    "engine",
    EngineOptions,
    click.option("--engine", type=PATH, help="Engine file made by build-engine."),
    model_option,
    backend_option,
    excludes("--engine", "--model", "--backend", why="an engine is built from one model, for one backend"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class DetectorOptions(Options):
    """How faces are detected.

    Attributes:
        align: "auto", "detect" or "none".
        detector: a registered detector, a model file or an engine file; None for the default.
    """

    align: str
    detector: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class FaceOptions(DetectorOptions):
    """How faces are detected, and which of them count; see `faces.rules.FaceRules`."""

    faces: str
    min_score: float
    min_iod: float
    min_sharpness: float
    min_frontal: float

    def rules(self) -> FaceRules:
        """The same for the library.

        Raises:
            ConfigError: a value is out of range.
        """
        from ..faces.rules import FaceRules

        return FaceRules(self.align, self.faces, self.min_score, self.min_iod, self.min_sharpness, self.min_frontal)


_detector = (
    click.option(
        "--align",
        type=click.Choice(["auto", "detect", "none"]),
        default=defaults.ALIGN,
        show_default=True,
        help="detect: detect and align the faces of every photo. none: take every photo whole, as an aligned crop. "
        "auto: take photos of exactly the crop's size whole, and detect faces in the others.",
    ),
    click.option(
        "--detector",
        help="Face detector: a registered name, a model file (PATH.toml) or an engine file.  "
        "[default: yunet if its file is on this machine, else facemill-det; a resumed file keeps its detector]",
    ),
)
detector_options = grouped("detection", DetectorOptions, *_detector)
face_options = grouped(
    "faces",
    FaceOptions,
    *_detector,
    click.option(
        "--faces",
        type=click.Choice(["largest", "all", "one"]),
        default=defaults.FACES,
        show_default=True,
        help="Faces to embed. largest: the large one near the middle. all: every face, one row each. one: refuse "
        "photos with several faces.",
    ),
    click.option(
        "--min-score",
        type=float,
        default=defaults.MIN_SCORE,
        show_default=True,
        help="Minimum detection confidence, 0 to 1.",
    ),
    click.option(
        "--min-iod",
        type=float,
        default=defaults.MIN_IOD_PX,
        show_default=True,
        help="Minimum distance between the eyes, in pixels of the original photo.",
    ),
    click.option(
        "--min-sharpness",
        type=float,
        default=defaults.MIN_SHARPNESS,
        show_default=True,
        help="Minimum sharpness of a face; 0 accepts all (docs/faces.md has values).",
    ),
    click.option(
        "--min-frontal",
        type=float,
        default=defaults.MIN_FRONTAL,
        show_default=True,
        help="Minimum frontal pose of a face: 1 looks into the camera, 0 is a profile.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class AllPairsOptions(Options):
    """How all rows of a file are compared with each other.

    Attributes:
        budget: seconds; where comparing all would take longer, the search is approximate. None for exact search.
        device: "auto", "cpu", "gpu" or the number of a GPU.
        force: replace outputs, and drop an unfinished search with other options.
    """

    budget: float | None
    device: str
    force: bool


budget_option = click.option(
    "--budget",
    metavar="DURATION",
    callback=duration,
    help="Time limit, such as 90s, 30m or 2h. If comparing all pairs would take longer, the search is approximate, and "
    "the output says which share of the pairs it found.",
)
compare_device_option = device_option(
    "Device that compares the rows: the CPU, the first GPU or GPU number N; auto: a GPU if there is one."
)
all_pairs_options = grouped(
    "search",
    AllPairsOptions,
    budget_option,
    compare_device_option,
    force_option("Replace existing outputs; drop an unfinished search with other options."),
)
