"""`facemill filter`: select photos by age and gender."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .chosen import AttributeOptions, attribute_options
from .common import handle_errors, setup_logging
from .matches import print_facts, print_json, print_paths, print_undone

_WHY = "it removes what an earlier command wrote"


@click.command(name="filter")
@click.argument("file", type=options.PATH, required=False)
@attribute_options
@click.option("-o", "--output", type=options.PATH, help="Write a list, a .csv file, instead of printing paths.")
@options.csv_safe_option
@click.option("--folders", type=options.PATH, help="Put the photos into this folder, with a list and a receipt.")
@click.option("--mode", type=click.Choice(["symlink", "hardlink", "copy"]), help="Content of the folder.  [symlink]")
@click.option("--undo", type=options.PATH, metavar="RECEIPT", help="Remove what --folders wrote; without FILE.")
@options.force_option("Replace an existing list, or a folder in which everything is as facemill wrote it.")
@click.option("-0", "--print0", "print0", is_flag=True, help="End each path by a zero byte, absolute, for xargs -0.")
@options.json_option
@options.excludes("--undo", "--gender", "--age", "--unsure", "-o", "--folders", "--mode", "--force", "-0", why=_WHY)
@options.exclusive("-0", "--json")
@handle_errors
def main(
    file: Path | None,
    chosen: AttributeOptions,
    mode: str | None,
    undo: Path | None,
    print0: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Select the photos in FILE by the age and gender of their faces.

    FILE is an embedding file with these (process --attributes age,gender, or facemill attributes FILE). A network
    estimated them and is often wrong: use it to search and to sort, never to decide about a person
    (docs/attributes.md).

    Paths are printed, one per line and below the root of FILE, unless -o or --folders is given. -0 prints each photo
    once, for xargs. --json prints the counts, and under "matches" each face with its path, age and gender.

    --folders fills FOLDER/photos with links to the photos, or copies, under their paths in FILE; FOLDER/photos.csv
    lists them, and FOLDER/receipt.jsonl undoes it all. The same command again finds the folder finished and changes
    nothing.

    \b
    Examples:
      facemill filter people.h5 --gender woman --age 18-40
      facemill filter people.h5 --age 60- -0 | xargs -0r ls -l
      facemill filter people.h5 --age -12 --unsure drop --folders children --mode copy
      facemill filter --undo children/receipt.jsonl

    Exit codes: 0 done, 1 failure, 2 usage, 3 --undo left photos that were changed since, or whose original is gone.
    """
    setup_logging()
    if undo is not None:
        if file is not None:
            raise click.UsageError(f"FILE and --undo exclude each other: {_WHY}")
        return _undo(undo, as_json)
    if file is None or not (chosen.gender or chosen.age):
        missing = "FILE" if file is None else "a filter option"
        raise click.UsageError(f"{missing} is missing; expected: FILE with --gender, --age or both; or --undo RECEIPT")
    if mode and given["folders"] is None:
        raise click.UsageError("--mode is for --folders")
    from ..api.attributes import filter

    report = filter(file, mode=mode or "symlink", **chosen.values(), **given)
    listed = given["output"] is None and given["folders"] is None
    if as_json:
        print_json(report, matches=listed)
    elif print0 or listed:
        print_paths(report, zero=print0)
    print_facts(report, given["folders"])


def _undo(receipt: Path, as_json: bool) -> None:
    from ..api.attributes import undo_filter

    undone = undo_filter(receipt)
    if as_json:
        click.echo(json.dumps(undone.to_dict()))
    print_undone(undone)
    if undone.kept:
        click.get_current_context().exit(3)
