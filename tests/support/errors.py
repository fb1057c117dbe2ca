"""Expect an error by its class, its code, and the values that its message must name: never by its words."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

E = TypeVar("E", bound=BaseException)


def missing_values(text: str, values: tuple[object, ...]) -> list[str]:
    """The values that a text does not name as whole words: 5 is not in "25", and people.h5 is in "/a/people.h5"."""
    missing = []
    for value in map(str, values):
        start = r"(?<!\w)" if re.match(r"\w", value) else ""
        end = r"(?!\w)" if re.search(r"\w\Z", value) else ""
        if not re.search(start + re.escape(value) + end, text):
            missing.append(value)
    return missing


def assert_names(text: str, *values: object) -> None:
    """Assert that a text names all of these values: files, options, numbers, commands."""
    missing = missing_values(text, values)
    assert not missing, f"{missing} missing in: {text}"


@contextmanager
def raises(kind: type[E] | tuple[type[E], ...], *values: object) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of exactly this class, or one of these, whose message names all of these values."""
    with pytest.raises(kind) as caught:
        yield caught
    kinds = kind if isinstance(kind, tuple) else (kind,)
    assert type(caught.value) in kinds, repr(caught.value)
    assert_names(str(caught.value), *values)


def assert_failed(done: subprocess.CompletedProcess[str], code: str, *values: object) -> None:
    """Assert that a command exited 1 with an error of this code that names these values, and with no traceback.

    Args:
        done: the run.
        code: of the error, such as E-CONFIG.
        values: files, options, numbers and commands in the error's message.
    """
    assert done.returncode == 1, done.stderr
    _assert_message(done.stderr, f"{code}: ", values)


def assert_usage_error(done: subprocess.CompletedProcess[str], *values: object) -> None:
    """Assert that a command exited 2 with an error of usage that names these values, and with no traceback."""
    assert done.returncode == 2, done.stderr
    _assert_message(done.stderr, "Error: ", values)


def _assert_message(stderr: str, prefix: str, values: tuple[object, ...]) -> None:
    lines = stderr.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(prefix)]
    assert starts, f"no line begins with {prefix!r}: {stderr}"
    assert "Traceback" not in stderr
    assert_names("\n".join(lines[starts[-1] :]), *values)
