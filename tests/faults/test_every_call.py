"""A fault at file operations of a run and a retry: killed there, one read error, a full disk from there.

After each fault the old file or the new one is there, whole; the command says what failed; and the same command again
ends with the file of an undisturbed run. The operations are a sample with a fixed seed; tests/support/faults also knows
the other commands that write, which do not yet pass at every operation.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.faults.commands import Case
from tests.support.faults.every_call import FAULTS, operations, places, violations
from tests.support.faults.laboratory import Laboratory

COMMANDS = ("process", "retry")
SAMPLE = 30  # of each fault of each command


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_loses_nothing(cases: dict[str, Case], laboratory: Laboratory, tmp_path: Path, name: str) -> None:
    case, folder = cases[name], tmp_path / "folder"
    listed = operations(laboratory, case, folder)
    rng = random.Random(name)
    for fault in FAULTS:
        chosen = places(listed, fault, SAMPLE, rng)
        assert chosen
        for number, operation in chosen:
            assert list(violations(laboratory, case, folder, fault, number, operation)) == []
