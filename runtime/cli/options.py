"""Options that several commands have, and what their values may be."""

from __future__ import annotations

import re

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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
        raise click.BadParameter(f"{value!r} is no duration; wanted: 90s, 30m, 2h, 1h30m or 1d", ctx, param)
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", value))


budget_option = click.option(
    "--budget",
    metavar="DURATION",
    callback=duration,
    help="90s, 30m, 2h: where comparing all takes longer, search approximately and say what share was found.",
)

compare_device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|gpu|N",
    callback=device,
    help="Where rows are compared: on the CPU, the first GPU, or GPU number N; auto: on a GPU if there is one.",
)
