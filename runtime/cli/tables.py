"""Align text in columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence


def align(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), indent: int = 2) -> Iterator[str]:
    """Lines with aligned columns, two spaces apart.

    Args:
        rows: the cells, all rows of one length.
        right: numbers of the columns that are aligned to the right, from 0.
        indent: spaces before the first column.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield (" " * indent + "  ".join(cells)).rstrip()
