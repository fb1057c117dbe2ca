"""Pairs of photographs to judge, in the format of Labeled Faces in the Wild's pairs.txt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

_MAKE_SURE = "wanted: LFW's format, `NAME N M` for one person and `NAME N NAME M` for two, separated by tabs"


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """P pairs in F folds.

    Attributes:
        left, right: P photographs, as LFW stores them, without extension: `Ada_Smith/Ada_Smith_0001`.
        same: (P,) bool, whether a pair shows one person.
        fold: (P,) int64, 0 to F - 1.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]

    @property
    def folds(self) -> int:
        """F."""
        return int(self.fold[-1]) + 1


def read_pairs(path: Path) -> LabelledPairs:
    """Read a pairs file.

    Args:
        path: UTF-8 text. A header `FOLDS N` (pairs.txt) or `N` (the development sets: one fold), then N pairs of one
            person and N of two for each fold. Where a line has tabs, they alone separate: names may hold spaces.
    Raises:
        ConfigError: it cannot be read, or is not of this form; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"the pairs file {path} cannot be read: {reason}; {_MAKE_SURE}") from err
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    folds, each = _header(path, numbered)
    found = list(_parse(path, numbered[1:]))
    if len(found) != 2 * folds * each:
        raise ConfigError(
            f"the pairs file {path} holds {len(found):,} pairs; its header says {folds} x {each} of one person and as "
            f"many of two: {2 * folds * each:,}. It may be cut short: fetch it again"
        )
    same = np.array([one for _, _, one in found])
    fold = np.repeat(np.arange(folds), 2 * each)
    genuine = np.bincount(fold, weights=same, minlength=folds)  # (F,)
    if (genuine != each).any():
        wrong = int(np.argmax(genuine != each))
        raise ConfigError(
            f"fold {wrong + 1} of the pairs file {path} holds {int(genuine[wrong])} pairs of one person and "
            f"{2 * each - int(genuine[wrong])} of two; wanted by its header: {each} of each, fold after fold"
        )
    return LabelledPairs(tuple(left for left, _, _ in found), tuple(right for _, right, _ in found), same, fold)


def _header(path: Path, lines: list[tuple[int, str]]) -> tuple[int, int]:
    """(folds, pairs of one person in each)."""
    first = lines[0][1] if lines else ""
    match = re.fullmatch(r"\s*(?:(\d+)\s+)?(\d+)\s*", first, re.ASCII)
    counts = (int(match[1] or 1), int(match[2])) if match else (0, 0)
    if min(counts) < 1:
        raise ConfigError(
            f"the pairs file {path} begins with {first[:40]!r}; wanted: `FOLDS N` or `N`, the number of pairs of one "
            f"person in each fold, such as `10 300`"
        )
    return counts


def _parse(path: Path, lines: list[tuple[int, str]]) -> Iterator[tuple[str, str, bool]]:
    """(left, right, same) of each line."""
    for number, line in lines:
        parts = line.strip().split("\t") if "\t" in line else line.split()
        if len(parts) == 3:
            (name, first), (other, second) = (parts[0], parts[1]), (parts[0], parts[2])
        elif len(parts) == 4:
            name, first, other, second = parts
        else:
            raise ConfigError(f"line {number} of {path} is {line[:60]!r}; {_MAKE_SURE}")
        left, right = _photograph(name, first), _photograph(other, second)
        if not left or not right or left == right or (len(parts) == 4 and name == other):
            raise ConfigError(f"line {number} of {path} is {line[:60]!r}: no pair of two photographs; {_MAKE_SURE}")
        yield left, right, len(parts) == 3


def _photograph(name: str, number: str) -> str:
    """`Ada_Smith`, `1` -> `Ada_Smith/Ada_Smith_0001`; empty when they name none."""
    good = name.strip() and re.fullmatch(r"\d{1,9}", number.strip(), re.ASCII)
    return f"{name.strip()}/{name.strip()}_{int(number):04d}" if good else ""
