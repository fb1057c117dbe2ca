"""`facemill models`: the models, and their files on this machine."""

from __future__ import annotations

import json

import click

from ..text import printable
from .common import handle_errors, setup_logging
from .tables import align

_FIELDS = ("name", "title", "dimension", "size", "licence", "accuracy", "accuracy_source", "trained", "sha256")


@click.group(name="models")
def main() -> None:
    """List, fetch and verify models.

    A model is a TOML file and an ONNX file. For a machine without a network, put both, or the ONNX files alone, into a
    folder and name it in FACEMILL_MODELS.

    Examples: facemill models list, facemill models fetch w600k_mbf
    """


@main.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per model.")
@handle_errors
def list_models(as_json: bool) -> None:
    """List the registered models, their licences, and their files."""
    setup_logging()
    from ..modelspec import list_specs
    from ..modelstore import find_weights

    for spec in list_specs():
        path = None if spec.generator else find_weights(spec)
        if as_json:
            names = (
                "name",
                "title",
                "dimension",
                "size",
                "licence",
                "accuracy",
                "accuracy_source",
                "trained",
                "sha256",
            )
            fields = {name: getattr(spec, name) for name in names}
            click.echo(json.dumps({**fields, "path": None if path is None else str(path)}))
            continue
        place = "generated when needed" if spec.generator else str(path or "not on this machine")
        click.echo(printable(f"{spec.name:<18} {spec.dimension:>4}-d  {spec.title}"))
        rows = [("accuracy", spec.accuracy), ("licence", spec.licence), ("file", place)]
        click.echo("\n".join(map(printable, align(rows, indent=4))))


@main.command()
@click.argument("name")
@handle_errors
def fetch(name: str) -> None:
    """Download a model into the cache; the same command resumes a broken download."""
    setup_logging()
    from ..engines.weights import weights_for
    from ..modelspec import load_spec

    spec = load_spec(name)
    path = weights_for(spec)
    click.echo(f"licence: {printable(spec.licence)}", err=True)
    click.echo(printable(str(path)))


@main.command()
@click.argument("name", required=False)
@handle_errors
def verify(name: str | None) -> None:
    """Check the checksum of every model on this machine, or of the one named. Exit 1 if one is wrong or missing."""
    setup_logging()
    from ..errors import ModelError
    from ..modelspec import list_specs, load_spec
    from ..modelstore import check_weights, find_weights

    failed = False
    for spec in [load_spec(name)] if name else [spec for spec in list_specs() if not spec.generator]:
        path = find_weights(spec)
        if path is None:
            command = f"facemill models fetch {spec.name}" if spec.url else "no download address is known"
            click.echo(f"{spec.name:<18} not on this machine ({command})")
            failed |= name is not None
            continue
        note = "" if spec.sha256 else "  (the model file states no sha256: only that it is there)"
        result = f"right  {path}{note}"
        try:
            check_weights(spec, path)
        except ModelError as err:
            result, failed = f"WRONG  {err.message}", True
        click.echo(printable(f"{spec.name:<18} {result}"))
    raise SystemExit(failed)
