"""The exception tree is complete, and every class also extends a builtin."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from runtime import errors

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
RUNTIME = Path(errors.__file__).parent


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_every_error_is_in_the_tree_and_extends_a_builtin(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.FacemillError)
    if kind not in (errors.FacemillError, errors.Interrupted):
        builtins = [
            b for b in kind.__mro__ if b.__module__ == "builtins" and b not in (Exception, BaseException, object)
        ]
        assert builtins


def test_the_text_begins_with_the_code() -> None:
    error = errors.DiskFullError("no room left")
    assert str(error) == "E-DISK-FULL: no room left"
    assert error.message == "no room left"


def test_every_class_has_a_unique_code() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"E-[A-Z]+(-[A-Z]+)*", code) for code in codes)


def raised_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            names.add(node.exc.func.id)
    return names


@pytest.mark.parametrize("path", sorted(RUNTIME.rglob("*.py")), ids=lambda p: str(p.relative_to(RUNTIME)))
def test_modules_raise_only_errors_of_the_tree(path: Path) -> None:
    tree = {kind.__name__ for kind in CLASSES}
    # Failures inside a room, turned into an outcome or an error of the tree before they leave it.
    internal = {"ReadError", "ImageError", "UnsupportedImageError", "ValueError", "IndexError", "SystemExit", "OSError"}
    internal |= {"MemoryError", "AttributeError"}  # AttributeError is required by a module's `__getattr__`
    assert {n for n in raised_names(path) if n.endswith("Error")} <= tree | internal
