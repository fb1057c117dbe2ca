"""A power cut after a file operation: the old file or the new one is there, and the same command ends as undisturbed.

What was not synced is lost, in six orders. The states are a sample with a fixed seed;
`benchmarks/chaos.py --power-cuts` tries all of them.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.faults.case import Case
from tests.support.faults.disk import Disk
from tests.support.faults.laboratory import Laboratory
from tests.support.faults.operations import Kind, Operation
from tests.support.faults.power_cuts import Recorded

COMMANDS = (
    *(
        "process",
        "process-pages",
        "retry",
        "add",
        "merge",
        "remove",
        "repair",
        "cluster",
        "cluster-again",
        "attributes",
        "attributes-embeddings",
        "filter",
        "pairs",
        "export-npy",
        "export-parquet",
    ),
    *("index-flat", "index-ivf", "index-sq8", "map"),
)
SAMPLE = 6


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_power_cut_loses_nothing(cases: dict[str, Case], laboratory: Laboratory, tmp_path: Path, name: str) -> None:
    recorded = Recorded(laboratory, cases[name], tmp_path / "folder")
    assert recorded.unsynced == []
    cuts = recorded.sample(SAMPLE, random.Random(name))
    assert len(cuts) == min(SAMPLE, len(recorded.cuts))
    assert [text for cut in cuts for text in recorded.violations(cut)] == []


def operation(
    kind: Kind, path: Path, other: Path | str = "", sized: int = 0, inode: int = 7, data: bytes = b""
) -> Operation:
    return Operation(kind, True, str(path), str(other), sized, inode, data)


@pytest.mark.slow
def test_the_modelled_disk_keeps_only_what_was_synced(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"old")
    disk, before = Disk(tmp_path), Disk(tmp_path)
    new, old, rng = tmp_path / "new", tmp_path / "o", random.Random(0)

    def left() -> dict[str, set[bytes]]:
        """What each name may hold after a power cut; b"?" if it may be missing."""
        held: dict[str, set[bytes]] = {"o": set(), "new": set()}
        for state in (state for _ in range(12) for state in disk.states(rng)):
            state.build(tmp_path, before)
            for name, contents in held.items():
                path = tmp_path / name
                contents.add(path.read_bytes() if path.exists() else b"?")
        return held

    disk.apply(operation(Kind.OPEN, new))
    disk.apply(operation(Kind.WRITE, new, data=b"data"))
    assert left() == {"o": {b"old"}, "new": {b"?", b"", b"\0\0\0\0"}}
    disk.apply(operation(Kind.SYNC, new))
    assert left() == {"o": {b"old"}, "new": {b"?", b"data"}}
    disk.apply(operation(Kind.RENAME, new, old))
    assert left() == {"o": {b"old", b"data"}, "new": {b"?", b"data"}}
    disk.apply(operation(Kind.SYNC, tmp_path, sized=1))
    assert left() == {"o": {b"data"}, "new": {b"?"}}
