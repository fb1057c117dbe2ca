"""The whole search: stopped anywhere, within a budget, with too many pairs."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.clusters.clusters import number_clusters
from runtime.clusters.outputs import write_column
from runtime.errors import ConfigError, LockedError, StorageError, TooManyPairsError
from runtime.pairs.approximate import make_lists
from runtime.pairs.checkpoint import Checkpoint
from runtime.pairs.pairs import PairQuery, PairResult, find_pairs
from runtime.pairs.tiles import Tiling
from runtime.progress import Reporter
from runtime.storage.file import EmbeddingFile
from tests.support.duplicate_people import Pair, pairs_by_numpy, rows_with_duplicates, write_rows
from tests.support.errors import raises, warnings_in
from tests.support.facemill_command import ROOT

EVERY_BLOCK = PairQuery(0.4, device="cpu", tile_rows=100, save_every_s=0)
IN_NO_TIME = replace(EVERY_BLOCK, threshold=0.7, budget_s=1e-9)


def listed(pairs: PairResult) -> list[Pair]:
    found = pairs.pairs
    return list(zip(found.first.tolist(), found.second.tolist(), found.scores.tolist(), strict=True))


def search(path: Path, wanted: PairQuery = EVERY_BLOCK, *, force: bool = False) -> PairResult:
    """As the command does, which removes the parts when it has written its output."""
    with EmbeddingFile(path) as gallery, Checkpoint(path) as parts:
        found = find_pairs(gallery, parts, wanted, force=force)
        parts.remove()
        return found


def parts_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.pairs.parts/*"))


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the search fail after so many blocks, as a bug or a full memory would."""
    real = Reporter.advance

    def after(blocks: int | None) -> None:
        left = [blocks]

        def advance(self: Reporter, units: int = 0, counts: Any = None) -> None:
            if left[0] is not None and units:
                left[0] -= 1
                if left[0] < 0:
                    raise MemoryError("for the test")
            real(self, units, counts)

        monkeypatch.setattr(Reporter, "advance", advance)

    return after


def test_pairs_are_those_of_numpy_best_first_and_nothing_is_left_behind(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(730)
    path = write_rows(tmp_path / "p.h5", vectors)
    found = search(path)
    assert listed(found) == pairs_by_numpy(vectors, 0.4)
    assert found.compared == 730 * 729 // 2
    assert found.share is None
    assert found.method().startswith("exact")
    assert sorted(tmp_path.iterdir()) == [path]


def test_two_faces_of_one_photograph_are_no_pair(tmp_path: Path) -> None:
    counts = [3, 1, 5, 0, 2, 1] * 10
    vectors = rows_with_duplicates(sum(counts))
    vectors[1] = vectors[0] = vectors[3]  # two faces of the first photograph, and the one of the second
    path = write_rows(tmp_path / "p.h5", vectors, counts=counts)
    photograph = np.repeat(np.arange(len(counts)), counts)
    found = search(path, replace(EVERY_BLOCK, threshold=0.2))
    wanted = pairs_by_numpy(vectors, 0.2)
    apart = [pair for pair in wanted if photograph[pair[0]] != photograph[pair[1]]]
    assert listed(found) == apart
    assert found.same_photograph == len(wanted) - len(apart) > 0
    assert {(0, 3), (1, 3)} <= {pair[:2] for pair in listed(found)}


@pytest.mark.parametrize("wanted", [EVERY_BLOCK, IN_NO_TIME], ids=["exact", "near"])
def test_it_goes_on_from_the_last_block_whenever_it_stops(tmp_path: Path, crash: Any, wanted: PairQuery) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(730))
    whole = search(path, wanted)
    compared = 0
    for blocks in (0, 1, 5, 3):
        crash(blocks)
        with pytest.raises(MemoryError):
            search(path, wanted)
        compared += blocks
    parts = [part for part in parts_of(path) if part.name.startswith("part-")]
    assert len(parts) == compared
    crash(None)
    rest = search(path, wanted)
    assert listed(rest) == listed(whole)
    assert rest.share == whole.share
    assert 0 < rest.compared < whole.compared
    if rest.share is None:
        tiling = Tiling(730, 100)
        assert rest.compared == sum(map(tiling.pairs, tiling.blocks()[compared:]))
    assert not parts_of(path)


def test_blocks_of_little_work_are_saved_together(tmp_path: Path, crash: Any) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(730))
    crash(10)
    with pytest.raises(MemoryError):
        search(path, replace(EVERY_BLOCK, save_every_s=1e9))
    assert {part.name for part in parts_of(path)} <= {"lock", "plan.json"}


def test_another_question_is_refused_and_force_drops_the_old_one(tmp_path: Path, crash: Any) -> None:
    vectors = rows_with_duplicates(330)
    path = write_rows(tmp_path / "p.h5", vectors)
    crash(3)
    with pytest.raises(MemoryError):
        search(path)
    crash(None)
    with raises(ConfigError, "threshold", 0.4, 0.5, "--force"):
        search(path, replace(EVERY_BLOCK, threshold=0.5))
    assert len(parts_of(path)) == 5
    found = search(path, replace(EVERY_BLOCK, threshold=0.5), force=True)
    assert listed(found) == pairs_by_numpy(vectors, 0.5)


def test_force_goes_on_with_the_same_question(tmp_path: Path, crash: Any) -> None:
    vectors = rows_with_duplicates(330)
    path = write_rows(tmp_path / "p.h5", vectors)
    crash(3)
    with pytest.raises(MemoryError):
        search(path, force=True)
    crash(None)
    found = search(path, force=True)
    assert listed(found) == pairs_by_numpy(vectors, 0.4)
    assert found.compared < 330 * 329 // 2


def test_a_column_or_a_calibration_written_meanwhile_drops_nothing(tmp_path: Path, crash: Any) -> None:
    vectors = rows_with_duplicates(330)
    path = write_rows(tmp_path / "p.h5", vectors)
    crash(3)
    with pytest.raises(MemoryError):
        search(path)
    crash(None)
    one = number_clusters(np.zeros(330, np.int64), np.ones(330, np.float32), method="k-means", k=1)
    write_column(path, one, "r")
    found = search(path)
    assert listed(found) == pairs_by_numpy(vectors, 0.4)
    assert found.compared < 330 * 329 // 2


def test_parts_of_a_file_that_has_changed_are_dropped(
    tmp_path: Path, crash: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(330))
    crash(3)
    with pytest.raises(MemoryError):
        search(path)
    crash(None)
    changed = rows_with_duplicates(330, seed=1)
    with h5py.File(path, "r+") as file:
        file["embeddings"][:] = changed
    with caplog.at_level(logging.INFO, "runtime"):
        assert listed(search(path)) == pairs_by_numpy(changed, 0.4)
    assert "has changed" in caplog.text


def test_of_too_many_copies_no_threshold_above_1_is_named(tmp_path: Path) -> None:
    copies = np.zeros((100, 16), np.float32)
    copies[:, 0] = np.float32(1.0000001)
    path = write_rows(tmp_path / "p.h5", copies)
    with raises(TooManyPairsError, "--max-pairs") as caught:
        search(path, replace(EVERY_BLOCK, threshold=0.5, max_pairs=100))
    assert "--threshold" not in str(caught.value)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "plan"])
def test_damaged_parts_are_told(tmp_path: Path, crash: Any, damage: str) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(330))
    crash(3)
    with pytest.raises(MemoryError):
        search(path)
    crash(None)
    (part,) = [part for part in parts_of(path) if part.name.startswith("part-0-1-")]
    data = bytearray(part.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        part.write_bytes(data)
    elif damage == "cut":
        part.write_bytes(data[:-7])
    elif damage == "lose":
        part.unlink()
    else:
        (part.parent / "plan.json").write_text("{")
    with raises(StorageError, part.parent):
        search(path)


def test_one_search_at_a_time(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(100))
    with Checkpoint(path), raises(LockedError):
        search(path)
    search(path)


SCRIPT = """
import sys
from pathlib import Path
from runtime.interrupt import SignalControl
from runtime.storage.file import EmbeddingFile
from runtime.pairs.pairs import PairQuery, find_pairs
from runtime.pairs.checkpoint import Checkpoint
from runtime.pairs.table import PairTable, write_table
path, output = map(Path, sys.argv[1:])
with EmbeddingFile(path) as gallery, Checkpoint(path) as parts:
    with SignalControl() as control:
        found = find_pairs(
            gallery, parts, PairQuery(0.7, device="cpu", tile_rows=50, save_every_s=0), control=control
        )
    write_table(output, gallery, PairTable(gallery, found.pairs, None))
    parts.remove()
"""


def start_facemill(path: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(path), str(output)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # small products on a busy machine
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)


def finish(path: Path, output: Path) -> None:
    process = start_facemill(path, output)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_again_and_again_it_gives_the_same_file(tmp_path: Path, how: signal.Signals) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(900, 16))
    whole, output = tmp_path / "whole.csv", tmp_path / "o.csv"
    finish(path, whole)
    rng, stopped = random.Random(int(how)), 0
    for _ in range(3):
        before = len(parts_of(path))
        process = start_facemill(path, output)
        while process.poll() is None and len(parts_of(path)) <= before + 2:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        if how is not signal.SIGKILL and process.returncode:
            assert "E-INTERRUPTED" in said
        stopped += process.returncode != 0
        assert output.exists() == (process.returncode == 0)
        if process.returncode == 0:
            break
    assert stopped
    finish(path, output)
    assert output.read_bytes() == whole.read_bytes()
    assert not parts_of(path)
    assert len(whole.read_text().splitlines()) == 1 + len(pairs_by_numpy(rows_with_duplicates(900, 16), 0.7))


def test_too_many_pairs_name_a_threshold_that_is_not_too_low(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(500)
    path = write_rows(tmp_path / "p.h5", vectors)
    with raises(TooManyPairsError, 100, "--threshold", "--max-pairs") as caught:
        search(path, replace(EVERY_BLOCK, threshold=0.1, max_pairs=100))
    named = float(str(caught.value).split("--threshold ")[1].split(",")[0])
    assert 0 < len(search(path, replace(EVERY_BLOCK, threshold=named, max_pairs=100)).pairs) <= 100
    assert not parts_of(path)


def test_with_enough_time_a_budget_changes_nothing(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(500)
    path = write_rows(tmp_path / "p.h5", vectors)
    found = search(path, replace(EVERY_BLOCK, budget_s=3600))
    assert listed(found) == pairs_by_numpy(vectors, 0.4)
    assert found.share is None


def test_without_time_it_finds_a_share_that_it_measures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = rows_with_duplicates(1900)
    path = write_rows(tmp_path / "p.h5", vectors)
    with caplog.at_level(logging.INFO, "runtime"):
        found = search(path, IN_NO_TIME)
    wanted = pairs_by_numpy(vectors, 0.7)
    assert set(listed(found)) < set(wanted)  # each with its exact score
    assert listed(found) == sorted(set(listed(found)), key=lambda pair: (-pair[2], pair[0], pair[1]))
    assert found.share == (pytest.approx(len(found.pairs) / len(wanted)), len(wanted))  # 1,900 rows: all are drawn
    assert found.share[0] > 0.3
    assert f"APPROXIMATE, to keep within the budget; share of pairs found: {100 * found.share[0]:.1f} %" in (
        found.method()
    )
    assert any("--budget" in warning for warning in warnings_in(caplog))
    assert found.compared < 1900 * 1899 // 4


def test_more_lists_find_more_and_all_find_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = rows_with_duplicates(1900)
    path = write_rows(tmp_path / "p.h5", vectors)
    with EmbeddingFile(path) as gallery:
        lists = make_lists(gallery, 0)
    ranks = len(lists.rows)
    assert lists.starts.shape == (ranks, 1900 // 64 + 1)
    for rank in range(ranks):
        assert sorted(lists.rows[rank].tolist()) == list(range(1900))
    shares = []
    for count in (1, 4, ranks):
        few = type(lists)(lists.rows[:count], lists.starts[:count])
        monkeypatch.setattr("runtime.pairs.pairs.make_lists", lambda *_, few=few: few)
        monkeypatch.setattr("runtime.pairs.approximate.NearLists.limit", lambda self, most: self)
        found = search(path, IN_NO_TIME)
        assert found.share is not None
        shares.append(found.share[0])
    assert shares == sorted(shares)
    assert shares[0] < shares[2] == 1
    assert listed(found) == pairs_by_numpy(vectors, 0.7)  # each once, though most are in two lists


def test_as_many_lists_as_the_comparisons_allow(tmp_path: Path) -> None:
    with EmbeddingFile(write_rows(tmp_path / "p.h5", rows_with_duplicates(1900))) as gallery:
        lists = make_lists(gallery, 0)
    ranks = [len(lists.limit(most).rows) for most in (0, lists.pairs().sum() // 2, lists.pairs().sum())]
    assert ranks[0] == 1 < ranks[1] < ranks[2] == len(lists.rows)
    assert lists.limit(lists.pairs().sum() // 2).pairs().sum() <= lists.pairs().sum() // 2


def test_a_plan_names_what_it_is(tmp_path: Path, crash: Any) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(330))
    crash(0)
    with pytest.raises(MemoryError):
        search(path)
    plan = json.loads((tmp_path / "p.h5.pairs.parts" / "plan.json").read_text())
    assert plan["source"]["size_bytes"] == os.path.getsize(path)
    assert (plan["threshold"], plan["tile_rows"], plan["near"]) == (0.4, 100, False)
