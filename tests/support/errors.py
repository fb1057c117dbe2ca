"""Expect an error by its class, its code and the values that its message must name, never by its wording."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

E = TypeVar("E", bound=BaseException)
Values = tuple[object, ...]
USAGE = "Error"  # prefix of click's message for wrong usage
OPTION = "E-OPTION"


def missing_values(text: str, values: Values) -> list[str]:
    """Values that a text does not contain as whole words: "25" does not contain 5; "/a/b.h5" contains b.h5."""
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


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages that were logged as warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def assert_refused(result: subprocess.CompletedProcess[str], code: str, *values: object) -> None:
    """Assert that a command failed with an error of this code that names these values, and with no traceback.

    Args:
        result: result of the command.
        code: code of the error, such as E-CONFIG (exit code 1), or USAGE or OPTION (exit code 2).
        values: files, options, numbers and commands that the error's message must name.
    """
    assert result.returncode == (2 if code in (USAGE, OPTION) else 1), result.stderr
    lines = result.stderr.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(f"{code}: ")]
    assert starts, f"no line begins with {code}: {result.stderr}"
    assert "Traceback" not in result.stderr
    assert_names("\n".join(lines[starts[-1] :]), *values)
