"""Options: what excludes what, groups as objects, and the same defaults on the command line as in Python."""

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
from runtime.api import engines, evaluation, jobs, people
from runtime.cli import groups, options
from runtime.cli.app import main
from runtime.estimate.estimate import estimate
from runtime.faces.rules import FaceRules
from runtime.images.decode import Limits
from runtime.search.search import Search
from runtime.storage.segments import SegmentRules

# These are paths or objects in Python, and text on the command line; or have no default here alone.
_OF_ANOTHER_TYPE = ("output", "faces", "mode", "names")

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


def test_a_group_reaches_the_command_as_one_frozen_object() -> None:
    done = CliRunner().invoke(show, ["--model", "sface", "--align", "none"])
    assert json.loads(done.output) == [
        {"engine": None, "model": "sface", "backend": "auto"},
        {"align": "none", "detector": None},
        1,
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        groups.DetectorOptions("auto", None).align = "none"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--engine", "a", "--model", "b"], ("--engine", "--model")),
        (["--backend", "auto", "--engine", "a"], ("--engine", "--backend")),
        (["-k", "1", "--detector", "x"], ("-k", "--detector", "so it is")),
    ],
)
def test_options_that_exclude_each_other_are_refused_even_with_their_default(
    arguments: list[str], named: tuple[str, ...]
) -> None:
    done = CliRunner().invoke(show, arguments)
    assert done.exit_code == 2
    for name in named:
        assert name in done.stderr


def defaults_of(command: str) -> dict[str, Any]:
    """By the name of the command's parameter; None for options without a default."""
    found = main.get_command(click.Context(main), command)
    assert found is not None
    context, values = click.Context(found), {}
    for option in found.params:
        if isinstance(option, click.Option):
            default = option.get_default(context)
            value = default if isinstance(default, (str, int, float)) else None  # click has a mark of its own for none
            values[str(option.name)] = option.callback(context, option, value) if option.callback else value
    return values


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("process", jobs.process),
        ("add", jobs.add),
        ("remove", jobs.remove),
        ("pairs", people.find_pairs),
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
    typed = defaults_of(command)
    parameters = inspect.signature(function).parameters.items()
    both = {name: found.default for name, found in parameters if name in typed and name not in _OF_ANOTHER_TYPE}
    assert len(both) >= 2
    assert {name: value or None for name, value in both.items()} == {name: typed[name] or None for name in both}


def test_rules_of_faces_and_segments_have_the_defaults_of_the_command_line() -> None:
    rules = FaceRules()
    assert (rules.align, rules.policy, rules.threshold) == (defaults.ALIGN, defaults.FACES, defaults.MIN_SCORE)
    assert (rules.min_iod, rules.min_sharpness) == (defaults.MIN_IOD_PX, defaults.MIN_SHARPNESS)
    assert rules.min_frontal == defaults.MIN_FRONTAL
    assert SegmentRules() == SegmentRules(defaults.SEGMENT_ROWS, defaults.SEGMENT_SECONDS)
    assert Limits() == Limits(defaults.MAX_BYTES, defaults.MAX_PIXELS)


@pytest.mark.parametrize("name", commands())
def test_a_command_is_short(name: str) -> None:
    path = ROOT / "runtime" / "cli" / f"{name.replace('-', '_')}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100, "parse, call, print; the rest is the library's"


def test_no_help_imports_an_array_package() -> None:
    code = (
        "import sys, click\nfrom runtime.cli.app import main\nctx = click.Context(main)\n"
        "for name in main.list_commands(ctx): main.get_command(ctx, name).get_help(ctx)\n"
        "print([name for name in ('numpy', 'h5py', 'cv2', 'rich', 'jinja2') if name in sys.modules])"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
