"""Cut the power after each file operation of a command, and say what does not hold afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .case import Case
from .disk import Disk, State
from .laboratory import Laboratory
from .operations import Kind, Operation

_BUG = ("Traceback", "this is a bug")
_DONE = ("exists", "already")  # a command refuses to do again what it had finished
_MARK = ".facemill.json"  # says that a folder is finished
_TEMPORARY = (".partial", ".parts")


@dataclass(frozen=True, slots=True)
class Cut:
    """A power cut.

    Attributes:
        number, operation: after which operation.
        state: what it leaves.
    """

    number: int
    operation: str
    state: State


class Recorded:
    """A command that ran undisturbed, with everything that it did.

    Attributes:
        case: the command.
        cuts: the different states that a power cut may leave, in order.
        unsynced: statements that were made durable before what they speak of; empty if the command is right.
    """

    def __init__(self, laboratory: Laboratory, case: Case, folder: Path, seed: int = 0) -> None:
        self.case, self._laboratory, self._folder = case, laboratory, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        case.prepare(folder)
        self._before = Disk(folder)
        disk = Disk(folder)
        outcome, recorded = laboratory.record(case.arguments(folder), folder)
        assert outcome.code == 0, outcome.stderr
        self.cuts: list[Cut] = []
        self.unsynced: list[str] = []
        rng, seen = random.Random(seed), set[bytes]()
        for number, operation in enumerate((item for item in recorded if item.happened), 1):
            self.unsynced += _unsynced(disk, operation, str(folder))
            disk.apply(operation)
            text = f"{operation.kind.name} {operation.path.removeprefix(f'{folder}/')}"
            for state in disk.states(rng):
                key = hashlib.sha256(repr(state.key()).encode()).digest()
                if key not in seen:
                    seen.add(key)
                    self.cuts.append(Cut(number, text, state))

    def sample(self, most: int, rng: random.Random) -> list[Cut]:
        """All cuts, or some of them."""
        if len(self.cuts) <= most:
            return self.cuts
        return sorted(rng.sample(self.cuts, most), key=lambda cut: cut.number)

    def violations(self, cut: Cut) -> Iterator[str]:
        """Restart after a power cut: the old file or the new one is there, and the same command ends as undisturbed."""
        case, folder = self.case, self._folder
        place = f"{case.name}, after operation {cut.number} ({cut.operation}), {cut.state.order}"
        # `remove` reads no receipt, and leaves a folder alone that was changed.
        cut.state.build(folder, self._before, receipts=case.name != "remove")
        wrong = _result(lambda: case.between(folder))
        if wrong:
            yield f"{place}: {wrong}"
        again = self._laboratory.run(case.arguments(folder), folder)
        if again.hang or again.code < 0 or any(text in again.stderr for text in _BUG):
            yield f"{place}: the same command again ends with {again.code}: {again.stderr[-800:]}"
            return
        for left in folder.glob("*.parts"):  # without a plan or a part; the next writer of the file removes it
            if os.listdir(left) in ([], ["lock"]):
                shutil.rmtree(left)
        wrong = _result(lambda: case.wrong_at_end(folder))
        if wrong:
            yield f"{place}: the same command again (exit {again.code}: {again.stderr[-300:]!r}) leaves: {wrong}"
        elif again.code and not any(text in again.stderr for text in _DONE):
            yield f"{place}: the same command again ends with {again.code}: {again.stderr[-300:]}"


def _result(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as err:
        return repr(err)


def _unsynced(disk: Disk, operation: Operation, folder: str) -> Iterator[str]:
    """Say what a statement that now becomes durable speaks of and is not durable.

    A new name states that the content is whole; a mark, that its folder is; the deletion of a file that was durable,
    that what replaces it is. Names that are synced in a folder are of use only if the folder itself has a durable name.
    """

    def short(paths: list[str]) -> list[str]:
        return [path.removeprefix(f"{folder}/") for path in paths]

    if operation.kind in (Kind.RENAME, Kind.LINK):
        entry = disk.names.get(operation.path)
        final = not operation.other.endswith(_TEMPORARY)
        if final and isinstance(entry, int) and entry >= 0:
            if disk.durable_contents.get(entry) != disk.contents[entry]:
                yield f"{short([operation.other])} gets its name before its content is synced"
            if os.path.basename(operation.other) == _MARK and json.loads(disk.contents[entry])["finished"]:
                below = os.path.dirname(operation.other)
                lost = [path for path in disk.lost_below(below) if not os.path.basename(path).startswith(_MARK)]
                if lost:
                    yield f"{short([below])} is marked as finished before {short(lost)[:3]} are synced"
    elif operation.kind is Kind.SYNC and operation.sized and operation.path not in disk.durable_names:
        yield f"{short([operation.path])} is synced before its own name is"
    elif operation.kind is Kind.UNLINK and operation.path in disk.durable_names:
        entry = disk.names.get(operation.path)
        if isinstance(entry, int) and not operation.path.endswith(_TEMPORARY):
            others = [path for path in disk.lost_below(folder) if not _is_temporary(path)]
            if others:
                yield f"{short([operation.path])} is deleted before {short(others)[:3]} are synced"


def _is_temporary(path: str) -> bool:
    return any(text in path for text in _TEMPORARY)
