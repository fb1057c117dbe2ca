"""JSON and TOML into dataclasses: every mistake is named with its key, its value and what was expected."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from runtime import schema
from runtime.schema import Annotated, Rule, convert, parse_json, parse_toml, read_json, read_toml
from tests.support.errors import Values, raises

EVEN = Rule("an even number", lambda number: number % 2 == 0)


@dataclass(frozen=True, slots=True)
class Inner:
    size: int


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    width: Annotated[int, EVEN]
    ratio: float = 1.0
    points: tuple[int, ...] = ()
    inner: Inner | None = None
    height: Annotated[int, EVEN] | None = None


def test_values_are_read_into_the_dataclass() -> None:
    complete = Outer("a", 2, 3.0, (1, 2), Inner(5), 4)
    assert (
        read_json('{"name": "a", "width": 2, "ratio": 3, "points": [1, 2], "inner": {"size": 5}, "height": 4}', Outer)
        == complete
    )
    toml = 'name = "a"\nwidth = 2\nratio = 3\npoints = [1, 2]\nheight = 4\n[inner]\nsize = 5'
    assert read_toml(toml, Outer) == complete
    assert isinstance(read_toml(toml, Outer).ratio, float)
    assert read_json('{"name": "a", "width": 2}', Outer) == Outer("a", 2)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{", ("JSON",)),
        ("[1]", ("[1]", "Outer")),
        ('{"width": 2}', ("name",)),
        ('{"name": "a"}', ("width", "an even number")),
        ('{"name": 3, "width": 2}', ("name", 3)),
        ('{"name": "a", "width": true}', ("width", True, "an even number")),
        ('{"name": "a", "width": 3}', ("width", 3, "an even number")),
        ('{"name": "a", "width": 2, "height": 3}', ("height", 3, "an even number")),
        ('{"name": "a", "width": 2, "ratio": "1"}', ("ratio", "'1'")),
        ('{"name": "a", "width": 2, "points": [1, "2"]}', ("points", "[1, '2']", "`int`")),
        ('{"name": "a", "width": 2, "inner": {"size": "5"}}', ("inner", "{'size': '5'}", "`int`")),
        ('{"name": "a", "width": 2, "inner": {"size": 5, "x": 1}}', ("x", "size")),
        ('{"name": "a", "width": 2, "colour": 1}', ("colour", "name", "width")),
    ],
)
def test_every_mistake_is_named(text: str, values: Values) -> None:
    with raises(ValueError, *values):
        read_json(text, Outer)


def test_unknown_keys_may_be_ignored() -> None:
    assert convert({"name": "a", "width": 2, "colour": 1}, Outer, unknown=True) == Outer("a", 2)


def test_invalid_toml_is_reported() -> None:
    with raises(ValueError, "TOML"):
        read_toml("name =", Outer)


@pytest.mark.parametrize("parse", [parse_json, parse_toml])
def test_values_nested_too_deeply_are_reported(parse: Callable[[str], object]) -> None:
    text = "[" * 5000 + "]" * 5000
    with pytest.raises(ValueError, match="it is not"):
        parse(text if parse is parse_json else f"a = {text}")


def test_the_example_in_the_docstring_works() -> None:
    assert doctest.testmod(schema).failed == 0
