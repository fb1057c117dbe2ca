"""Try a command with a fault at each of its file operations, and say what does not hold afterwards."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .case import Case
from .laboratory import Laboratory, Outcome
from .operations import CHANGES, TAKES_SPACE, Fault, Kind, full_disk, kill, read_error

# The faults, with the operations that are numbered for each.
FAULTS: dict[str, tuple[Callable[[int], Fault], frozenset[Kind]]] = {
    "kill": (kill, CHANGES),
    "read error": (read_error, frozenset(Kind)),
    "full disk": (full_disk, TAKES_SPACE),
}
_BUG = ("Traceback", "this is a bug")


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must hold and does not.

    Attributes:
        case, fault: names of the command and the fault.
        number, operation: the place of the fault.
        text: what is wrong.
    """

    case: str
    fault: str
    number: int
    operation: str
    text: str

    def __str__(self) -> str:
        return f"{self.case}, {self.fault} at {self.number} ({self.operation}): {self.text}"


def operations(laboratory: Laboratory, case: Case, folder: Path) -> list[tuple[Kind, str]]:
    """The operations of an undisturbed run, in order: kind and name. The run must end well."""
    _fresh(case, folder)
    outcome, recorded = laboratory.record(case.arguments(folder), folder)
    assert outcome.code == 0, outcome.stderr
    wrong = case.wrong_at_end(folder)
    assert not wrong, f"{case.name} without a fault: {wrong}"
    return [(item.kind, item.path.removeprefix(f"{folder}/")) for item in recorded if not item.happened]


def places(listed: list[tuple[Kind, str]], fault: str, most: int | None, rng: random.Random) -> list[tuple[int, str]]:
    """Numbers of the operations for a fault, with what happens there: all of them, or a sample of at most `most`."""
    counted = [item for item in listed if item[0] in FAULTS[fault][1]]
    numbered = [(number, f"{kind.name} {name}") for number, (kind, name) in enumerate(counted, 1)]
    if most is None or len(numbered) <= most:
        return numbered
    return sorted(rng.sample(numbered, most))


def violations(
    laboratory: Laboratory, case: Case, folder: Path, fault: str, number: int, operation: str
) -> Iterator[Violation]:
    """Run a command with one fault, then the same command undisturbed, and compare with what must hold."""
    _fresh(case, folder)
    outcome = laboratory.run(case.arguments(folder), folder, FAULTS[fault][0](number))

    def violation(text: str) -> Violation:
        return Violation(case.name, fault, number, operation, text)

    if outcome.hang:
        yield violation("it hangs")
    if any(text in outcome.stderr for text in _BUG):
        yield violation(f"a traceback: {outcome.stderr[-600:]}")
    if outcome.code < 0 and fault != "kill":
        yield violation(f"signal {-outcome.code}")
    try:
        between = case.between(folder)
    except Exception as err:
        between = repr(err)
    if between:
        yield violation(f"after the fault: {between}")
    if outcome.code == 0:
        wrong = _wrong_at_end(case, folder)
        if wrong:
            yield violation(f"exit 0, but {wrong}; it said: {outcome.stderr[-300:]}")
    again = laboratory.run(case.arguments(folder), folder)
    if any(text in again.stderr for text in _BUG):
        yield violation(f"a traceback of the same command again: {again.stderr[-600:]}")
    wrong = _wrong_at_end(case, folder)
    if wrong:
        yield violation(f"the same command again (exit {again.code}: {again.stderr[-300:]!r}) leaves: {wrong}")
    elif again.code and not _says_that_it_is_done(again):
        yield violation(f"the same command again ends with {again.code}: {again.stderr[-300:]}")


def _fresh(case: Case, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case.prepare(folder)


def _wrong_at_end(case: Case, folder: Path) -> str:
    try:
        return case.wrong_at_end(folder)
    except Exception as err:
        return repr(err)


def _says_that_it_is_done(outcome: Outcome) -> bool:
    """Whether a command refuses to do again what the disturbed run had finished."""
    return "exists" in outcome.stderr or "already" in outcome.stderr
