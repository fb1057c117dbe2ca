"""`facemill demo`: a tour with synthetic photos, from pictures to a page of answers."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from . import options
from .common import handle_errors

_PORTRAIT_BYTES = 5000  # of the damaged photo: less than any whole portrait has


@click.command(name="demo")
@click.argument("folder", default="facemill-demo", type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--people", type=options.Count(12, 1_000_000), default=60, show_default=True, help="Number of people.")
@click.option("--shots", type=options.Count(2, 1000), default=4, show_default=True, help="Photos of each person.")
@handle_errors
def main(folder: Path, people: int, shots: int) -> None:
    """Draw synthetic portraits, embed them, search them, and write a page with the answers.

    FOLDER receives the photos and the results. It must be missing, empty, or made by an earlier demo.
    No network is needed: the models ship with facemill, and no real person is shown.

    \b
    Examples:
      facemill demo
      facemill demo /tmp/tour --people 200
    """
    from ..errors import OutputExistsError

    mark = folder / ".facemill-demo"
    if folder.exists() and not mark.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"{folder} exists and was not made by facemill demo. Name another folder")
    from ..demo.portraits import write_portraits

    photos, file, page = folder / "photos", folder / "people.h5", folder / "search.html"
    click.echo(
        f"drawing {people * shots:,} portraits of {people:,} people who do not exist, and two broken files on purpose: "
        f"every file gets an outcome"
    )
    paths = write_portraits(photos, people=people, shots=shots)
    mark.touch()
    (photos / "cut-short.jpg").write_bytes(paths[0].read_bytes()[:_PORTRAIT_BYTES])
    (photos / "not-a-photo.jpg").write_text("this is text\n")
    _run("process", photos, "-o", file, "--force")
    queries = (paths[0], paths[5 * shots + 1], paths[11 * shots + 1])
    _run("search", file, *queries, "-k", "5", "--html", page, "--force")
    click.echo(
        f"\nThe results are in {folder}:\n"
        f"  {file.name:<12} the embeddings, the paths, and the outcome of each photo\n"
        f"  {page.name:<12} the answers of the search, with the photos\n"
        f"  {photos.name + '/':<12} the portraits\n"
        f"With your photos: facemill process YOUR_PHOTOS -o people.h5"
    )


def _run(*arguments: object) -> None:
    """Show a command and run it. Exits as the command exits if it fails."""
    from .app import main as facemill

    texts = [str(argument) for argument in arguments]
    click.echo(f"\n$ facemill {shlex.join(texts)}")
    facemill(texts, prog_name="facemill", standalone_mode=False)
