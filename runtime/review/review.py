"""Decide about the rows of an embedding file, and ask what was decided."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..storage.file import EmbeddingFile
from ..text import printable
from .constraints import CLUSTER_KINDS, PAIR_KINDS, Kind, State, Verdict
from .rows import RowRules, faces_of, find_rows
from .store import Face, NewDecision, ReviewStore

_VERDICTS = ("same", "different", "undecided")
MAX_NAME = 200  # characters


@dataclass(frozen=True, slots=True)
class PairVerdict:
    """A decision about a pair.

    Attributes:
        row_a, row_b: rows of `/embeddings`.
        verdict: "same" person; "different" people, who are never put together again; or "undecided".
    """

    row_a: int
    row_b: int
    verdict: Verdict


class Review:
    """The decisions of people about the faces of one embedding file.

    `pairs` and `cluster` obey them. They are in `<file>.review`, name faces by their photos, and stay when photos are
    added and removed. A decision is durable when its method returns, and `undo` takes it back. If decisions contradict
    each other, the latest wins. Use it in a `with` block; one thread at a time may use it.

    Attributes:
        who: who decides, from now on.
        embeddings: the open file.

    Example:
        >>> import facemill
        >>> with facemill.Review("people.h5") as review:
        ...     _ = review.decide(0, 1, "different")
        ...     print(review.state(0, 1))
        ...     _ = review.undo_pair()
        ...     print(review.state(0, 1) or "nothing")
        different
        nothing
    """

    def __init__(self, file: str | os.PathLike[str], *, who: str = "") -> None:
        """Open a file.

        Args:
            file: a finished embedding file.
            who: who decides; `undo_pair` and `undo_cluster` take back decisions of this person.
        Raises:
            StorageError: the file is missing or damaged.
        """
        self.embeddings = EmbeddingFile(Path(file))
        self.who = who
        self._store = ReviewStore(Path(file))
        self._rules: RowRules | None = None
        self._rows: dict[Face, int | None] = {}  # of the faces that were looked for; None if the file lacks them

    @property
    def rules(self) -> RowRules:
        """What all decisions demand now, those of other processes too.

        Raises:
            StorageError: the file or the store is damaged.
        """
        if self._rules is None or self._rules.clock != self._store.clock():
            stored = self._store.read()
            unknown = [face for face in stored.faces.values() if face not in self._rows]
            self._rows |= dict.fromkeys(unknown)
            self._rows |= find_rows(self.embeddings, unknown)
            rows = {self._rows[face]: number for number, face in stored.faces.items()}
            self._rules = RowRules(stored, {row: number for row, number in rows.items() if row is not None})
        return self._rules

    def state(self, row_a: int, row_b: int) -> State:
        """What is decided about two rows: "same", "different" or "undecided"; "" for nothing.

        That a is b and b is c decides also that a is c.
        """
        return self.rules.state(row_a, row_b)

    def name_of(self, rows: Iterable[int]) -> str:
        """The name of the person whom rows show, by most of them; "" for none."""
        return self.rules.name_of(list(rows))

    def decide(self, row_a: int, row_b: int, verdict: Verdict) -> int:
        """Decide about a pair, and return the number of the decision.

        Args:
            row_a, row_b: two rows.
            verdict: "same", "different" or "undecided". "undecided" takes back what was decided about the pair.
        Raises:
            ConfigError: the rows are one row, or are not in the file; or there is no such verdict.
            StorageError: nothing is stored.
        """
        return self.decide_pairs([PairVerdict(row_a, row_b, verdict)])[0]

    def decide_pairs(self, verdicts: Sequence[PairVerdict]) -> list[int]:
        """Decide about several pairs, all or none; see `decide`."""
        for each in verdicts:
            if each.row_a == each.row_b:
                raise ConfigError(f"a pair has row {each.row_a} twice; expected: two rows")
            if each.verdict not in _VERDICTS:
                raise ConfigError(f"a verdict is {each.verdict!r:.40}; expected: {', '.join(_VERDICTS)}")
        faces = self._faces([row for each in verdicts for row in (each.row_a, each.row_b)])
        pairs = zip(verdicts, faces[::2], faces[1::2], strict=True)
        return self._store.add([NewDecision(each.verdict, (a,), (b,)) for each, a, b in pairs], self.who)

    def merge(self, rows: Iterable[int], name: str | None = None) -> int:
        """Decide that rows show one person, and return the number of the decision.

        Args:
            rows: two rows or more.
            name: the name of the person; None to leave names as they are.
        Raises:
            ConfigError: there are fewer than two rows, or one is not in the file; or the name cannot be one.
            StorageError: nothing is stored.
        """
        return self._add("merge", list(dict.fromkeys(rows)), name=name, least=2)

    def split(self, rows: Iterable[int], rest: Iterable[int]) -> int:
        """Decide that no row shows the person of the rest, and return the number of the decision.

        Args:
            rows: rows that do not belong to the rest.
            rest: the others.
        Raises:
            ConfigError: a side is empty, a row is on both sides or not in the file.
            StorageError: nothing is stored.
        """
        first, second = list(dict.fromkeys(rows)), list(dict.fromkeys(rest))
        both = set(first) & set(second)
        if both:
            raise ConfigError(f"row {min(both)} is on both sides of a split; expected: each row on one")
        return self._add("split", first, second)

    def name(self, rows: Iterable[int], name: str) -> int:
        """Name the person whom rows show, and return the number of the decision.

        Args:
            rows: rows of the person.
            name: at most 200 characters; "" to take the name away.
        Raises:
            ConfigError: there are no rows, one is not in the file, or the name cannot be one.
            StorageError: nothing is stored.
        """
        return self._add("name", list(dict.fromkeys(rows)), name=name)

    def undo_pair(self) -> int | None:
        """Take back the person's latest decision about a pair. Returns its number; None if there is none."""
        return self._store.undo(PAIR_KINDS, self.who)

    def redo_pair(self) -> int | None:
        """Take back the latest `undo_pair`, unless the person has decided about a pair since; see there."""
        return self._store.redo(PAIR_KINDS, self.who)

    def undo_cluster(self) -> int | None:
        """Take back the person's latest merge, split or name. Returns its number; None if there is none."""
        return self._store.undo(CLUSTER_KINDS, self.who)

    def redo_cluster(self) -> int | None:
        """Take back the latest `undo_cluster`, unless the person has changed a cluster since; see there."""
        return self._store.redo(CLUSTER_KINDS, self.who)

    def _add(
        self, kind: Kind, rows: list[int], others: Sequence[int] = (), *, name: str | None = None, least: int = 1
    ) -> int:
        if len(rows) < least or (kind == "split" and not others):
            raise ConfigError(f"a {kind} is of {len(rows)} and {len(others)} rows; expected: {least} or more")
        faces = self._faces([*rows, *others])
        decision = NewDecision(kind, tuple(faces[: len(rows)]), tuple(faces[len(rows) :]), _checked(name))
        return self._store.add([decision], self.who)[0]

    def _faces(self, rows: Sequence[int]) -> list[Face]:
        wrong = [row for row in rows if not 0 <= row < self.embeddings.rows]
        if wrong:
            raise ConfigError(f"row {wrong[0]} is not in the file; expected: 0 to {self.embeddings.rows - 1}")
        faces = faces_of(self.embeddings, rows)
        self._rows |= dict(zip(faces, rows, strict=True))
        return faces

    def rows_of(self, number: int) -> tuple[Kind, tuple[int, ...], tuple[int, ...]]:
        """The kind of a decision, and the rows on its two sides, as far as the file has them.

        Args:
            number: the number of a decision, undone or not.
        Raises:
            ValueError: there is no such decision.
        """
        decision = self._store.get(number)
        rows = find_rows(self.embeddings, {*decision.faces, *decision.others} - set(self._rows))
        sides = ([self._rows.get(face, rows.get(face)) for face in side] for side in (decision.faces, decision.others))
        first, second = (tuple(row for row in side if row is not None) for side in sides)
        return decision.kind, first, second

    def close(self) -> None:
        """Close the file."""
        self.embeddings.close()

    def __enter__(self) -> Review:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _checked(name: str | None) -> str | None:
    """A name without spaces around it.

    Raises:
        ConfigError: it is too long, or holds hidden characters, which pages and terminals may show as something else.
    """
    if name is None:
        return None
    name = name.strip()
    if len(name) > MAX_NAME or printable(name) != name:
        raise ConfigError(
            f"a name is {printable(name)!r:.60}, {len(name)} characters; expected: at most {MAX_NAME}, none of them "
            f"hidden"
        )
    return name
