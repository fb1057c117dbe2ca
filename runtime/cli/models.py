"""`facemill models`: which models there are, and their files on this machine."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from ..text import printable
from .common import handle_errors, setup_logging

if TYPE_CHECKING:
    from ..modelspec import ModelSpec


@click.group(name="models")
def main() -> None:
    """List, fetch and verify models.

    A model is a TOML file (tensor names, crop, mean and scale, licence, accuracy, checksum) and an ONNX file. For a
    machine without a network, put both, or the ONNX files alone, into a folder and name it in FACEMILL_MODELS.

    \b
    Examples:
      facemill models list
      facemill models fetch w600k_mbf
      facemill models verify
    """


@main.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a model.")
@handle_errors
def list_models(as_json: bool) -> None:
    """Registered models, their licences, and where their files are."""
    setup_logging()
    from ..modelspec import list_specs
    from ..modelstore import find_weights

    for spec in list_specs():
        found = None if spec.generator else find_weights(spec)
        place = "generated when needed" if spec.generator else str(found or "not on this machine")
        if as_json:
            fields = {"name": spec.name, "title": spec.title, "dimension": spec.dimension, "size": spec.size}
            fields |= {"licence": spec.licence, "accuracy": spec.accuracy, "accuracy_source": spec.accuracy_source}
            click.echo(
                json.dumps({**fields, "trained": spec.trained, "sha256": spec.sha256, "path": found and str(found)})
            )
            continue
        click.echo(printable(f"{spec.name:<18} {spec.dimension:>4}-d  {spec.title}"))
        for label, value in (("accuracy", spec.accuracy), ("licence", spec.licence), ("file", place)):
            click.echo(printable(f"    {label:<9} {value}"))


@main.command()
@click.argument("name")
@handle_errors
def fetch(name: str) -> None:
    """Download a model into the cache; a broken download goes on where it stopped."""
    setup_logging()
    from ..engines.weights import weights_for
    from ..modelspec import load_spec
    from ..progress import LiveLine

    spec = load_spec(name)
    path = weights_for(spec, LiveLine())
    click.echo(f"licence: {printable(spec.licence)}", err=True)
    click.echo(printable(str(path)))


@main.command()
@click.argument("name", required=False)
@handle_errors
def verify(name: str | None) -> None:
    """Check the checksum of every model on this machine, or of the one named. Exit 1 when one is wrong or missing."""
    setup_logging()
    from ..modelspec import list_specs, load_spec

    specs = [load_spec(name)] if name else [spec for spec in list_specs() if not spec.generator]
    wrong = [spec.name for spec in specs if not _is_right(spec, wanted=name is not None)]
    sys.exit(1 if wrong else 0)


def _is_right(spec: ModelSpec, *, wanted: bool) -> bool:
    """Say how one model's file is; missing is wrong only for the one that was named."""
    from ..errors import ModelError
    from ..modelstore import check_weights, find_weights

    path = find_weights(spec)
    if path is None:
        how = f"facemill models fetch {spec.name}" if spec.url else "no download address is known"
        click.echo(f"{spec.name:<18} not on this machine ({how})")
        return not wanted
    try:
        check_weights(spec, path)
    except ModelError as err:
        click.echo(printable(f"{spec.name:<18} WRONG  {err.message}"))
        return False
    note = "" if spec.sha256 else "  (the model file states no sha256: only that it is there)"
    click.echo(printable(f"{spec.name:<18} right  {path}{note}"))
    return True
