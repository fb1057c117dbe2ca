"""Options: conflicts, option groups, and equal defaults on the command line and in Python."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import click
import pytest
from click.testing import CliRunner

from runtime import defaults
from runtime.api import engines, evaluation, jobs, pairs, people
from runtime.cli import groups, options
from runtime.cli.app import main
from runtime.estimate.estimate import estimate
from runtime.faces.rules import FaceRules
from runtime.images.decode import Limits
from runtime.search.search import Search
from runtime.storage.segments import SegmentRules

# These are paths or objects in Python and text on the command line, or only one side has a default.
_OTHER_TYPE_OR_NO_DEFAULT = ("output", "faces", "mode", "names")

ROOT = Path(__file__).resolve().parents[2]


def commands() -> list[str]:
    return main.list_commands(click.Context(main))


@click.command()
@groups.engine_options
@groups.detector_options
@click.option("-k", default=1)
@options.excludes("-k", "--align", "--detector", why="so it is")
def show(engine: groups.EngineOptions, detection: groups.DetectorOptions, k: int) -> None:
    click.echo(json.dumps([engine.values(), detection.values(), k], default=str))


def test_an_option_group_is_passed_as_a_frozen_object() -> None:
    result = CliRunner().invoke(show, ["--model", "sface", "--align", "none"])
    assert json.loads(result.output) == [
        {"engine": None, "model": "sface", "backend": "auto"},
        {"align": "none", "detector": None, "landmarks": None},
        1,
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        groups.DetectorOptions("auto", None, None).align = "none"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--engine", "a", "--model", "b"], ("--engine", "--model")),
        (["--backend", "auto", "--engine", "a"], ("--engine", "--backend")),
        (["-k", "1", "--detector", "x"], ("-k", "--detector", "so it is")),
    ],
)
def test_conflicting_options_are_refused_even_with_default_values(arguments: list[str], names: tuple[str, ...]) -> None:
    result = CliRunner().invoke(show, arguments)
    assert result.exit_code == 2
    for name in names:
        assert name in result.stderr


def read_defaults(command: str) -> dict[str, Any]:
    """Read a command's defaults by parameter name; None for options without a default."""
    subcommand = main.get_command(click.Context(main), command)
    assert subcommand is not None
    context, values = click.Context(subcommand), {}
    for option in subcommand.params:
        if isinstance(option, click.Option):
            declared_default = option.get_default(context)
            value = (
                declared_default if isinstance(declared_default, (str, int, float)) else None
            )  # click marks a missing default with an object
            values[str(option.name)] = option.callback(context, option, value) if option.callback else value
    return values


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("process", jobs.process),
        ("add", jobs.add),
        ("remove", jobs.remove),
        ("pairs", pairs.find_pairs),
        ("cluster", people.cluster),
        ("evaluate", evaluation.evaluate),
        ("build-engine", engines.build_engine),
        ("plan", estimate),
        ("search", Search.__init__),
        ("search", Search.find),
        ("process", FaceRules),
        ("process", Limits),
    ],
)
def test_the_command_line_and_the_library_have_the_same_defaults(command: str, function: Callable[..., Any]) -> None:
    cli_defaults = read_defaults(command)
    parameters = inspect.signature(function).parameters.items()
    shared_defaults = {
        name: parameter.default
        for name, parameter in parameters
        if name in cli_defaults and name not in _OTHER_TYPE_OR_NO_DEFAULT
    }
    assert len(shared_defaults) >= 2
    assert {name: value or None for name, value in shared_defaults.items()} == {
        name: cli_defaults[name] or None for name in shared_defaults
    }


def test_rules_and_limits_have_the_defaults_of_the_command_line() -> None:
    rules = FaceRules()
    assert (rules.align, rules.policy, rules.threshold) == (defaults.ALIGN, defaults.FACES, defaults.MIN_SCORE)
    assert (rules.min_iod, rules.min_sharpness) == (defaults.MIN_IOD_PX, defaults.MIN_SHARPNESS)
    assert rules.min_frontal == defaults.MIN_FRONTAL
    assert SegmentRules() == SegmentRules(defaults.SEGMENT_ROWS, defaults.SEGMENT_SECONDS)
    assert Limits() == Limits(defaults.MAX_BYTES, defaults.MAX_PIXELS)


@pytest.mark.parametrize("name", commands())
def test_a_command_is_short(name: str) -> None:
    path = ROOT / "runtime" / "cli" / f"{name.replace('-', '_')}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100, "a command only parses, calls and prints"


@pytest.mark.slow
def test_no_help_imports_an_array_package() -> None:
    code = (
        "import sys, click\nfrom runtime.cli.app import main\nctx = click.Context(main)\n"
        "for name in main.list_commands(ctx): main.get_command(ctx, name).get_help(ctx)\n"
        "print([name for name in ('numpy', 'h5py', 'cv2', 'rich', 'jinja2') if name in sys.modules])"
    )
    result = run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr
