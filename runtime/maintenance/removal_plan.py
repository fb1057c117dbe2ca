"""What a removal will erase."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..text import printable
from .erase import Derived
from .unfinished import is_unfinished

_MAX_EXAMPLES = 10  # names that an error lists


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """The rows and files that a removal will erase.

    Attributes:
        rows: (n,) int64, rows of `/outcomes`.
        embeddings: number of their rows of `/embeddings`.
        duplicates: number of the n that were not named: they are byte for byte the same as named photos.
        same_stay: number of the n that are the same as photos that stay, with their embeddings.
        missing: names that select no photo in the file or in an unfinished run beside it, and that no interrupted
            removal was to remove.
        root: absolute folder of its paths.
        derived: files that were made from the file.
        extras: datasets of other programs, which are dropped from the file.
        unfinished: runs beside the file that hold named photos, and would add them to it.
        file: the file.
    """

    rows: NDArray[np.int64]
    embeddings: int
    duplicates: int
    same_stay: int
    missing: tuple[bytes, ...]
    root: bytes
    derived: Derived
    extras: tuple[str, ...]
    unfinished: tuple[Path, ...]
    file: Path

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to erase."""
        return self.keeps_runs and not self.earlier

    @property
    def keeps_runs(self) -> bool:
        """Whether unfinished runs of the file go on: no row is removed, and none of them holds a named photo."""
        return not len(self.rows) and not self.unfinished

    @property
    def earlier(self) -> tuple[str, ...]:
        """What may show photos that the file had before another one replaced it. Empty if rows of it are removed."""
        derived = self.derived
        made = [*derived.beside, *derived.pages, *(page for page, _ in derived.unreachable)]
        shown = [str(path) for path in made if not is_unfinished(path, self.file)]
        return () if len(self.rows) else (*shown, *(place for place, _ in derived.kept))


def unknown_names(plan: RemovalPlan) -> ConfigError:
    """The error of a removal of names that are not in the file."""
    file = plan.file
    names = [printable(os.fsdecode(name)) for name in plan.missing]
    text = (
        f"{len(names):,} names are not in {file}, and nothing was removed:\n{_examples(names)}\n"
        f"expected: photos or folders below {printable(os.fsdecode(plan.root))}, as its /outcomes/path names them. To "
        f"ignore missing names: --ignore-missing"
    )
    if plan.earlier:
        text += (
            f". That option also erases what was made from the earlier rows of {file}, before it was made anew:\n"
            f"{_examples([printable(place) for place in plan.earlier])}"
        )
    return ConfigError(text)


def _examples(names: Sequence[str]) -> str:
    more = f"\n  and {len(names) - _MAX_EXAMPLES:,} more" if len(names) > _MAX_EXAMPLES else ""
    return "\n".join(f"  {name}" for name in names[:_MAX_EXAMPLES]) + more
