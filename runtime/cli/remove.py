"""`facemill remove`: a person's photos erased from a file and from everything that was made from it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import printable
from . import options
from .common import handle_errors, print_summary, setup_logging

if TYPE_CHECKING:
    from ..maintenance.receipt import Receipt
    from ..maintenance.removal_plan import RemovalPlan


@click.command(name="remove")
@options.file_argument
@click.option("--path", "names", multiple=True, metavar="PATH", help="Photo to remove, or folder with all below it.")
@click.option("--paths-from", "lists", multiple=True, type=options.PATH, help="File with a PATH per line, or -.")
@click.option("--ignore-missing", is_flag=True, help="Ignore paths that are not in FILE.")
@click.option("--keep-pages", is_flag=True, help="Keep pages, lists and folders that show photos of FILE.")
@click.option("--receipt", type=options.PATH, help="File for the receipt.  [default: FILE.removed-TIME.json]")
@click.option("--name-paths", is_flag=True, help="Write the removed paths into the receipt, not only their digests.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed and deleted; change nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@options.json_option
@handle_errors
def main(
    file: Path, names: tuple[str, ...], lists: tuple[Path, ...], dry_run: bool, yes: bool, as_json: bool, **given: Any
) -> None:
    """Erase photos from FILE and from everything that was made from it.

    PATH is a photo as /image_paths names it, or a folder of them (P00/ is everything below P00), relative to the root
    of FILE or absolute. In a list, `-` is stdin, and NUL bytes may end the paths. A path that is not UTF-8 may be given
    as it is, or with \\xNN as FILE shows it. Duplicates of a removed photo are removed with it.

    FILE is replaced once the new file is complete. Then its indexes, remains of killed commands, unfinished runs with a
    named photo, and unchanged pages, lists and folders that facemill wrote from FILE are deleted. A receipt says what
    may still show the photos: changed pages, joined files, collections of Qdrant. After a kill, repeat the command.

    The photos themselves are not deleted: delete them first, or `facemill add` embeds them again. Copies and backups of
    FILE in other places are yours to find.

    \b
    Examples:
      facemill remove people.h5 --path P00/ --dry-run
      facemill remove people.h5 --paths-from leave.txt --yes --receipt receipt.json

    Exit codes: 0 removed, now or before (or, with --ignore-missing, nothing to remove), 1 failure, 2 usage, 3 removed
    from FILE, but not yet from all that was made from it: repeat the command.
    """
    if not names and not lists:
        raise click.UsageError("no photos are named. Use --path or --paths-from")
    setup_logging()
    from ..api.jobs import remove
    from ..maintenance.selection import read_names

    def confirm(plan: RemovalPlan) -> bool:
        click.echo("\n".join(_plan(file, plan)), err=True)
        if not (dry_run or yes or (sys.stdin.isatty() and click.confirm("Remove them?", err=True))):
            raise click.UsageError("nothing was removed. Give --yes to remove without being asked")
        return True

    paths = [*map(os.fsencode, names), *(name for path in lists for name in read_names(path))]
    receipt = remove(file, paths, dry_run=dry_run, confirm=confirm, **given)
    if not dry_run:
        lines = _report(file, receipt) if receipt else ["nothing to remove"]
        text = json.dumps(receipt.to_dict() if receipt else {}) if as_json else "\n".join(lines)
        print_summary(text, f"the removal is done (receipt: {receipt.path if receipt else 'none'})")


def _report(file: Path, receipt: Receipt) -> Iterator[str]:
    removed, left = f"{receipt.removed_photographs:,} photos removed", f"{receipt.photographs_after:,} left"
    yield f"{printable(str(file))}: {removed}, {left} ({receipt.embeddings_after:,} embeddings)"
    if receipt.same_files_stay:
        yield f"  {receipt.same_files_stay:,} of them are the same files as photos that stay: name those as well"
    yield from (f"  may still show them: {printable(path)} ({printable(why)})" for path, why in receipt.may_still_show)
    yield f"  receipt: {printable(receipt.path)}, with the key of its digests (.key). The photos are not deleted"


def _plan(file: Path, plan: RemovalPlan) -> Iterator[str]:
    yield f"to be removed from {printable(str(file))}: {len(plan.rows):,} photos ({plan.embeddings:,} embeddings)"
    counts = (
        (plan.duplicates, "of them were not named: the same files, to the byte, as some that were"),
        (plan.same_stay, "of them are the same files, to the byte, as photos that stay in the file"),
        (len(plan.missing), "names are not in the file and are ignored"),
    )
    yield from (f"  {number:,} {label}" for number, label in counts if number)
    yield from (f"  an unfinished run that holds them: {printable(str(path))}" for path in plan.unfinished)
    yield from (f"  deleted with them: {printable(str(path))}" for path in (*plan.derived.beside, *plan.derived.pages))
    yield from (f"  may still show them: {printable(place)} ({printable(why)})" for place, why in plan.derived.kept)
    yield from (f"  dropped from the file, since its rows change: /{printable(name)}" for name in plan.extras)
