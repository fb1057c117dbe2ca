"""Read JSON and TOML into frozen dataclasses, with an error that names the key, the value and what was expected.

The dataclass is the schema: its annotations are the types, and fields with a default may be missing. A value with
further requirements has a `Rule`. msgspec converts and checks.

Example:
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Camera:
    ...     name: str
    ...     width: int = 640
    >>> read_toml('name = "gate"', Camera)
    Camera(name='gate', width=640)
    >>> read_json(b'{"name": "gate", "width": "wide"}', Camera)
    Traceback (most recent call last):
    ...
    ValueError: width is 'wide'; expected: a whole number
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated as Annotated  # schemas import it from here
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")

_PLAIN = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A requirement of a value, for `Annotated[type, RULE]`. None, if the type allows it, is never checked.

    Make it a constant of the module, because a lambda in an annotation cannot see the module's names.

    Attributes:
        expected: the requirement as text, for the error.
        holds: whether a value of the right type is valid; None: every value is.
    """

    expected: str
    holds: Callable[[Any], object] | None = None


def read_json(content: bytes | str, kind: type[T]) -> T:
    """Read a JSON object into a dataclass.

    Raises:
        ValueError: the content is not JSON, or does not match the dataclass.
    """
    return convert(parse_json(content), kind)


def read_toml(content: str, kind: type[T]) -> T:
    """Read a TOML document into a dataclass.

    Raises:
        ValueError: the content is not TOML, or does not match the dataclass.
    """
    return convert(parse_toml(content), kind)


def parse_json(content: bytes | str) -> Any:
    """Read JSON into dicts, lists, text and numbers.

    Raises:
        ValueError: the content is not JSON.
    """
    import msgspec

    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError) as err:
        raise ValueError(f"it is not JSON: {err}") from err


def parse_toml(content: str) -> dict[str, Any]:
    """Read TOML into dicts, lists, text and numbers.

    Raises:
        ValueError: the content is not TOML.
    """
    import msgspec

    try:
        return dict(msgspec.toml.decode(content))
    except (msgspec.MsgspecError, RecursionError) as err:
        raise ValueError(f"it is not TOML: {err}") from err


def convert(raw: Any, kind: type[T], *, unknown: bool = False) -> T:
    """Convert parsed JSON or TOML into a dataclass. Lists become tuples where the dataclass has tuples.

    Args:
        raw: an object.
        kind: the dataclass.
        unknown: whether to ignore unknown keys.
    Raises:
        ValueError: a key is missing or unknown, or a value is wrong.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"it is {raw!r:.80}; expected: an object with the keys of {kind.__name__}")
    members = {member.name: member for member in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind, include_extras=True)
    if not unknown:
        _check_keys(raw, kind)
    for name, member in members.items():
        if name not in raw and member.default is MISSING and member.default_factory is MISSING:
            raise ValueError(f"{name} is missing; expected: {_expected(hints[name])}")
    import msgspec

    try:
        result = msgspec.convert(raw, kind)
    except msgspec.ValidationError as err:
        raise _type_error(err, raw, hints) from err
    for name in members:
        rule, value = _rule(hints[name]), getattr(result, name)
        if rule is not None and rule.holds is not None and value is not None and not rule.holds(value):
            raise ValueError(f"{name} is {raw.get(name, value)!r}; expected: {rule.expected}")
    return result


def _check_keys(raw: Mapping[str, Any], kind: Any) -> None:
    """Reject keys that the dataclass, or a nested one, does not have. msgspec ignores them."""
    names = [member.name for member in fields(kind)]
    unknown = sorted(map(str, raw.keys() - set(names)))
    if unknown:
        raise ValueError(f"the key {unknown[0]!r} is unknown; expected: {', '.join(names)}")
    for name, hint in get_type_hints(kind).items():
        for part in (hint, *getattr(hint, "__args__", ())):
            if is_dataclass(part) and isinstance(raw.get(name), Mapping):
                _check_keys(raw[name], part)


def _type_error(err: Exception, raw: Mapping[str, Any], hints: Mapping[str, Any]) -> ValueError:
    """The error for a value of the wrong type, with the value and the key from msgspec."""
    text, _, location = str(err).partition(" - at `$.")
    name = re.split(r"[.\[`]", location)[0]
    if name not in hints or name not in raw:
        return ValueError(text)
    return ValueError(f"{name} is {raw[name]!r}; expected: {_expected(hints[name], text)}")


def _expected(hint: Any, text: str = "") -> str:
    """The expected value of a key as text: from its rule, its plain type, or msgspec."""
    rule = _rule(hint)
    if rule is not None:
        return rule.expected
    return _PLAIN.get(hint) or text.removeprefix("Expected ") or str(hint)


def _rule(hint: Any) -> Rule | None:
    """The rule in a type, also in a type that allows None."""
    for part in (hint, *getattr(hint, "__args__", ())):
        for annotation in getattr(part, "__metadata__", ()):
            if isinstance(annotation, Rule):
                return annotation
    return None
