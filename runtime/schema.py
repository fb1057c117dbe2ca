"""Read JSON and TOML into frozen dataclasses, with an error that names the key, the value and what was expected.

The dataclass is the schema: its annotations say the types, its defaults what may be missing. A value that has to be
more than its type says carries a `Rule`. msgspec converts and checks.

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
from typing import Annotated as Annotated  # schemas take it from here
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")

_PLAIN = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value has to be, for `Annotated[type, RULE]`. None, where the type allows it, is never checked.

    Make it a constant of the module: a lambda in an annotation does not see the module's names.

    Attributes:
        expected: in words, for the error.
        holds: whether a value of the right type is one; None: every one is.
    """

    expected: str
    holds: Callable[[Any], object] | None = None


def read_json(content: bytes | str, kind: type[T]) -> T:
    """Read a JSON object into a dataclass.

    Raises:
        ValueError: it is not JSON, or not what the dataclass says.
    """
    return convert(parse_json(content), kind)


def read_toml(content: str, kind: type[T]) -> T:
    """Read a TOML document into a dataclass.

    Raises:
        ValueError: it is not TOML, or not what the dataclass says.
    """
    return convert(parse_toml(content), kind)


def parse_json(content: bytes | str) -> Any:
    """Read JSON into dicts, lists, text and numbers.

    Raises:
        ValueError: it is not JSON.
    """
    import msgspec

    try:
        return msgspec.json.decode(content)
    except msgspec.MsgspecError as err:
        raise ValueError(f"it is not JSON: {err}") from err


def parse_toml(content: str) -> dict[str, Any]:
    """Read TOML into dicts, lists, text and numbers.

    Raises:
        ValueError: it is not TOML.
    """
    import msgspec

    try:
        return dict(msgspec.toml.decode(content))
    except msgspec.MsgspecError as err:
        raise ValueError(f"it is not TOML: {err}") from err


def convert(raw: Any, kind: type[T], *, unknown: bool = False) -> T:
    """Turn what `parse_json` or `parse_toml` read into a dataclass; lists become tuples where it says so.

    Args:
        raw: an object.
        kind: the dataclass.
        unknown: keys that it does not have are passed over.
    Raises:
        ValueError: a key is missing or unknown, or a value is another than expected.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"it is {raw!r:.80}; expected: an object with the keys of {kind.__name__}")
    members = {member.name: member for member in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind, include_extras=True)
    if not unknown:
        _refuse_unknown(raw, kind)
    for name, member in members.items():
        if name not in raw and member.default is MISSING and member.default_factory is MISSING:
            raise ValueError(f"{name} is missing; expected: {_expected(hints[name])}")
    import msgspec

    try:
        result = msgspec.convert(raw, kind)
    except msgspec.ValidationError as err:
        raise _refusal(err, raw, hints) from err
    for name in members:
        rule, value = _rule(hints[name]), getattr(result, name)
        if rule is not None and rule.holds is not None and value is not None and not rule.holds(value):
            raise ValueError(f"{name} is {raw.get(name, value)!r}; expected: {rule.expected}")
    return result


def _refuse_unknown(raw: Mapping[str, Any], kind: Any) -> None:
    """Refuse keys that the dataclass, or one in it, does not have: msgspec passes them over."""
    names = [member.name for member in fields(kind)]
    unknown = sorted(map(str, raw.keys() - set(names)))
    if unknown:
        raise ValueError(f"there is the unknown key {unknown[0]!r}; expected: {', '.join(names)}")
    for name, hint in get_type_hints(kind).items():
        for part in (hint, *getattr(hint, "__args__", ())):
            if is_dataclass(part) and isinstance(raw.get(name), Mapping):
                _refuse_unknown(raw[name], part)


def _refusal(err: Exception, raw: Mapping[str, Any], hints: Mapping[str, Any]) -> ValueError:
    """The error for a value of another type, with the value and the key that msgspec names."""
    text, _, place = str(err).partition(" - at `$.")
    name = re.split(r"[.\[`]", place)[0]
    if name not in hints or name not in raw:
        return ValueError(text)
    return ValueError(f"{name} is {raw[name]!r}; expected: {_expected(hints[name], text)}")


def _expected(hint: Any, text: str = "") -> str:
    """What a key takes, in words: its rule's, a plain type's, else msgspec's own."""
    rule = _rule(hint)
    if rule is not None:
        return rule.expected
    return _PLAIN.get(hint) or text.removeprefix("Expected ") or str(hint)


def _rule(hint: Any) -> Rule | None:
    """The rule in a type, also in one that allows None."""
    for part in (hint, *getattr(hint, "__args__", ())):
        for note in getattr(part, "__metadata__", ()):
            if isinstance(note, Rule):
                return note
    return None
