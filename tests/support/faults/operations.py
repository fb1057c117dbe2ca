"""The file operations of a process: numbered, recorded, failed or used to kill it. `faults.c` stands in between."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("faults.c")
_HEAD = struct.Struct("<IIIIqQ")
_ABOUT_TO_HAPPEN = 256


class Kind(IntEnum):
    """Kinds of operations, in the order of `faults.c`. READ includes opening for reading."""

    OPEN = 0
    READ = 1
    WRITE = 2
    SYNC = 3
    RENAME = 4
    LINK = 5
    SYMLINK = 6
    UNLINK = 7
    RMDIR = 8
    MKDIR = 9
    TRUNCATE = 10
    CHMOD = 11


CHANGES = frozenset(Kind) - {Kind.READ}
TAKES_SPACE = frozenset({Kind.OPEN, Kind.WRITE, Kind.SYNC, Kind.LINK, Kind.SYMLINK, Kind.MKDIR, Kind.TRUNCATE})


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one operation.

    Attributes:
        mode: 0 record only, 1 kill, 2 fail once, 3 fail from there on.
        kinds: the kinds of operations that are numbered.
        number: the operation, from 1.
        code: error of the system.
    """

    mode: int
    kinds: frozenset[Kind]
    number: int = 0
    code: int = 0

    @property
    def bits(self) -> int:
        return sum(1 << kind for kind in self.kinds)


def record() -> Fault:
    """Every operation in turn is recorded and none fails."""
    return Fault(0, frozenset(Kind))


def kill(number: int) -> Fault:
    """A SIGKILL in place of an operation that changes the disk."""
    return Fault(1, CHANGES, number)


def read_error(number: int) -> Fault:
    """One EIO at any operation, reads included."""
    return Fault(2, frozenset(Kind), number, errno.EIO)


def full_disk(number: int) -> Fault:
    """ENOSPC at every operation that takes space, from one on."""
    return Fault(3, TAKES_SPACE, number, errno.ENOSPC)


@dataclass(frozen=True, slots=True)
class Operation:
    """One recorded operation.

    Attributes:
        kind: its kind.
        happened: a change that has happened; false for an operation that is about to happen, which may fail.
        path: path of the file.
        other: the second path of a rename or link, or the content of a symbolic link.
        sized: offset of a write, length of a truncation, 1 for a sync of a folder or an opening that truncates.
        inode: number of the file; 0 if it does not matter.
        data: bytes of a write.
    """

    kind: Kind
    happened: bool
    path: str
    other: str
    sized: int
    inode: int
    data: bytes


def read_record(path: Path) -> Iterator[Operation]:
    """Read the operations that `faults.c` recorded."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        kind, name_bytes, other_bytes, data_bytes, sized, inode = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        parts = []
        for size in (name_bytes, other_bytes, data_bytes):
            parts.append(content[at : at + size])
            at += size
        happened = not kind & _ABOUT_TO_HAPPEN
        yield Operation(
            Kind(kind & ~_ABOUT_TO_HAPPEN),
            happened,
            os.fsdecode(parts[0]),
            os.fsdecode(parts[1]),
            sized,
            inode,
            parts[2],
        )


@cache
def build_library() -> Path:
    """Compile `faults.c`; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: apt install gcc")
    library = Path(tempfile.mkdtemp(prefix="facemill-faults-")) / "faults.so"
    command = [compiler, "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"]
    subprocess.run([*map(str, command), "-lpthread"], check=True, capture_output=True, text=True)
    return library
