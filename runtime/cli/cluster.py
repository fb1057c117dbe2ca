"""`facemill cluster`: which photographs belong together?"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable
from . import options
from .common import handle_errors, setup_logging

if TYPE_CHECKING:
    from ..clusters.clusters import Clusters
    from ..storage.file import EmbeddingFile


@click.command(name="cluster")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-k", "--people", type=click.IntRange(min=1), help="How many people there are, if that is known.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    help="Two photographs with this score are linked. [default: as FILE's calibration says]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write a list, a .csv.")
@click.option("--folders", type=click.Path(path_type=Path), help="Also make a folder for each cluster, in this one.")
@click.option(
    "--mode",
    type=click.Choice(["symlink", "hardlink", "copy"]),
    help="What the folders hold.  [default: symlink]",
)
@click.option(
    "--sheets", type=click.Path(path_type=Path), help="Also write pages with the photographs, in this folder."
)
@click.option(
    "--least",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Clusters with fewer photographs get no folder and no sheet.",
)
@click.option("--no-column", is_flag=True, help="Leave FILE as it is: do not write /cluster into it.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 100), default=0, show_default=True, help="Of what is drawn.")
@options.budget_option
@click.option(
    "--most",
    default=30_000_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Stop if there are more links: the threshold is too low. So many take some 3 GB.",
)
@options.compare_device_option
@click.option(
    "--force", is_flag=True, help="Replace a list, folders and sheets; drop an unfinished search of another question."
)
@handle_errors
def main(
    file: Path,
    people: int | None,
    threshold: float | None,
    output: Path | None,
    folders: Path | None,
    mode: str | None,
    sheets: Path | None,
    least: int,
    no_column: bool,
    seed: int,
    budget: float | None,
    most: int,
    device: str,
    force: bool,
) -> None:
    """Put together the photographs of each person in FILE, an embedding file of `facemill process`.

    With -k, when the number of people is known: k-means (by FAISS). Else photographs whose score reaches the threshold
    are linked, all pairs are compared, and Chinese whispers finds the people in the graph (needs SciPy: the extra
    `cluster`). Without --threshold the calibration that FILE carries gives one (facemill evaluate --calibrate FILE).

    Comparing takes the most time. What is found is kept beside FILE (FILE.pairs.parts) until the clusters are written:
    after Ctrl-C or a crash the same command goes on from there.

    Every photograph gets the number of its cluster; cluster 1 is the largest, and who has one photograph is a cluster
    of one. The numbers are written into FILE as /cluster, in place of earlier ones.

    \b
    Examples:
      facemill cluster people.h5 --threshold 0.5 -o people.csv
      facemill cluster people.h5 --sheets sheets --no-column
      facemill cluster people.h5 --folders people --mode hardlink --least 3
      facemill cluster people.h5 -k 400 -o people.csv --force

    Exit codes: 0 done, 1 failure, 2 usage.
    """
    if people is not None and threshold is not None:
        raise click.UsageError("-k and --threshold exclude each other")
    if mode and folders is None:
        raise click.UsageError("--mode is for --folders")
    _check_apart({"--folders": folders, "--sheets": sheets, "--output": output})
    setup_logging()
    from ..clusters.clusters import cluster_by_count, cluster_by_threshold, default_threshold
    from ..clusters.folders import check_folders, write_folders
    from ..clusters.outputs import check_list_path, write_column, write_list
    from ..interrupt import SignalControl
    from ..pages.sheets import check_sheets, write_sheets
    from ..pairs.checkpoint import Checkpoint
    from ..pairs.pairs import PairQuery
    from ..progress import LiveLine
    from ..search.model_label import made_by
    from ..storage.diskfile import readable_as
    from ..storage.file import EmbeddingFile

    for path, check in ((output, check_list_path), (folders, check_folders), (sheets, check_sheets)):
        if path is not None:
            check(path, force=force)
    with ExitStack() as stack:
        gallery = stack.enter_context(EmbeddingFile(file))
        stack.enter_context(readable_as(file))
        parts = None
        if people is not None:
            found = cluster_by_count(gallery, people, seed=seed, listener=LiveLine())
        else:
            threshold = default_threshold(gallery) if threshold is None else threshold
            wanted = PairQuery(threshold, most=most, budget_s=budget, device=device)
            parts = stack.enter_context(Checkpoint(file))
            with SignalControl() as control:
                found = cluster_by_threshold(
                    gallery, parts, wanted, seed=seed, force=force, listener=LiveLine(), control=control
                )
        click.echo("\n".join((*_summary(found), printable(f"model: {made_by(gallery)}"))))
        _warn(gallery, found)
        if output is not None:
            write_list(output, gallery, found)
            click.echo(printable(str(output)))
        if folders is not None:
            made = write_folders(folders, gallery, found, mode=mode or "symlink", least=least, force=force)
            missing = f"; {made.missing:,} are not there any more" if made.missing else ""
            click.echo(
                f"{printable(str(folders))}: {made.folders:,} folders, {made.photographs:,} photographs{missing}"
            )
        if sheets is not None:
            pages = write_sheets(sheets, gallery, found, least=least, force=force)
            click.echo(f"{printable(str(sheets / 'index.html'))}: {pages:,} {'sheet' if pages == 1 else 'sheets'}")
        if not no_column:  # last: it makes another file of FILE, whose comparisons would begin anew
            write_column(file, found, str(gallery.metadata["run_id"]))
            click.echo(f"{printable(str(file))}: /cluster")
        if parts is not None:
            parts.remove()


def _check_apart(outputs: dict[str, Path | None]) -> None:
    """Folders that facemill fills hold nothing else: no other output is there, or below."""
    places = {name: Path(os.path.realpath(path)) for name, path in outputs.items() if path is not None}
    for name, place in places.items():
        for other, there in places.items():
            if name != other and name != "--output" and there.is_relative_to(place):
                raise click.UsageError(f"{name} needs a folder of its own, and {other} is in it")


def _summary(found: Clusters) -> list[str]:
    several = found.with_at_least(2)
    alone = found.count - several
    nobody = len(found.of) - int(found.sizes.sum())
    how = f"k-means, k = {found.k:,}" if found.k else f"threshold {found.threshold:g}"
    lines = [
        f"{len(found.of):,} embeddings in {found.count:,} {'cluster' if found.count == 1 else 'clusters'} ({how})",
        f"  {several:,} with several photographs, {int(found.sizes[:several].sum()):,} in all",
        f"  {alone:,} of one photograph",
    ]
    if nobody:
        lines.append(f"  {nobody:,} embeddings are zeros, like nobody's, and in no cluster (0)")
    if several:
        lines.append(f"  the largest has {int(found.sizes[0]):,}")
    return lines


def _warn(gallery: EmbeddingFile, found: Clusters) -> None:
    """Of what cannot be right."""
    from ..search.model_label import warning_of

    if warning_of(gallery):
        click.echo(f"WARNING: {warning_of(gallery)}", err=True)
    if found.suspicious and not found.k:
        which = "cluster is" if found.suspicious == 1 else "clusters are"
        click.echo(
            f"WARNING: {found.suspicious:,} {which} too large to be a person; the largest has {int(found.sizes[0]):,} "
            f"of {len(found.of):,} photographs. The threshold {found.threshold:g} is too low, or many photographs show "
            f"no face: try a higher one, and look at --sheets",
            err=True,
        )
