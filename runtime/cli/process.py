"""`facemill process`: photographs to an embedding file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import handle_errors, setup_logging
from .engines import chosen_engine, engine_option, model_options
from .faces import detector_for, face_options, face_rules

if TYPE_CHECKING:
    from ..pipeline.summary import Summary


def _auto_or_count(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """`auto` (None) or a whole number from 1."""
    if value == "auto":
        return None
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'auto' nor a whole number from 1", ctx, param)


@click.command(name="process")
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option("-o", "--output", default="facial_embeddings.h5", show_default=True, type=click.Path(path_type=Path))
@engine_option
@model_options
@click.option(
    "--decoder",
    type=click.Choice(["auto", "opencv", "dali"]),
    default="auto",
    show_default=True,
    help="auto: DALI on the GPU for a TensorRT engine, if it is installed.",
)
@face_options
@click.option(
    "--batch-size",
    default="auto",
    show_default=True,
    metavar="auto|N",
    callback=_auto_or_count,
    help="Images in one engine call.",
)
@click.option(
    "--workers",
    default="auto",
    show_default=True,
    metavar="auto|N",
    callback=_auto_or_count,
    help="Threads that decode.",
)
@click.option("--skip-duplicates", is_flag=True, help="Leave out files that are the same to the byte.")
@click.option("--retry", is_flag=True, help="Run failed photographs again.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N photographs in scan order.")
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--max-bytes", type=click.IntRange(min=1), default=64 << 20, show_default=True, help="Of one file.")
@click.option("--max-pixels", type=click.IntRange(min=1), default=100_000_000, show_default=True, help="Of one image.")
@click.option("--segment-rows", type=click.IntRange(min=1), default=250_000, show_default=True, hidden=True)
@click.option("--segment-seconds", type=click.FloatRange(min=0.1), default=60.0, show_default=True, hidden=True)
@click.option("--devices", default="", metavar="D,D...", help="One process each: numbers of GPUs, or cpu.")
@click.option("--force", is_flag=True, help="Start over; replace the output once the new one is whole.")
@click.option("--strict", is_flag=True, help="Exit 1 if any photograph failed.")
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="Also write the log to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON on stdout.")
@handle_errors
def main(
    photos: tuple[str, ...],
    output: Path,
    engine: Path | None,
    model: str | None,
    backend: str,
    decoder: str,
    batch_size: int | None,
    workers: int | None,
    skip_duplicates: bool,
    retry: bool,
    limit: int | None,
    dtype: str,
    max_bytes: int,
    max_pixels: int,
    segment_rows: int,
    segment_seconds: float,
    devices: str,
    force: bool,
    strict: bool,
    log_file: Path | None,
    as_json: bool,
    align: str,
    detector: str | None,
    **faces: Any,
) -> None:
    """Embed face photographs into one searchable file.

    PHOTOS are folders (searched with all below them), single files, or @list.txt (one path a line, relative to
    the list). The run may be stopped or killed at any moment: the same command goes on where it stopped.
    SIGUSR1 pauses it and lets it go on.

    \b
    Examples:
      facemill process photos/ -o people.h5
      facemill process @list.txt --model sface --limit 1000 --json
      facemill process crops/ -o people.h5 --align none  # aligned crops already: no detector is needed
      facemill process photos/ -o people.h5 --retry      # failed ones again

    Exit codes: 0 finished, 1 failure (or failed photographs with --strict), 2 usage, 130 and 143 stopped by signal.
    """
    if engine is not None and model is not None:
        raise click.UsageError("--engine and --model exclude each other: an engine is built from one model")
    if engine is not None and backend != "auto":
        raise click.UsageError("--engine and --backend exclude each other: an engine is built for one backend")
    setup_logging(log_file=log_file)
    from ..cuda.device import choose_gpus
    from ..errors import ConfigError
    from ..images.decode import Limits
    from ..interrupt import SignalControl
    from ..pipeline.plan import begun_with
    from ..pipeline.request import Request, RunOptions
    from ..pipeline.run import process
    from ..progress import LiveLine
    from ..storage.segments import SegmentRules

    try:
        on = choose_gpus(devices.split(","))
    except ConfigError as err:
        raise click.UsageError(err.message) from err
    backend = "cpu" if "cpu" in on and backend == "auto" else backend
    begun = begun_with(output, force=force)
    embedder = chosen_engine(engine, model, backend, begun=begun.model or "")
    info = embedder.info
    request = Request(
        inputs=photos,
        output=output,
        engine=embedder,
        faces=face_rules(align, **faces),
        detector=detector_for(detector, align, info.backend, begun=begun.detector or ""),
        skip_duplicates=skip_duplicates,
        retry=retry,
        limit=limit,
        dtype=dtype,
        decoder=decoder,
        force=force,
        limits=Limits(max_bytes, max_pixels),
        run=RunOptions(batch_size, workers, on, SegmentRules(segment_rows, segment_seconds)),
    )
    with SignalControl() as control:
        summary = process(request, listener=LiveLine(), control=control)
    click.echo(_report(summary, output), err=True)
    if as_json:
        made_by = {"model": info.model, "model_sha256": info.model_sha256}
        click.echo(json.dumps({**asdict(summary), **made_by, "output": str(output)}))
    if strict and summary.failed:
        raise SystemExit(1)


def _report(summary: Summary, output: Path) -> str:
    """The summary for a person."""
    lines = [f"{output}: {summary.embedded:,} of {summary.scanned:,} photographs embedded"]
    lines += [f"  {name}: {count:,}" for name, count in summary.outcomes.items()]
    if summary.failed:
        lines.append("  why, by path: /outcomes in the file; run them again with --retry")
    if summary.processed:
        lines.append(
            f"{summary.processed:,} in this run, {summary.images_per_s:,.0f} images/s ({summary.elapsed_s:.1f} s "
            f"with start-up), {summary.verdict}"
        )
        for name, stage in summary.stages.items():
            lines.append(
                f"  {name:<12} {stage['images_per_s']:>10,.0f} images/s on {stage['workers']:.0f} threads, "
                f"busy {100 * stage['busy']:.0f} %"
            )
    else:
        lines.append("nothing to do: all of them were done before")
    if summary.warning:
        lines.append(f"WARNING: {summary.warning}")
    return "\n".join(lines)
