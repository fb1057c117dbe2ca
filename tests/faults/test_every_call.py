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

from tests.support.faults.case import Case
from tests.support.faults.every_call import FAULTS, operations, places, violations
from tests.support.faults.laboratory import Laboratory
from tests.support.faults.operations import Kind

# The number of operations to try with each fault: fewer for commands that take longer.
COMMANDS = {
    "process": 8,
    "process-pages": 4,
    "retry": 8,
    "add": 8,
    "remove": 2,
    "merge": 22,
    "repair": 2,
    "cluster": 4,
    "cluster-again": 4,
    "attributes": 3,
    "attributes-embeddings": 3,
    "filter": 3,
    "pairs": 5,
    "export-npy": 30,
    "export-npy-again": 11,
    "export-parquet": 16,
    "export-qdrant": 4,
    "index-flat": 5,
    "index-ivf": 2,
    "index-sq8": 2,
    "map": 3,
    "search-page": 3,
    "evaluate": 2,
    "build-engine": 3,
}
FAST = ("pairs",)  # in `make test-fast`


@pytest.fixture(scope="module")
def operations_of(
    cases: dict[str, Case], laboratory: Laboratory, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[tuple[Kind, str]]]:
    """A function that lists the operations of a command, undisturbed."""
    return cache(lambda name: operations(laboratory, cases[name], tmp_path_factory.mktemp("undisturbed") / "folder"))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
)
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


@pytest.mark.slow
def test_every_command_that_writes_is_disturbed(cases: dict[str, Case]) -> None:
    assert set(cases) == set(COMMANDS)
