"""Write CSV that every reader splits as it was written, and, if asked for, that no spreadsheet computes.

Example:
    >>> import io
    >>> text = io.StringIO()
    >>> CsvTable(text, safe=True).row(["=1+1.jpg", "a\\rb.jpg", -0.5])
    >>> text.getvalue()
    '\\'=1+1.jpg,"a\\rb.jpg",-0.5\\n'
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # also the wide forms of = + - @
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")


class Writable(Protocol):
    """Where text goes."""

    def write(self, text: str, /) -> object:
        """Write text."""


class CsvTable:
    """A table with commas, and a line feed after each row. A field with a line break of any kind is quoted."""

    def __init__(self, stream: Writable, *, safe: bool = False, clean: Callable[[str], str] | None = None) -> None:
        """Begin a table.

        Args:
            stream: text stream without translation of line ends.
            safe: write `'` before text that a spreadsheet would take for a formula.
            clean: applied to each text, such as `text.printable` for a terminal.
        """
        self._stream, self._safe, self._clean = stream, safe, clean
        # With this end of line the writer quotes fields with either of its characters; `write` takes it off again.
        self._writer = csv.writer(self, lineterminator="\r\n")

    def write(self, line: str, /) -> None:
        """Take a line of the writer."""
        self._stream.write(line.removesuffix("\r\n") + "\n")

    def row(self, values: Iterable[Any]) -> None:
        """Write a row."""
        self._writer.writerow([self._text(value) if isinstance(value, str) else value for value in values])

    def rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows."""
        for values in rows:
            self.row(values)

    def _text(self, text: str) -> str:
        if self._safe and _FORMULA.match(text) and not _NUMBER.fullmatch(text):
            text = "'" + text
        return self._clean(text) if self._clean else text
