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
from runtime.errors import ConfigError
from runtime.estimate.estimate import estimate
from runtime.faces.rules import FaceRules
from runtime.images.decode import Limits
from runtime.search.hits import FindOptions
from runtime.search.search import Search
from runtime.storage.segments import SegmentRules
from tests.support.errors import USAGE, assert_refused, raises
from tests.support.facemill_command import facemill

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
            value = None if value is None else option.type_cast_value(context, value)
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


def bounded_numbers() -> list[tuple[str, click.Option]]:
    """Every option of every command that takes a whole number, or a number within a range, with the command."""
    found = []
    for name in commands():
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and isinstance(option.type, (type(click.INT), click.FloatRange)):
                found.append((name, option))
    return found


def test_every_number_is_finite_and_fits_into_a_file() -> None:
    assert len(bounded_numbers()) > 30
    for command, option in bounded_numbers():
        whole = isinstance(option.type, type(click.INT))
        for value in ("9" * 20, "9" * 5000, str(2**63)) if whole else ("nan", "inf", "-inf", "1e999"):
            context = click.Context(click.Command(command))
            with pytest.raises(click.BadParameter) as caught:
                option.process_value(context, (value,) if option.multiple else value)
            assert caught.value.param is option


@pytest.mark.parametrize("value", [0, 2**63, 10**30, 1.5, True, "1"])
def test_the_library_refuses_counts_that_no_file_can_store(value: Any, tmp_path: Path) -> None:
    for name in ("max_bytes", "max_pixels"):
        with raises(ConfigError, name):
            Limits(**{name: value})
    with raises(ConfigError, "max_rows"):
        SegmentRules(value)
    with raises(ConfigError, "k"):
        FindOptions(value)
    for name in ("limit", "workers", "batch_size"):
        with raises(ConfigError, name.replace("_", "-")):
            jobs.process(tmp_path, tmp_path / "o.h5", model="random-128", faces=FaceRules("none"), **{name: value})
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_no_file_can_store_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    for option in ("--limit", "--max-bytes", "--max-pixels", "--max-unreadable", "--workers", "--batch-size"):
        done = facemill("process", tmp_path, "-o", output, "--model", "random-128", option, 10**20)
        assert_refused(done, USAGE, option)
    for arguments in (["plan", "--count", "5", "--dimension", 10**6], ["build-engine", "--batch", f"1,1,{10**20}"]):
        assert facemill(*arguments).returncode == 2
    assert list(tmp_path.iterdir()) == []
