"""A fault at file operations of the commands that write: killed there, one read error, a full disk from there.

After each fault the old files or the new ones are there, whole; the command says what failed; and the same command
again ends with the files of an undisturbed run, and leaves nothing else. The operations are a sample with a fixed seed;
`benchmarks/chaos.py --every-call` tries all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.faults.commands import Case
from tests.support.faults.every_call import FAULTS, operations, places, violations
from tests.support.faults.laboratory import Laboratory
from tests.support.faults.operations import Kind

# The number of operations to try with each fault: fewer for commands that take longer.
COMMANDS = {
    "process": 10,
    "retry": 10,
    "add": 10,
    "merge": 16,
    "repair": 3,
    "cluster": 8,
    "pairs": 10,
    "export-npy": 16,
    "export-npy-again": 8,
    "export-parquet": 14,
    "export-qdrant": 6,
    "index-flat": 8,
    "index-ivf": 6,
    "index-sq8": 6,
    "map": 6,
    "search-page": 4,
    "evaluate": 3,
    "build-engine": 6,
}


@pytest.fixture(scope="module")
def operations_of(
    cases: dict[str, Case], laboratory: Laboratory, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[tuple[Kind, str]]]:
    """A function that lists the operations of a command, undisturbed."""
    return cache(lambda name: operations(laboratory, cases[name], tmp_path_factory.mktemp("undisturbed") / "folder"))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_loses_nothing(
    cases: dict[str, Case],
    laboratory: Laboratory,
    operations_of: Callable[[str], list[tuple[Kind, str]]],
    tmp_path: Path,
    name: str,
    fault: str,
) -> None:
    chosen = places(operations_of(name), fault, COMMANDS[name], random.Random(f"{name} {fault}"))
    assert chosen
    for number, operation in chosen:
        assert list(violations(laboratory, cases[name], tmp_path / "folder", fault, number, operation)) == []


def test_every_command_that_writes_is_disturbed(cases: dict[str, Case]) -> None:
    assert set(cases) - set(COMMANDS) == {"remove"}
