"""Options that select faces by age and gender, for several commands."""

from __future__ import annotations

import dataclasses

import click

from .. import defaults
from . import groups, options


@dataclasses.dataclass(frozen=True, slots=True)
class AttributeOptions(groups.Options):
    """A filter by age and gender; see `attributes.selection.AttributeFilter`."""

    gender: str | None
    age: str | None
    unsure: str


attribute_options = options.grouped(
    "chosen",
    AttributeOptions,
    click.option("--gender", type=click.Choice(["man", "woman"]), help="Only faces of this gender."),
    click.option(
        "--age",
        metavar="YEARS",
        callback=options.ages,
        help="Only faces of this age: 18-40, 18- (and older), -12 (and younger) or 30.",
    ),
    click.option(
        "--unsure",
        type=click.Choice(["keep", "drop"]),
        default=defaults.UNSURE,
        show_default=True,
        help="keep: go by the best guess. drop: leave out faces whose gender is less than 90 % sure, or whose age may "
        "lie outside of --age.",
    ),
)
