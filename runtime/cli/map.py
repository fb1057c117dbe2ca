"""`facemill map`: draw the embeddings as a map."""

from __future__ import annotations

from pathlib import Path

import click

from .. import defaults
from . import options
from .common import handle_errors, print_summary, setup_logging


@click.command(name="map")
@options.file_argument
@click.option("-o", "--output", type=options.PATH, default="map.html", show_default=True, help="HTML page to write.")
@click.option(
    "--color",
    type=click.Choice(["auto", "cluster", "folder"]),
    default="auto",
    show_default=True,
    help="What the colours show. cluster: the clusters that `facemill cluster` wrote into FILE, or, without these, "
    "clusters of the embeddings shown. folder: the folders of the photos. auto: the clusters in FILE, else the folders "
    "if there are 2 to 50, else clusters of the embeddings shown.",
)
@click.option(
    "--limit",
    type=options.Count(3),
    default=defaults.MAP_POINTS,
    show_default=True,
    help="Maximum number of points; of more embeddings, this number is drawn evenly from FILE.",
)
@options.seed_option(2**32 - 1, "Random seed of the layout.")
@click.option("--no-thumbnails", is_flag=True, help="Read no photos: a smaller page, without pictures.")
@options.force_option("Replace an existing page.")
@handle_errors
def main(file: Path, output: Path, color: str, limit: int, seed: int, no_thumbnails: bool, force: bool) -> None:
    """Draw the embeddings in FILE as points on an HTML page: similar faces are close together.

    FILE is an embedding file of `facemill process`. The page is one file, which a browser opens without a network. A
    point shows its photo (the face, if FILE knows its place), path and folder or cluster. Distances between groups have
    no meaning. Needs Plotly and scikit-learn: the extra `map`.

    \b
    Examples:
      facemill map people.h5
      facemill map people.h5 -o people.html --color cluster --limit 20000
      facemill map people.h5 --no-thumbnails --seed 7 --force

    Exit codes: 0 drawn, 1 failure, 2 usage.
    """
    setup_logging()
    from ..pages.map import draw_map
    from ..pages.page import check_page_path
    from ..storage.file import EmbeddingFile

    check_page_path(output, force=force, option="-o")
    with EmbeddingFile(file) as gallery:
        drawn = draw_map(gallery, output, color=color, limit=limit, seed=seed, pictures=not no_thumbnails, force=force)
    if drawn.warning:
        click.echo(f"WARNING: {drawn.warning}", err=True)
    print_summary(f"{output}: {drawn.facts()}\ncolours: {drawn.groups.origin}", f"{output} is written")
