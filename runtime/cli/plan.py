"""`facemill plan`: what will a job take?"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..text import printable
from .common import handle_errors, setup_logging
from .engines import engine_option, given_engine

if TYPE_CHECKING:
    from ..estimate.plan import Item, Rate
    from ..sources.source import FileSource


@click.command(name="plan")
@click.argument("photos", nargs=-1, metavar="[PHOTOS...]")
@click.option("--photographs", type=click.IntRange(min=1), help="How many there will be, where PHOTOS are not here.")
@engine_option
@click.option("--model", help="A registered model or PATH.toml. [that of facemill process]")
@click.option("--dimension", type=click.IntRange(min=1), help="Numbers in an embedding. [the model's]")
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option(
    "--portraits/--crops", "portraits", default=True, show_default=True, help="Whether faces have to be looked for."
)
@click.option("-o", "--output", default="facial_embeddings.h5", show_default=True, type=click.Path(path_type=Path))
@click.option("--gpu-memory", type=click.FloatRange(min=0, min_open=True), metavar="GB", help="Free, of a GPU to be.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@handle_errors
def main(
    photos: tuple[str, ...],
    photographs: int | None,
    engine: Path | None,
    model: str | None,
    dimension: int | None,
    dtype: str,
    portraits: bool,
    output: Path,
    gpu_memory: float | None,
    as_json: bool,
) -> None:
    """Say what embedding, searching and comparing N photographs will take in time, disk and memory.

    Nothing is written. What can be measured on this machine is measured, in some ten seconds: the rate of embedding on
    photographs drawn from PHOTOS, or, with --photographs alone, that of the engines; matrix products; memory. The rest
    is computed. What is only a guess says so, and what will not fit is said with what to do.

    \b
    Examples:
      facemill plan photos/ --model sface
      facemill plan --photographs 5000000
      facemill plan --photographs 5000000 --dimension 512 --gpu-memory 6 --json

    Exit codes: 0 planned, whether it fits or not; 1 failure, 2 usage.
    """
    if bool(photos) == (photographs is not None):
        raise click.UsageError("name PHOTOS, or their number with --photographs N; wanted: one of them")
    if engine is not None and model is not None:
        raise click.UsageError("--engine and --model exclude each other: an engine is built from one model")
    setup_logging()
    from ..errors import ConfigError
    from ..estimate.machine import gpu_here, look
    from ..estimate.plan import Job, items_json, plan_job
    from ..sources.scan import scan
    from ..sources.source import FileSource

    folder = output.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} for {output.name}. Make it, or name another one with -o")
    scanned = scan(photos) if photos else FileSource(b"/", [])
    name, model_dimension, rate = _embedding(engine, model, portraits, scanned)
    gpu_bytes, gpu = (int(gpu_memory * 1e9), "as named") if gpu_memory else gpu_here()
    job = Job(
        photographs=photographs or len(scanned.names),
        dimension=dimension or model_dimension,
        dtype=dtype,
        faces=portraits,
        longest=max(map(len, scanned.names), default=64),
    )
    machine = look(folder, job.dimension, rate, gpu_bytes, gpu)
    items = plan_job(job, machine)
    problems = [f"{item.section} ({item.name})" for item in items if item.problem]
    if as_json:
        facts = {key: value for key, value in asdict(machine).items() if key != "rate"}
        found = {**asdict(job), "model": name, "fits": not problems, "machine": facts}
        click.echo(json.dumps({**found, **items_json(items)}))
        return
    what = "whole photographs" if portraits else "aligned crops"
    click.echo(f"{job.photographs:,} {what} by {printable(name)}: {job.dimension} numbers each, {dtype}")
    for line in _lines(items):
        click.echo(line)
    if gpu_bytes is None:
        click.echo(f"gpu\n  {printable(gpu)}")
    click.echo(f"wants something done: {', '.join(problems)}" if problems else "all of it fits on this machine")


def _embedding(
    engine: Path | None, model: str | None, portraits: bool, found: FileSource
) -> tuple[str, int, Callable[[float], Rate]]:
    """The model's name and dimension, and how its rate is to be had, given the machine's products a second."""
    from ..estimate.machine import find_built, guessed_rate, rate_of_engines, rate_of_photographs
    from ..faces.rules import FaceRules
    from ..modelspec import load_spec
    from ..modelstore import default_detector, default_model
    from ..search.embedder import QueryRules

    spec = None if engine else load_spec(model or default_model())
    built = given_engine(engine) or (find_built(spec) if spec else None)
    if built is None:
        assert spec is not None
        return spec.name, spec.dimension, lambda flops: guessed_rate(flops, spec.name)
    info = built.info
    finder = load_spec(default_detector()) if portraits else None
    detector = find_built(finder) if finder else None
    if finder and detector is None:
        return info.model, info.dimension, lambda flops: guessed_rate(flops, finder.name)
    if not found.names:
        return info.model, info.dimension, lambda _: rate_of_engines(built, detector)
    rules = QueryRules(built, detector, FaceRules("auto" if portraits else "none"))
    paths = [os.path.join(found.root, path) for path in found.names]
    return info.model, info.dimension, lambda _: rate_of_photographs(rules, paths)


def _lines(items: list[Item]) -> Iterator[str]:
    """A table, by section."""
    section = ""
    for item in items:
        if item.section != section:
            section = item.section
            yield section
        basis = "" if item.basis == "computed" else f"{item.basis}: "
        yield f"  {item.name:<20}  {item.amount():>12}  {printable(basis + item.words)}".rstrip()
        if item.problem:
            yield click.style(f"  {'':<20}  {'':>12}  {printable(item.problem)}", fg="red")
