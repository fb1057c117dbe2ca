"""`facemill remove`: a person's photographs erased from a file and from all that was made from it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import printable
from .common import handle_errors, setup_logging

if TYPE_CHECKING:
    from ..maintenance.remove import RemovalPlan

_NAMED = 10  # names that an error lists


@click.command(name="remove")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--path", "names", multiple=True, metavar="PATH", help="A photograph, or a folder: all below it.")
@click.option("--person-list", "lists", multiple=True, type=click.Path(path_type=Path), help="A list of such, or -.")
@click.option("--ignore-missing", is_flag=True, help="Pass over names that mean nothing in FILE.")
@click.option("--keep-pages", is_flag=True, help="Leave pages, lists and folders that show photographs of FILE.")
@click.option("--receipt", type=click.Path(path_type=Path), help="Where to write it.  [FILE.removed-TIME.json]")
@click.option("--name-paths", is_flag=True, help="Let the receipt name what was removed, not only by SHA-256.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed and deleted; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the receipt as one line of JSON.")
@handle_errors
def main(
    file: Path,
    names: tuple[str, ...],
    lists: tuple[Path, ...],
    ignore_missing: bool,
    keep_pages: bool,
    receipt: Path | None,
    name_paths: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase photographs from FILE and from all that was made from it.

    PATH is a photograph as /image_paths names it, or a folder of them (P00/ is everything below P00), below the root of
    FILE or absolute. The list holds one a line (or each ended by a NUL byte). Paths that are not UTF-8 may be given as
    they are, or with \\xNN as FILE shows them.

    The new file is written afresh and takes FILE's place whole. Then the indexes beside it are deleted, what killed
    commands left there, and the pages, lists and folders that facemill wrote from FILE, if they are as it wrote them. A
    receipt says what was done, naming photographs by the SHA-256 of their paths, and what may still show them: changed
    pages, joined files, collections of Qdrant. After a kill, the same command completes it. Duplicates of a removed
    photograph go with it.

    The photographs themselves are not deleted: delete them first, or `facemill add` takes them in again. Copies and
    backups of FILE that lie elsewhere are yours to find.

    \b
    Examples:
      facemill remove people.h5 --path P00/ --dry-run
      facemill remove people.h5 --path P00/ --yes
      facemill remove people.h5 --person-list leave.txt --yes --receipt receipt.json

    Exit codes: 0 removed (or nothing to remove, with --ignore-missing), 1 failure, 2 usage.
    """
    if not names and not lists:
        raise click.UsageError("what is to be removed? Name it with --path or --person-list")
    setup_logging()
    from ..errors import ConfigError
    from ..maintenance.remove import Removal
    from ..maintenance.selection import read_names

    wanted = [os.fsencode(name) for name in names] + [name for path in lists for name in read_names(path)]
    if not wanted and not ignore_missing:
        raise ConfigError("the list names nothing, and nothing was removed; wanted: one photograph or folder a line")
    with Removal(file) as removal:
        card: dict[str, Any] = {}
        if removal.unfinished and not dry_run:
            card = removal.finish_earlier()
            if card:
                click.echo(f"completed a removal that was interrupted: {printable(card['receipt'])}", err=True)
        found = removal.find(wanted, keep_pages=keep_pages)
        asked = set(card.get("asked_sha256", ()))
        missing = [name for name in found.missing if hashlib.sha256(name).hexdigest() not in asked]
        if missing and not ignore_missing:
            _refuse(file, missing, found.root)
        if len(found.rows):
            for line in _plan(file, found):
                click.echo(line, err=True)
            if dry_run:
                return
            if not yes and not (sys.stdin.isatty() and click.confirm("Remove them?", err=True)):
                raise click.UsageError("nothing was removed. Say --yes to remove without being asked")
            card = removal.erase(found, wanted, receipt=receipt, keep_pages=keep_pages, name_paths=name_paths)
    if as_json:
        click.echo(json.dumps(card))
    else:
        for line in _report(file, card):
            click.echo(line)


def _report(file: Path, card: dict[str, Any]) -> Iterator[str]:
    """A receipt for a person; an empty one where there was nothing to remove."""
    if not card:
        yield "nothing to remove"
        return
    yield (
        f"{printable(str(file))}: {card['removed_photographs']:,} photographs removed, "
        f"{card['photographs_after']:,} left ({card['embeddings_after']:,} embeddings)"
    )
    if card["same_files_stay"]:
        yield f"  {card['same_files_stay']:,} of them are the same files as photographs that stay: name those as well"
    for kept in card["may_still_show"]:
        yield f"  may still show them: {printable(kept['path'])} ({printable(kept['why'])})"
    yield f"  receipt: {printable(card['receipt'])}"
    yield "  the photographs themselves are where they were"


def _refuse(file: Path, missing: list[bytes], root: bytes) -> None:
    from ..errors import ConfigError

    listed = "\n".join(f"  {printable(os.fsdecode(name))}" for name in missing[:_NAMED])
    more = f"\n  and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    raise ConfigError(
        f"{len(missing):,} names mean nothing in {file}, and nothing was removed:\n{listed}{more}\n"
        f"wanted: photographs or folders below {printable(os.fsdecode(root))}, as its /outcomes/path names them. To "
        f"pass over such names: --ignore-missing"
    )


def _plan(file: Path, found: RemovalPlan) -> Iterator[str]:
    what = f"{len(found.rows):,} photographs ({found.embeddings:,} embeddings)"
    yield f"{what} are to be removed from {printable(str(file))}"
    if found.duplicates:
        yield f"  {found.duplicates:,} of them were not named: the same files, to the byte, as some that were"
    if found.same_stay:
        yield f"  {found.same_stay:,} of them are the same files, to the byte, as photographs that stay in the file"
    if found.missing:
        yield f"  {len(found.missing):,} names mean nothing there and are passed over"
    for path in (*found.derived.beside, *found.derived.pages):
        yield f"  deleted with them: {printable(str(path))}"
    for place, why in found.derived.kept:
        yield f"  may still show them: {printable(place)} ({printable(why)})"
    for name in found.extras:
        yield f"  dropped from the file, since its rows change: /{printable(name)}"
