"""`facemill plan`: estimate the time, disk and memory of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..counts import LARGEST_DIMENSION
from ..sources.kinds import passed_over_text
from ..text import printable
from . import groups, options
from .common import handle_errors, setup_logging

if TYPE_CHECKING:
    from ..estimate.estimate import Estimate


@click.command(name="plan")
@click.argument("photos", nargs=-1, metavar="[PHOTOS...]")
@click.option("--count", type=options.Count(), help="Number of photos, if PHOTOS are not on this machine.")
@click.option("--engine", type=options.PATH, help="Engine file made by build-engine.")
@click.option("--model", help="Registered model or model file (PATH.toml).  [default: as for facemill process]")
@click.option(
    "--dimension", type=options.Count(1, LARGEST_DIMENSION), help="Numbers in an embedding.  [default: the model's]"
)
@groups.pattern_options
@groups.dtype_option
@groups.align_option
@options.output_option
@click.option("--gpu-memory", type=options.Number(min=0, min_open=True), help="Free memory of the target GPU, in GB.")
@options.json_option
@options.exclusive("--engine", "--model", why="an engine is built from one model")
@handle_errors
def main(
    photos: tuple[str, ...],
    count: int | None,
    engine: Path | None,
    model: str | None,
    dimension: int | None,
    dtype: str,
    align: str,
    output: Path,
    gpu_memory: float | None,
    patterns: groups.PatternOptions,
    as_json: bool,
) -> None:
    """Estimate the time, disk and memory that embedding, searching and comparing N photos takes.

    Nothing is written. What can be measured on this machine is measured, in some ten seconds: the rate of embedding on
    photos drawn from PHOTOS, or, with --count alone, that of the engines; matrix products; memory. The rest is
    computed. A guess is called a guess, and what does not fit comes with what to do.

    \b
    Examples:
      facemill plan photos/ --model sface
      facemill plan --count 5000000
      facemill plan --count 5000000 --dimension 512 --gpu-memory 6 --json

    Exit codes: 0 planned, whether it fits or not; 1 failure, 2 usage.
    """
    if bool(photos) == (count is not None):
        raise click.UsageError("name PHOTOS, or their number with --count N; expected: one of them")
    setup_logging()
    from ..engines.engine import read_engine
    from ..estimate.estimate import estimate

    job = estimate(
        photos, count=count, patterns=patterns.patterns(), engine=None if engine is None else read_engine(engine),
        model=model, align=align,
        dimension=dimension, dtype=dtype, output=output, gpu_bytes=int(gpu_memory * 1e9) if gpu_memory else None,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(job.to_dict()))
    else:
        click.echo("\n".join(_report(job)))


def _report(estimate: Estimate) -> Iterator[str]:
    job, section = estimate.job, ""
    photos = "whole photos" if job.faces else "aligned crops"
    yield f"{job.photographs:,} {photos} by {printable(estimate.model)}: {job.dimension} numbers each, {job.dtype}"
    if estimate.passed_over:
        yield f"  {printable(passed_over_text(tuple(estimate.passed_over.items())))}"
    for item in estimate.items:
        if item.section != section:
            yield (section := item.section)
        basis = "" if item.basis == "computed" else f"{item.basis}: "
        yield f"  {item.name:<20}  {item.amount():>12}  {printable(basis + item.words)}".rstrip()
        if item.problem:
            yield click.style(f"  {'':<20}  {'':>12}  {printable(item.problem)}", fg="red")
    if estimate.machine.gpu_bytes is None:
        yield f"gpu\n  {printable(estimate.machine.gpu)}"
    problems = ", ".join(estimate.problems)
    yield f"problems: {problems}" if problems else "all of it fits on this machine"
