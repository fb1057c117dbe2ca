"""Read pairs of photos to judge, in the format of pairs.txt of Labeled Faces in the Wild (LFW)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..regular import LIST_BYTES, read_regular

_EXPECTED = "expected: LFW's format, `NAME N M` for one person and `NAME N NAME M` for two, separated by tabs"


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """P pairs in F folds.

    Attributes:
        left, right: P photos by path below the folder without extension, as in LFW: `Ada_Smith/Ada_Smith_0001`.
        same: (P,) bool, whether a pair shows one person.
        fold: (P,) int64, 0 to F - 1.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]

    @property
    def folds(self) -> int:
        """Number of folds, F."""
        return int(self.fold[-1]) + 1


def read_pairs(path: Path) -> LabelledPairs:
    """Read a pairs file.

    Args:
        path: UTF-8 text. The header is `FOLDS N` (pairs.txt) or `N` (development sets: one fold). For each fold, N
            pairs of one person and N of two follow. In a line with tabs, only tabs separate, so names may hold spaces.
    Raises:
        ConfigError: the file cannot be read, or has another format; the message names the line.
    """
    try:
        lines = read_regular(path, LIST_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"the pairs file {path} cannot be read: {reason}; {_EXPECTED}") from err
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    folds, per_fold = _read_header(path, numbered)
    pairs = list(_parse(path, numbered[1:]))
    if len(pairs) != 2 * folds * per_fold:
        raise ConfigError(
            f"the pairs file {path} holds {len(pairs):,} pairs; expected by its header: {2 * folds * per_fold:,}, "
            f"{folds} x {per_fold} of one person and as many of two. It may be truncated: fetch it again"
        )
    same = np.array([is_same for _, _, is_same in pairs])
    fold = np.repeat(np.arange(folds), 2 * per_fold)
    genuine = np.bincount(fold, weights=same, minlength=folds)  # (F,)
    if (genuine != per_fold).any():
        wrong = int(np.argmax(genuine != per_fold))
        raise ConfigError(
            f"fold {wrong + 1} of the pairs file {path} holds {int(genuine[wrong])} pairs of one person and "
            f"{2 * per_fold - int(genuine[wrong])} of two; expected by its header: {per_fold} of each in every fold"
        )
    return LabelledPairs(tuple(left for left, _, _ in pairs), tuple(right for _, right, _ in pairs), same, fold)


def _read_header(path: Path, lines: list[tuple[int, str]]) -> tuple[int, int]:
    """Return the number of folds, and of genuine pairs per fold."""
    first = lines[0][1] if lines else ""
    match = re.fullmatch(r"\s*(?:(\d+)\s+)?(\d+)\s*", first, re.ASCII)
    counts = (int(match[1] or 1), int(match[2])) if match else (0, 0)
    if min(counts) < 1:
        raise ConfigError(
            f"the pairs file {path} begins with {first[:40]!r}; expected: `FOLDS N` or `N`, the number of pairs of one "
            f"person per fold, as in `10 300`"
        )
    return counts


def _parse(path: Path, lines: list[tuple[int, str]]) -> Iterator[tuple[str, str, bool]]:
    """Yield (left, right, same) of each line."""
    for number, line in lines:
        parts = line.strip().split("\t") if "\t" in line else line.split()
        if len(parts) == 3:
            (left_name, first), (right_name, second) = (parts[0], parts[1]), (parts[0], parts[2])
        elif len(parts) == 4:
            left_name, first, right_name, second = parts
        else:
            raise ConfigError(f"line {number} of {path} is {line[:60]!r}; {_EXPECTED}")
        left, right = _photo_path(left_name, first), _photo_path(right_name, second)
        if not left or not right or left == right or (len(parts) == 4 and left_name == right_name):
            raise ConfigError(f"line {number} of {path} is {line[:60]!r}, not a pair of two photos; {_EXPECTED}")
        yield left, right, len(parts) == 3


def _photo_path(name: str, number: str) -> str:
    """Convert `Ada_Smith`, `1` to `Ada_Smith/Ada_Smith_0001`; empty if they are not a name and a number."""
    valid = name.strip() and re.fullmatch(r"\d{1,9}", number.strip(), re.ASCII)
    return f"{name.strip()}/{name.strip()}_{int(number):04d}" if valid else ""
