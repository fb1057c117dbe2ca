"""`facemill attributes`: add age and gender to an embedding file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..text import printable
from . import groups, options
from .common import handle_errors, setup_logging, terminal


@click.command(name="attributes")
@options.file_argument
@click.option(
    "--attributes",
    metavar="age,gender",
    default="age,gender",
    show_default=True,
    callback=options.attributes,
    help="What to read from each face: the age, the gender or both.",
)
@click.option(
    "--from",
    "source",
    type=click.Choice(["photos", "embeddings"]),
    default="photos",
    show_default=True,
    help="photos: read the photos again. embeddings: read no photo, in seconds; for files of facemill-512.",
)
@groups.backend_option
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Do not read photos whose name, folder or path matches, such as a photo on a bad sector; repeatable.",
)
@options.force_option("Read faces again that have their age and gender already.")
@click.option(
    "--replace",
    "replace_others",
    is_flag=True,
    help="Replace the answers of another network or source; a face that cannot be read again loses its answer.",
)
@options.log_option
@options.json_option
@handle_errors
def main(file: Path, log_file: Path | None, as_json: bool, **given: Any) -> None:
    """Add the age and the gender of each face to FILE, an embedding file of `facemill process`.

    FILE keeps every answer that is not read again. It names one network and one source: with answers of another one,
    --replace is needed.

    A network estimates both from the face, and how sure it is. It is often wrong, and more often for some people than
    for others: use it to search and to sort, never to decide about a person (docs/attributes.md).

    With --from photos, the faces are cropped again at the places that FILE names. A face whose photo is gone or has
    changed gets no age and no gender; a disk that does not answer stops the command. What was read is kept beside FILE
    (FILE.attributes.parts): after Ctrl-C or a crash the same command goes on. With --from embeddings, a small head
    answers for the embeddings of facemill-512.

    \b
    Examples:
      facemill attributes people.h5
      facemill attributes people.h5 --from embeddings
      facemill filter people.h5 --gender woman --age 18-40

    Exit codes: 0 done, 1 failure, 2 usage, 129, 130, 143 stopped by a signal.
    """
    setup_logging(log_file=log_file)
    from ..api.attributes import add_attributes

    with terminal() as job:
        added = add_attributes(file, **job, **given)
    if as_json:
        click.echo(json.dumps(added.to_dict()))
        return
    names = " and ".join(added.names)
    click.echo(f"{printable(str(file))}: {names} of {added.rows - added.unread:,} of {added.rows:,} faces")
    click.echo(f"  {added.read:,} read now in {added.elapsed_s:.1f} s, from {added.source}, by {added.model}")
    if added.resumed:
        click.echo(f"  {added.resumed:,} read before, by the command that was stopped")
    if added.kept:
        click.echo(f"  {added.kept:,} kept from before, because their photos cannot be read now")
    if added.unread:
        gone = f"their photos are gone, have changed or cannot be read{', or are left out' if given['exclude'] else ''}"
        reason = "their embeddings are zeros" if added.source == "embeddings" else gone
        click.echo(f"  {added.unread:,} without, because {reason}")
