"""Align text in columns, and the table of the stages of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence


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


def stage_lines(stages: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A line for each stage of a run: its rate, its threads, and how busy they were."""
    rows = []
    for name, stage in stages.items():
        busy = f"on {stage['workers']:.0f} threads, busy {100 * stage['busy']:.0f} %"
        rows.append((name, f"{stage['images_per_s']:,.0f} images/s", busy))
    yield from align(rows, right=[1])
