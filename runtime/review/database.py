"""Open the database of decisions: durable, private, of a trusted user, with facemill's errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ..errors import DiskFullError, LockedError, StorageError
from ..files import create_empty, is_trusted, sync_folder
from ..outputs import what_stands_at
from ..storage.nearby import IDENTITY, identity_of

_APPLICATION = 0x666D7276  # "fmrv" in the header of the database
_VERSION = 1
_WAIT_S = 30.0  # for another process that is writing
_SCHEMA = (
    "CREATE TABLE faces (face INTEGER PRIMARY KEY, path BLOB NOT NULL, face_index INTEGER NOT NULL,"
    " page INTEGER NOT NULL, UNIQUE (path, face_index, page))",
    "CREATE TABLE decisions (number INTEGER PRIMARY KEY AUTOINCREMENT, made INTEGER NOT NULL, undone INTEGER,"
    " kind TEXT NOT NULL, name TEXT, who TEXT NOT NULL, time TEXT NOT NULL)",
    "CREATE TABLE sides (number INTEGER NOT NULL, place INTEGER NOT NULL, face INTEGER NOT NULL, side INTEGER NOT NULL,"
    " PRIMARY KEY (number, place)) WITHOUT ROWID",
    "CREATE INDEX sides_by_face ON sides (face)",
    "CREATE TABLE clock (now INTEGER NOT NULL)",
    "INSERT INTO clock VALUES (0)",
    "CREATE TABLE file (identity TEXT NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)


class Database:
    """The database of one embedding file. Several processes and threads may use it at once.

    Attributes:
        path: the database; it need not exist.
    """

    def __init__(self, path: Path, file: Path) -> None:
        """Name the database and its embedding file. Nothing is opened or created."""
        self.path, self._file = path, file

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """A block in one state of the database; None if there is none yet.

        Raises:
            StorageError: it is damaged, or another user may have written it.
        """
        if not os.path.lexists(self.path):
            yield None
            return
        with self.open(write=os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)) as db:
            db.execute("BEGIN")
            if not self._has_tables(db):
                yield None
            else:
                yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, which is durable at the end of the block, or has not been.

        Raises:
            DiskFullError, LockedError, StorageError: nothing is changed.
        """
        if not os.path.lexists(self.path):
            with suppress(FileExistsError), self._errors():
                create_empty(self.path, like=self._file)
                sync_folder(self.path.parent)
        with self.open(write=True) as db:
            db.execute("BEGIN IMMEDIATE")
            if not self._has_tables(db):
                for statement in _SCHEMA:
                    db.execute(statement)
                # As in a list of pages: by it a removal finds the decisions after the file was renamed.
                db.execute("INSERT INTO file VALUES (?)", (f'"{IDENTITY}": "{identity_of(self._file)}"',))
            yield db
            db.execute("COMMIT")

    def _has_tables(self, db: sqlite3.Connection) -> bool:
        """Whether the database is one of facemill; False for an empty one."""
        (application,), (version,) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if (application, version) == (_APPLICATION, _VERSION):
            return True
        if (application, version) == (0, 0) and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return False
        raise self.damaged(f"it is no store of decisions of version {_VERSION}")

    @contextmanager
    def open(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        """A connection to the existing database, closed at the end of the block; errors are facemill's."""
        for path in (self.path, self.path.with_name(self.path.name + "-journal")):
            what = what_stands_at(path)
            if what and not (what == "a file" and is_trusted(path, beside=self._file)):
                what = "may have been written by another user" if what == "a file" else f"is {what}"
                raise StorageError(
                    f"{path} {what}; expected: a file of this user with decisions about {self._file.name}. Look at it, "
                    f"and move it away"
                )
        name = f"file:{quote(os.fsencode(self.path))}?mode={'rw' if write else 'ro'}"
        with self._errors(), closing(_connect(name)) as db:
            yield db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            text = str(err)
            if "locked" in text or "busy" in text:
                raise LockedError(f"another process is writing {self.path}. Try again when it has ended") from err
            if "full" in text:
                raise DiskFullError(f"no space left while writing {self.path}. Free some space and try again") from err
            if "readonly" in text or "unable to open" in text or "I/O" in text:
                raise StorageError(f"{self.path} cannot be written or read: {text}") from err
            raise self.damaged(text) from err
        except (TypeError, ValueError) as err:
            if isinstance(err, StorageError):
                raise
            raise self.damaged(str(err)) from err
        except OSError as err:
            if isinstance(err, StorageError | LockedError):
                raise
            raise StorageError(f"{self.path} cannot be written: {err.strerror or err}") from err

    def damaged(self, reason: str) -> StorageError:
        """The error for content that facemill does not write."""
        return StorageError(
            f"{self.path}, the decisions about {self._file.name}, cannot be used ({reason}). Restore it from a copy, "
            f"or move it away to begin without decisions"
        )


def _connect(name: str) -> sqlite3.Connection:
    db = sqlite3.connect(name, timeout=_WAIT_S, isolation_level=None, uri=True, check_same_thread=False)
    # The journal is deleted and its folder synced at each commit; nothing goes to a folder of temporary files.
    for setting in (
        "temp_store = MEMORY",
        "synchronous = EXTRA",
        "secure_delete = ON",
        "cell_size_check = ON",
        "trusted_schema = OFF",
        "mmap_size = 0",
    ):
        db.execute(f"PRAGMA {setting}")
    db.execute("PRAGMA journal_mode = DELETE")
    return db
