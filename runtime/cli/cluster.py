"""`facemill cluster`: group photos by person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import defaults
from ..text import printable
from . import groups, options
from .chosen import AttributeOptions, attribute_options
from .common import handle_errors, print_summary, setup_logging, terminal
from .reports import cluster_lines, cluster_outputs

if TYPE_CHECKING:
    pass


@click.command(name="cluster")
@options.file_argument
@click.option("-k", "--people", type=options.Count(), help="Number of people, if it is known.")
@click.option("--threshold", type=options.Number(0, 1, min_open=True), help="Minimum score of two linked photos.")
@attribute_options
@click.option("-o", "--output", type=options.PATH, help="Also write a list, a .csv file.")
@options.csv_safe_option
@click.option("--folders", type=options.PATH, help="Also make a folder for each cluster, in this folder.")
@click.option("--mode", type=click.Choice(["symlink", "hardlink", "copy"]), help="Content of the folders.  [symlink]")
@click.option("--sheets", type=options.PATH, help="Also write HTML pages with the photos, in this folder.")
@options.count_option("--min-photos", defaults.MIN_PHOTOS, "Photos of a cluster that gets a folder and a sheet.")
@click.option("--no-column", is_flag=True, help="Do not write /cluster into FILE.")
@click.option("--no-review", is_flag=True, help="Ignore the decisions in FILE.review.")
@options.seed_option(2**31 - 100)
@options.count_option("--max-pairs", defaults.MAX_LINKS, "Stop if more pairs are linked. 30 million take some 3 GB.")
@groups.all_pairs_options
@options.exclusive("-k", "--threshold")
@handle_errors
def main(
    file: Path, chosen: AttributeOptions, no_column: bool, no_review: bool, search: groups.AllPairsOptions, **given: Any
) -> None:
    """Group the photos in FILE by person. FILE is an embedding file of `facemill process`.

    With -k, photos are split by k-means (FAISS). Without it, photos whose score reaches the threshold are linked, and
    Chinese whispers finds the people in the graph (needs SciPy: the extra `cluster`). The calibration of FILE gives a
    threshold, if none is named (facemill evaluate --calibrate FILE); for very few photos, the model file does.

    After Ctrl-C or a crash the same command resumes, from FILE.pairs.parts. Every photo gets the number of its cluster,
    written into FILE as /cluster. Cluster 1 is the largest; a person with one photo is a cluster of one. Clusters obey
    what people decided in facemill serve. --force removes from --folders and --sheets only what their receipt.jsonl
    names, unchanged, and names anything else.

    \b
    Examples:
      facemill cluster people.h5 --threshold 0.5 -o people.csv
      facemill cluster people.h5 --folders people --mode hardlink --min-photos 3

    Exit codes: 0 done, 1 failure, 2 usage.
    """
    if given["mode"] and given["folders"] is None:
        raise click.UsageError("--mode is for --folders")
    setup_logging()
    from ..api.people import cluster

    given |= {"mode": given["mode"] or "symlink", "write_column": not no_column}
    given |= {"review": not no_review, **search.values(), **chosen.values()}
    with terminal() as job:
        report = cluster(file, **job, **given)
    outputs = (given["output"], given["folders"], given["sheets"], None if no_column else file)
    lines = [*cluster_lines(report), *cluster_outputs(report, *outputs)]
    print_summary("\n".join(map(printable, lines)), f"the photos of {file} are grouped")
    for warning in report.warnings:
        click.echo(f"WARNING: {warning}", err=True)
