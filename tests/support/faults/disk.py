"""A modelled disk: what a power cut leaves of recorded file operations that were not yet synced.

The kernel may write content and names to the disk in any order until they are synced. `fsync` of a file makes its
content durable, and `fsync` of a folder the names in it: no more is promised by POSIX.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from .operations import Kind, Operation

# Of a name: the number of a file, a negative number for a folder, or the content of a symbolic link.
Entry = int | str
_GONE = "\0"  # `a\0-3/b` is the name b in the folder -3, which was removed from the place a


@dataclass(frozen=True, slots=True)
class State:
    """What is on the disk after a power cut.

    Attributes:
        order: which changes reached the disk.
        names: entries by path.
        contents: bytes of the files.
        inodes: of the files, when the command ran.
    """

    order: str
    names: dict[str, Entry]
    contents: dict[int, bytes]
    inodes: dict[int, int]

    def build(self, folder: Path, before: Disk, *, receipts: bool = True) -> None:
        """Make the folder. Files and folders that did not change keep their times.

        Args:
            receipts: let receipts name the inodes of the built photos, because a power cut keeps inodes. The receipts
                are then other files than before.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        made: dict[int, str] = {}
        for path, entry in sorted(self.names.items()):
            if path == str(folder) or not os.path.isdir(os.path.dirname(path)):
                continue  # its folder is lost, and so is it
            if _is_folder(entry):
                os.mkdir(path)
            elif isinstance(entry, str):
                os.symlink(entry, path)
            elif entry in made:
                os.link(made[entry], path)
            else:
                Path(path).write_bytes(self.contents.get(entry, b""))
                made[entry] = path
        before.restore_times(folder)
        for note in folder.rglob("outputs.json"):
            self._renumber(note)
        for receipt in folder.rglob("receipt.jsonl") if receipts else ():
            receipt.write_bytes(
                b"".join(map(partial(self._renumbered, receipt), receipt.read_bytes().splitlines(True)))
            )

    def _renumbered(self, receipt: Path, line: bytes) -> bytes:
        """The line of a receipt, with the inode of the built photo: in `photos`, or in the folder of its cluster."""
        try:
            facts = json.loads(line)
            places = [str(top / facts["photo"]) for top in (receipt.parent, receipt.parent / "photos")]
        except (ValueError, KeyError):
            return line
        path = next((place for place in places if place in self.names), "")
        entry = self.names.get(path)
        if isinstance(entry, int) and self.inodes.get(entry) == facts["seen"][0] and os.path.lexists(path):
            facts["seen"][0] = os.lstat(path).st_ino
            os.utime(path, ns=(facts["seen"][2], facts["seen"][2]))
        return json.dumps(facts).encode() + b"\n"

    def _renumber(self, note: Path) -> None:
        """Let a note of outputs name the inodes of the built files and folders: a power cut keeps inodes."""
        try:
            facts = json.loads(note.read_bytes())
        except ValueError:
            return
        for path, place in facts["places"].items():
            entry = self.names.get(path)
            if not os.path.lexists(path) or not isinstance(entry, int):
                continue
            inode = os.lstat(path).st_ino
            if _is_folder(entry):
                place[1] = inode
            elif self.inodes[entry] == place[1]:
                place[1] = inode
                os.utime(path, ns=(place[3], place[3]))
        note.write_text(json.dumps(facts))

    def key(self) -> tuple[object, ...]:
        """What two states that are the same have in common."""
        entries = ((path, self.contents.get(e) if isinstance(e, int) else e) for path, e in self.names.items())
        return tuple(sorted((path, repr(entry)) for path, entry in entries))


@dataclass(frozen=True, slots=True)
class _Change:
    """A name that changed: by which operation, and its entries before and after."""

    operation: int
    path: str
    before: Entry | None
    after: Entry | None


class Disk:
    """Names and contents below a folder, as the kernel has them and as the disk has them.

    Attributes:
        names, contents: as programs see them.
        durable_names, durable_contents: what is certainly on the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = 0
        self.names: dict[str, Entry] = {str(folder): self._new_folder()}
        self.contents: dict[int, bytearray] = {}
        self._numbers: dict[int, int] = {}  # of a file, by its present inode; the system uses inodes again
        self._all_inodes: list[tuple[int, int]] = []
        self._operations = 0
        self._moves: set[int] = set()  # numbers of the operations that rename folders
        self._pending: list[_Change] = []
        self._times: dict[str, tuple[int, object]] = {}
        for path in folder.rglob("*"):
            status = path.lstat()
            if path.is_symlink():
                self.names[str(path)] = os.readlink(path)
            elif path.is_dir():
                self.names[str(path)] = self._new_folder()
            else:
                known = status.st_ino in self._numbers
                self.names[str(path)] = self._numbers[status.st_ino] if known else self._new(status.st_ino)
                self.contents[self._numbers[status.st_ino]] = bytearray(path.read_bytes())
            self._times[str(path)] = (status.st_mtime_ns, _look(path))
        self.durable_names = dict(self.names)
        self.durable_contents = {number: bytes(content) for number, content in self.contents.items()}

    def _new(self, inode: int) -> int:
        number = len(self.contents)
        self._numbers[inode] = number
        self._all_inodes.append((inode, number))
        self.contents[number] = bytearray()
        return number

    def _new_folder(self) -> int:
        self._folders -= 1
        return self._folders

    def restore_times(self, folder: Path) -> None:
        for path, (time_ns, look) in sorted(self._times.items(), reverse=True):
            if os.path.lexists(path) and _look(Path(path)) == look:
                os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)

    def _set(self, path: str, entry: Entry | None) -> None:
        self._pending.append(_Change(self._operations, path, self.names.get(path), entry))
        if entry is None:
            self.names.pop(path, None)
        else:
            self.names[path] = entry

    def apply(self, operation: Operation) -> None:
        """Let an operation that has happened change what programs see, and what is durable."""
        path, inode, data = operation.path, operation.inode, operation.data
        self._operations += 1
        match operation.kind:
            case Kind.OPEN:
                entry = self.names.get(path)
                if _is_folder(entry):  # a file without a name
                    self.durable_contents[self._new(inode)] = b""
                elif not isinstance(entry, int):
                    self._set(path, self._new(inode))
                    self.durable_contents[self._numbers[inode]] = b""
                elif operation.sized:
                    self.contents[entry].clear()
            case Kind.WRITE:
                content = self.contents[self._numbers[inode]]
                content.extend(bytes(max(0, operation.sized - len(content))))
                content[operation.sized : operation.sized + len(data)] = data
            case Kind.TRUNCATE:
                content = self.contents[self._numbers[inode]]
                content.extend(bytes(max(0, operation.sized - len(content))))
                del content[operation.sized :]
            case Kind.SYNC if operation.sized:
                self._sync_folder(path)
            case Kind.SYNC:
                number = self._numbers[inode]
                self.durable_contents[number] = bytes(self.contents[number])
            case Kind.RENAME:
                self._rename(path, operation.other)
            case Kind.LINK:
                self._set(operation.other, self._numbers[inode])
            case Kind.SYMLINK:
                self._set(path, operation.other)
            case Kind.UNLINK:
                self._set(path, None)
            case Kind.RMDIR:
                self._leave(path)
                self._set(path, None)
            case Kind.MKDIR:
                self._set(path, self._new_folder())

    def _sync_folder(self, folder: str) -> None:
        for path in {*self.names, *self.durable_names}:
            if os.path.dirname(path) == folder:
                if path in self.names:
                    self.durable_names[path] = self.names[path]
                else:
                    self.durable_names.pop(path)
        self._pending = [change for change in self._pending if os.path.dirname(change.path) != folder]

    def _leave(self, path: str) -> None:
        """Keep the names in a removed folder apart from those of the next folder at its place."""
        gone = f"{path}{_GONE}{self.names[path]}"
        for name in [name for name in self.durable_names if name.startswith(path + "/")]:
            self.durable_names[gone + name[len(path) :]] = self.durable_names.pop(name)
        self._pending = [
            replace(change, path=gone + change.path[len(path) :]) if change.path.startswith(path + "/") else change
            for change in self._pending
        ]

    def _rename(self, path: str, other: str) -> None:
        """Rename a file, or a folder with all that is in it: what was durable there stays so."""
        if _is_folder(self.names[path]):
            self._moves.add(self._operations)
            for names in (self.names, self.durable_names):
                for name in [name for name in names if name.startswith(path + "/")]:
                    names[other + name[len(path) :]] = names[name]
            for name in [name for name in self.names if name.startswith(path + "/")]:
                del self.names[name]
            self._pending = [
                replace(change, path=other + change.path[len(path) :]) if change.path.startswith(path + "/") else change
                for change in self._pending
            ]
        self._set(other, self.names[path])
        self._set(path, None)

    def states(self, rng: random.Random) -> Iterator[State]:
        """Yield what a power cut at this moment may leave, in six orders of writing."""
        for state in self._orders(rng):
            yield replace(state, names=_in_their_folders(state.names))

    def _orders(self, rng: random.Random) -> Iterator[State]:
        seen = {number: bytes(content) for number, content in self.contents.items()}
        durable = self.durable_contents
        zeros = {number: _zeros(durable.get(number, b""), content) for number, content in seen.items()}
        inodes = {number: inode for inode, number in self._all_inodes}
        yield State("only what was synced", dict(self.durable_names), dict(durable), inodes)
        yield State("names first, no content", dict(self.names), dict(durable), inodes)
        yield State("names first, zeros for content", dict(self.names), zeros, inodes)
        yield State("content first, no names", dict(self.durable_names), seen, inodes)
        some, unlinked = dict(self.durable_names), dict(self.names)
        for _, changes in groupby(self._pending, lambda change: change.operation):  # a journal keeps a renaming whole
            if rng.random() < 0.5:
                for change in changes:
                    _put(some, change.path, change.after)
        yield State("some of the names", some, dict(durable), inodes)
        for change in reversed(self._pending):
            if change.after is not None and change.operation not in self._moves:
                _put(unlinked, change.path, change.before)
        yield State("deletions first", unlinked, dict(durable), inodes)

    def lost_below(self, folder: str) -> list[str]:
        """Paths below a folder whose names or contents are not durable."""
        return [
            path
            for path, entry in self.names.items()
            if path.startswith(folder + "/")
            and (
                self.durable_names.get(path) != entry
                or (isinstance(entry, int) and entry >= 0 and self.durable_contents.get(entry) != self.contents[entry])
            )
        ]


def _is_folder(entry: Entry | None) -> bool:
    return isinstance(entry, int) and entry < 0


def _in_their_folders(names: dict[str, Entry]) -> dict[str, Entry]:
    """The names, of which those in a removed folder are there only if the folder itself is."""
    there: dict[str, Entry] = {}
    for name, entry in names.items():
        place = ""
        for part in name.split("/")[1:]:
            plain, _, folder = part.partition(_GONE)
            place += f"/{plain}"
            if folder and names.get(place) != int(folder):
                break
        else:
            there.setdefault(place, entry)
    return there


def _zeros(durable: bytes, content: bytes) -> bytes:
    """Zeros in place of the content, apart from what was synced before something was appended to it."""
    kept = durable if content.startswith(durable) else b""
    return kept + bytes(len(content) - len(kept))


def _put(names: dict[str, Entry], path: str, entry: Entry | None) -> None:
    if entry is None:
        names.pop(path, None)
    else:
        names[path] = entry


def _look(path: Path) -> object:
    """What must be the same for a file or folder to keep its time."""
    if path.is_symlink():
        return os.readlink(path)
    return sorted(os.listdir(path)) if path.is_dir() else path.read_bytes()
