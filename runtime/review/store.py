"""The decisions about an embedding file, kept beside it in `<file>.review`: an SQLite database.

A decision is in the database when the call returns. Faces are named by the absolute path of their photo, the number of
the face in it and its page, so that decisions outlast new row numbers. The database is never more readable than the
embedding file, and deleted bytes are overwritten.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast, get_args

from .constraints import Decision, Kind
from .database import Database

SUFFIX = ".review"


@dataclass(frozen=True, slots=True, order=True)
class Face:
    """A face as decisions name it.

    Attributes:
        path: absolute path of the photo, exact bytes.
        face_index: number of the face in the photo; 0 in a file without faces.
        page: page of the photo; 0 in a file without pages.
    """

    path: bytes
    face_index: int = 0
    page: int = 0


@dataclass(frozen=True, slots=True)
class NewDecision:
    """A decision to store; see `Decision`."""

    kind: Kind
    faces: tuple[Face, ...]
    others: tuple[Face, ...] = ()
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything that a store says at one moment.

    Attributes:
        clock: rises with every change.
        faces: the faces by their numbers.
        decisions: the decisions that count, without undone ones; oldest first.
    """

    clock: int
    faces: dict[int, Face]
    decisions: tuple[Decision, ...]


def review_path(file: Path) -> Path:
    """Where the decisions about an embedding file are; a link is followed."""
    return Path(os.path.realpath(file) + SUFFIX)


class ReviewStore:
    """The decisions about one embedding file. Several processes and threads may use it at once.

    Attributes:
        path: the database; it need not exist.
    """

    def __init__(self, file: Path, *, at: Path | None = None) -> None:
        """Name the store of a file. Nothing is opened or created.

        Args:
            file: the embedding file.
            at: the database; None for that beside the file.
        """
        self.path = at or review_path(file)
        self._database = Database(self.path, Path(os.path.realpath(file)))

    def clock(self) -> int:
        """A number that rises with every change; 0 for an empty store.

        Raises:
            StorageError: the store is damaged, or another user may have written it.
        """
        with self._database.reading() as db:
            return 0 if db is None else _int(db.execute("SELECT now FROM clock").fetchone()[0])

    def read(self) -> Stored:
        """Everything that counts now.

        Raises:
            StorageError: see `clock`.
        """
        with self._database.reading() as db:
            if db is None:
                return Stored(0, {}, ())
            clock = _int(db.execute("SELECT now FROM clock").fetchone()[0])
            faces = {
                _int(number): Face(bytes(path), _int(index), _int(page))
                for number, path, index, page in db.execute("SELECT face, path, face_index, page FROM faces")
            }
            sides: dict[int, tuple[list[int], list[int]]] = {}
            for number, face, side in db.execute("SELECT number, face, side FROM sides ORDER BY number, place"):
                if face not in faces or side not in (0, 1):
                    raise self._database.damaged(f"decision {number} is about a face that is not there")
                sides.setdefault(number, ([], []))[side].append(face)
            decisions = []
            query = "SELECT number, kind, name FROM decisions WHERE undone IS NULL ORDER BY number"
            for number, kind, name in db.execute(query):
                first, second = sides.get(number, ([], []))
                if not _is_complete(kind, len(first), len(second)):
                    raise self._database.damaged(f"decision {number} of kind {kind!r:.40} lacks its faces")
                decisions.append(Decision(_int(number), kind, tuple(first), tuple(second), name))
            return Stored(clock, faces, tuple(decisions))

    def add(self, decisions: Sequence[NewDecision], who: str = "") -> list[int]:
        """Store decisions, all or none, and return their numbers. They are durable when this returns.

        Args:
            decisions: the decisions, the latest last.
            who: who decided; undo and redo are for each of them.
        Raises:
            DiskFullError, LockedError, StorageError: nothing is stored.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._database.writing() as db:
            clock, numbers = _tick(db), list[int]()
            for decision in decisions:
                values = (clock, decision.kind, decision.name, who, now)
                query = "INSERT INTO decisions (made, kind, name, who, time) VALUES (?, ?, ?, ?, ?)"
                number = cast(int, db.execute(query, values).lastrowid)
                sides = [(face, 0) for face in decision.faces] + [(face, 1) for face in decision.others]
                rows = [(number, place, _face_number(db, face), side) for place, (face, side) in enumerate(sides)]
                db.executemany("INSERT INTO sides VALUES (?, ?, ?, ?)", rows)
                numbers.append(number)
            return numbers

    def undo(self, kinds: Iterable[Kind], who: str = "") -> int | None:
        """Undo the latest decision of a person; the decision is kept for `redo`.

        Args:
            kinds: the kinds of decisions to look among.
            who: the person.
        Returns:
            Its number; None if there is nothing to undo.
        Raises:
            DiskFullError, LockedError, StorageError: nothing is changed.
        """
        if not self.path.exists():
            return None
        chosen, values = _among(kinds, who)
        with self._database.writing() as db:
            (number,) = db.execute(
                f"SELECT max(number) FROM decisions WHERE undone IS NULL AND {chosen}", values
            ).fetchone()
            if number is not None:
                db.execute("UPDATE decisions SET undone = ? WHERE number = ?", (_tick(db), number))
            return None if number is None else _int(number)

    def redo(self, kinds: Iterable[Kind], who: str = "") -> int | None:
        """Take back the latest undo of a person, unless the person has decided something since; see `undo`."""
        if not self.path.exists():
            return None
        chosen, values = _among(kinds, who)
        query = (
            f"SELECT number, undone FROM decisions WHERE undone IS NOT NULL AND {chosen} ORDER BY undone DESC LIMIT 1",
            f"SELECT max(made) FROM decisions WHERE undone IS NULL AND {chosen}",
        )
        with self._database.writing() as db:
            latest, (made,) = db.execute(query[0], values).fetchone(), db.execute(query[1], values).fetchone()
            if latest is None or (made is not None and made > latest[1]):
                return None
            db.execute("UPDATE decisions SET undone = NULL WHERE number = ?", (latest[0],))
            _tick(db)
            return _int(latest[0])

    def get(self, number: int) -> NewDecision:
        """A decision by its number, undone or not.

        Raises:
            ValueError: there is none.
            StorageError: see `clock`.
        """
        with self._database.reading() as db:
            row = None
            if db is not None:
                row = db.execute("SELECT kind, name FROM decisions WHERE number = ?", (number,)).fetchone()
            if db is None or row is None:
                raise ValueError(f"there is no decision {number}")
            sides: tuple[list[Face], list[Face]] = ([], [])
            query = (
                "SELECT path, face_index, page, side FROM sides JOIN faces USING (face) WHERE number = ? ORDER BY place"
            )
            for path, index, page, side in db.execute(query, (number,)):
                sides[side == 1].append(Face(bytes(path), _int(index), _int(page)))
            return NewDecision(row[0], tuple(sides[0]), tuple(sides[1]), row[1])

    def paths(self) -> list[bytes]:
        """The absolute paths of all photos that decisions name, undone ones too."""
        with self._database.reading() as db:
            return [] if db is None else [bytes(path) for (path,) in db.execute("SELECT DISTINCT path FROM faces")]

    def forget(self, paths: Iterable[bytes]) -> int:
        """Erase photos from all decisions, and decisions that are then about nobody. No byte of them stays.

        Args:
            paths: absolute paths, exact bytes.
        Returns:
            The number of faces that were erased.
        Raises:
            DiskFullError, LockedError, StorageError: the store cannot be changed.
        """
        with self._database.writing() as db:
            found: set[int] = set()
            for path in paths:
                found |= {row[0] for row in db.execute("SELECT face FROM faces WHERE path = ?", (path,))}
            numbers = [(face,) for face in found]
            db.executemany("DELETE FROM sides WHERE face = ?", numbers)
            db.executemany("DELETE FROM faces WHERE face = ?", numbers)
            counts = {number: (kind, 0, 0) for number, kind in db.execute("SELECT number, kind FROM decisions")}
            query = "SELECT number, sum(side = 0), sum(side = 1) FROM sides GROUP BY number"
            counts |= {number: (counts[number][0], first, second) for number, first, second in db.execute(query)}
            empty = [(number,) for number, count in counts.items() if not _is_complete(*count)]
            db.executemany("DELETE FROM sides WHERE number = ?", empty)
            db.executemany("DELETE FROM decisions WHERE number = ?", empty)
            db.execute("DELETE FROM faces WHERE face NOT IN (SELECT face FROM sides)")
            _tick(db)
        with self._database.open(write=True) as db:
            db.execute("VACUUM")  # bytes that an earlier version of SQLite left free
        return len(found)

    def include(self, others: Sequence[ReviewStore]) -> None:
        """Take over the decisions of other stores, in the order of their times, with what was undone.

        Raises:
            DiskFullError, LockedError, StorageError: this store is unchanged.
        """
        taken: list[tuple[str, int, int, tuple[Any, ...], list[tuple[Any, ...]]]] = []
        for place, other in enumerate(others):
            with other._database.reading() as db:
                if db is None:
                    continue
                rows = db.execute("SELECT time, number, made, undone, kind, name, who FROM decisions ORDER BY number")
                for row in rows.fetchall():
                    query = (
                        "SELECT path, face_index, page, side FROM sides JOIN faces USING (face) WHERE number = ?"
                        " ORDER BY place"
                    )
                    taken.append((row[0], place, row[1], row, db.execute(query, (row[1],)).fetchall()))
        if not taken:
            return
        with self._database.writing() as db:
            for _, _, _, (when, _, _, undone, kind, name, who), sides in sorted(taken, key=lambda each: each[:3]):
                clock = _tick(db)
                query = "INSERT INTO decisions (made, undone, kind, name, who, time) VALUES (?, ?, ?, ?, ?, ?)"
                values = (clock, None if undone is None else clock, kind, name, who, when)
                number = db.execute(query, values).lastrowid
                for index, (path, face, page, side) in enumerate(sides):
                    entry = (number, index, _face_number(db, Face(bytes(path), face, page)), side)
                    db.execute("INSERT INTO sides VALUES (?, ?, ?, ?)", entry)


def _tick(db: sqlite3.Connection) -> int:
    db.execute("UPDATE clock SET now = now + 1")
    return _int(db.execute("SELECT now FROM clock").fetchone()[0])


def _face_number(db: sqlite3.Connection, face: Face) -> int:
    values = (face.path, face.face_index, face.page)
    query = "SELECT face FROM faces WHERE path = ? AND face_index = ? AND page = ?"
    row = db.execute(query, values).fetchone()
    if row is not None:
        return _int(row[0])
    return cast(int, db.execute("INSERT INTO faces (path, face_index, page) VALUES (?, ?, ?)", values).lastrowid)


def _among(kinds: Iterable[Kind], who: str) -> tuple[str, list[str]]:
    """A condition for decisions of some kinds of a person, and its values."""
    values = list(kinds)
    return f"kind IN ({', '.join('?' * len(values))}) AND who = ?", [*values, who]


def _is_complete(kind: str, faces: int, others: int) -> bool:
    """Whether a decision of a kind has the faces that it needs."""
    if kind not in get_args(Kind):
        raise ValueError(f"a decision has the kind {kind!r:.40}")
    if kind == "merge":
        return faces >= 2 and not others
    if kind == "name":
        return faces >= 1 and not others
    return faces >= 1 and others >= 1


def _int(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"a number is {value!r:.40}")
    return value
