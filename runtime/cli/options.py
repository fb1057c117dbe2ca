"""Declare and check options; define single options that several commands share."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import defaults
from ..counts import LARGEST

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH = click.Path(path_type=Path)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def exclusive(*names: str, why: str = "") -> Decorator:
    """Refuse a command line that names more than one of some options.

    Args:
        names: option names as on the command line.
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
        name: name of the command's parameter.
        kind: a dataclass whose fields have the names of the options.
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
    """Apply several decorators to a command, the first one outermost."""
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def above_zero(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Check that a number is above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter(f"{value} is not a number above 0", ctx, param)
    return value


def cosine(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Check a score: -1 to 1, which excludes NaN."""
    if value is not None and not -1 <= value <= 1:
        raise click.BadParameter(f"{value} is not a number from -1 to 1", ctx, param)
    return value


def device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check a device: auto, cpu, gpu or the number of a GPU."""
    if value not in ("auto", "cpu", "gpu") and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is none of auto, cpu, gpu and the number of a GPU", ctx, param)
    return value


def permissions(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Parse permission bits in octal, such as 640 or 0640."""
    if value is None:
        return None
    if not re.fullmatch("[0-7]{3,4}", value) or int(value, 8) & ~0o666:
        raise click.BadParameter(f"{value!r} is no permission of a file; expected: 600, 640 or 644", ctx, param)
    return int(value, 8)


def attributes(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check a list of attributes: age, gender or both."""
    if value is not None and not {name.strip() for name in value.split(",")} <= {"age", "gender"}:
        raise click.BadParameter(f"{value!r} is none of age, gender, and age,gender", ctx, param)
    return value


def ages(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check a range of ages."""
    if value is not None and not re.fullmatch(r"\d{1,3}(-(\d{1,3})?)?|-\d{1,3}", value):
        raise click.BadParameter(f"{value!r} is no range of ages; expected: 18-40, 18-, -12 or 30", ctx, param)
    return value


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Parse `90s`, `30m`, `2h`, `1h30m` or `1d` into seconds."""
    if value is None:
        return None
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", value):
        raise click.BadParameter(f"{value!r} is no duration; expected: 90s, 30m, 2h, 1h30m or 1d", ctx, param)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", value))
    if not math.isfinite(seconds):
        raise click.BadParameter(f"{value!r:.40} is no finite duration", ctx, param)
    return seconds


class Count(click.IntRange):
    """A whole number within bounds. No number is larger than a file can store; the help need not say that."""

    def __init__(self, smallest: int = 1, largest: int = LARGEST) -> None:
        super().__init__(smallest, None if largest == LARGEST else largest)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number > LARGEST:
            self.fail(f"{number} is too large; expected: at most {LARGEST}", param, ctx)
        return number


class Number(click.FloatRange):
    """A number that is finite: neither `nan` nor `inf` is one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class AutoOrCount(Count):
    """`auto` (None), or a whole number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return None
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as err:
            self.fail(f"{err.message.rstrip('.')}; 'auto' is valid too", param, ctx)


def device_option(help_text: str) -> Decorator:
    """`--device auto|cpu|gpu|N`."""
    return click.option(
        "--device", default="auto", show_default=True, metavar="auto|cpu|gpu|N", callback=device, help=help_text
    )


def force_option(help_text: str) -> Decorator:
    """`--force`."""
    return click.option("--force", is_flag=True, help=help_text)


def count_option(name: str, default: int, help_text: str) -> Decorator:
    """A whole number from 1."""
    return click.option(name, type=Count(), default=default, show_default=True, help=help_text)


def seed_option(largest: int, help_text: str = "Random seed.", name: str = "--seed") -> Decorator:
    """A seed, 0 to `largest`."""
    return click.option(name, type=Count(0, largest), default=0, show_default=True, help=help_text)


attributes_option = click.option(
    "--attributes",
    metavar="age,gender",
    callback=attributes,
    help="Also read the age, the gender or both from each face; a resumed file keeps its own.",
)
file_argument = click.argument("file", type=PATH)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON on stdout.")
output_option = click.option(
    "-o", "--output", default=defaults.OUTPUT, show_default=True, type=PATH, help="Embedding file to write."
)
csv_safe_option = click.option(
    "--csv-safe", is_flag=True, help="In CSV, write ' before a name that a spreadsheet would take for a formula."
)
page_option = click.option("--html", "page", type=PATH, help="Also write an HTML page with the photos.")
log_option = click.option("--log", "log_file", type=PATH, help="Also append the log to this text file.")
latency_option = click.option(
    "--latency",
    "latency_ms",
    type=Number(min=0, min_open=True),
    default=defaults.LATENCY_MS,
    metavar="MS",
    show_default=True,
    help="Milliseconds per query that --index auto aims at.",
)
file_engine_option = click.option(
    "--engine", type=PATH, help="Engine file to use if the engine that FILE names is missing."
)
