"""The options that say which engine, which several commands share, and the engine behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..engines.engine import Engine

engine_option = click.option("--engine", type=click.Path(path_type=Path), help="An engine file from build-engine.")
_MODEL = (
    click.option(
        "--model",
        help="A registered model or PATH.toml; its engine is built when needed. "
        "[w600k_mbf if its file is on this machine, else facemill-512, which is shipped; a file that goes on keeps its "
        "own]",
    ),
    click.option(
        "--backend",
        type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
        default="auto",
        show_default=True,
        help="For --model. auto takes the fastest that this machine runs; a named one never falls back.",
    ),
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--model`, None where it is not given, and `--backend` to a command."""
    for option in reversed(_MODEL):
        command = option(command)
    return command


def given_engine(path: Path | None) -> Engine | None:
    """The engine of `--engine`; None where the option is not given."""
    from ..engines.engine import read_engine

    return None if path is None else read_engine(path)


def chosen_engine(path: Path | None, model: str | None, backend: str, *, begun: str = "") -> Engine:
    """The engine of `--engine`, or that of `--model` and `--backend`; see `engine_for`."""
    return given_engine(path) or engine_for(model, backend, begun=begun)


def engine_for(model: str | None, backend: str, *, begun: str = "", detects: bool = False) -> Engine:
    """The engine of a model, or of the default one, built when there is none that is up to date.

    Args:
        model: registered name or PATH.toml; None for the default one.
        backend: as the option says.
        begun: the model that the file in question was begun with; empty where there is none.
        detects: it is to find faces: what the words say when a model file is missing.
    """
    from ..assets import cache_dir
    from ..engines.build import build_engine
    from ..engines.weights import weights_for
    from ..modelspec import load_spec
    from ..modelstore import default_model

    spec = load_spec(model or default_model(begun), detects=detects)
    return build_engine(spec, weights_for(spec), backend=backend, output=cache_dir("engines")).engine
