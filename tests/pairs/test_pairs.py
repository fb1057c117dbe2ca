"""The complete search for pairs: stops and resumes, budgets, too many pairs."""

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

SAVE_EVERY_BLOCK = PairQuery(0.4, device="cpu", tile_rows=100, save_every_s=0)
NO_BUDGET = replace(SAVE_EVERY_BLOCK, threshold=0.7, budget_s=1e-9)


def list_pairs(result: PairResult) -> list[Pair]:
    scored = result.pairs
    return list(zip(scored.first.tolist(), scored.second.tolist(), scored.scores.tolist(), strict=True))


def search(path: Path, query: PairQuery = SAVE_EVERY_BLOCK, *, force: bool = False) -> PairResult:
    """Search as the command does: find the pairs, then remove the parts."""
    with EmbeddingFile(path) as gallery, Checkpoint(path) as parts:
        result = find_pairs(gallery, parts, query, force=force)
        parts.remove()
        return result


def parts_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.pairs.parts/*"))


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the search fail after a number of blocks, as a bug or a full memory would."""
    original_advance = Reporter.advance

    def fail_after(blocks: int | None) -> None:
        remaining = [blocks]

        def advance(self: Reporter, units: int = 0, counts: Any = None) -> None:
            if remaining[0] is not None and units:
                remaining[0] -= 1
                if remaining[0] < 0:
                    raise MemoryError("for the test")
            original_advance(self, units, counts)

        monkeypatch.setattr(Reporter, "advance", advance)

    return fail_after


def test_pairs_equal_those_of_numpy_and_no_parts_remain(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(730)
    path = write_rows(tmp_path / "p.h5", vectors)
    result = search(path)
    assert list_pairs(result) == pairs_by_numpy(vectors, 0.4)
    assert result.compared == 730 * 729 // 2
    assert result.share is None
    assert result.method().startswith("exact")
    assert sorted(tmp_path.iterdir()) == [path]


def test_two_faces_of_one_photo_are_no_pair(tmp_path: Path) -> None:
    counts = [3, 1, 5, 0, 2, 1] * 10
    vectors = rows_with_duplicates(sum(counts))
    vectors[1] = vectors[0] = vectors[3]  # two faces of the first photo, and the face of the second
    path = write_rows(tmp_path / "p.h5", vectors, counts=counts)
    photo_of_row = np.repeat(np.arange(len(counts)), counts)
    result = search(path, replace(SAVE_EVERY_BLOCK, threshold=0.2))
    expected = pairs_by_numpy(vectors, 0.2)
    different_photos = [pair for pair in expected if photo_of_row[pair[0]] != photo_of_row[pair[1]]]
    assert list_pairs(result) == different_photos
    assert result.same_photograph == len(expected) - len(different_photos) > 0
    assert {(0, 3), (1, 3)} <= {pair[:2] for pair in list_pairs(result)}


@pytest.mark.slow
@pytest.mark.parametrize("query", [SAVE_EVERY_BLOCK, NO_BUDGET], ids=["exact", "near"])
def test_a_stopped_search_resumes_from_the_last_block(tmp_path: Path, crash: Any, query: PairQuery) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(730))
    uninterrupted = search(path, query)
    compared = 0
    for blocks in (0, 1, 5, 3):
        crash(blocks)
        with pytest.raises(MemoryError):
            search(path, query)
        compared += blocks
    parts = [part for part in parts_of(path) if part.name.startswith("part-")]
    assert len(parts) == compared
    crash(None)
    resumed = search(path, query)
    assert list_pairs(resumed) == list_pairs(uninterrupted)
    assert resumed.share == uninterrupted.share
    assert 0 < resumed.compared < uninterrupted.compared
    if resumed.share is None:
        tiling = Tiling(730, 100)
        assert resumed.compared == sum(map(tiling.pairs, tiling.blocks()[compared:]))
    assert not parts_of(path)


def test_blocks_of_little_work_are_saved_together(tmp_path: Path, crash: Any) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(730))
    crash(10)
    with pytest.raises(MemoryError):
        search(path, replace(SAVE_EVERY_BLOCK, save_every_s=1e9))
    assert {part.name for part in parts_of(path)} <= {"lock", "plan.json"}


def test_a_different_query_is_refused_and_force_drops_the_old_parts(tmp_path: Path, crash: Any) -> None:
    vectors = rows_with_duplicates(330)
    path = write_rows(tmp_path / "p.h5", vectors)
    crash(3)
    with pytest.raises(MemoryError):
        search(path)
    crash(None)
    with raises(ConfigError, "threshold", 0.4, 0.5, "--force"):
        search(path, replace(SAVE_EVERY_BLOCK, threshold=0.5))
    assert len(parts_of(path)) == 5
    result = search(path, replace(SAVE_EVERY_BLOCK, threshold=0.5), force=True)
    assert list_pairs(result) == pairs_by_numpy(vectors, 0.5)


def test_force_resumes_the_same_query(tmp_path: Path, crash: Any) -> None:
    vectors = rows_with_duplicates(330)
    path = write_rows(tmp_path / "p.h5", vectors)
    crash(3)
    with pytest.raises(MemoryError):
        search(path, force=True)
    crash(None)
    result = search(path, force=True)
    assert list_pairs(result) == pairs_by_numpy(vectors, 0.4)
    assert result.compared < 330 * 329 // 2


def test_a_column_written_after_a_stop_drops_no_parts(tmp_path: Path, crash: Any) -> None:
    vectors = rows_with_duplicates(330)
    path = write_rows(tmp_path / "p.h5", vectors)
    crash(3)
    with pytest.raises(MemoryError):
        search(path)
    crash(None)
    clusters = number_clusters(np.zeros(330, np.int64), np.ones(330, np.float32), method="k-means", k=1)
    write_column(path, clusters, "r")
    result = search(path)
    assert list_pairs(result) == pairs_by_numpy(vectors, 0.4)
    assert result.compared < 330 * 329 // 2


def test_parts_of_a_changed_file_are_dropped(tmp_path: Path, crash: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(330))
    crash(3)
    with pytest.raises(MemoryError):
        search(path)
    crash(None)
    changed = rows_with_duplicates(330, seed=1)
    with h5py.File(path, "r+") as file:
        file["embeddings"][:] = changed
    with caplog.at_level(logging.INFO, "runtime"):
        assert list_pairs(search(path)) == pairs_by_numpy(changed, 0.4)
    assert "has changed" in caplog.text


def test_no_threshold_above_1_is_suggested(tmp_path: Path) -> None:
    copies = np.zeros((100, 16), np.float32)
    copies[:, 0] = np.float32(1.0000001)
    path = write_rows(tmp_path / "p.h5", copies)
    with raises(TooManyPairsError, "--max-pairs") as caught:
        search(path, replace(SAVE_EVERY_BLOCK, threshold=0.5, max_pairs=100))
    assert "--threshold" not in str(caught.value)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "plan"])
def test_damaged_parts_are_refused(tmp_path: Path, crash: Any, damage: str) -> None:
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


def test_a_second_search_of_the_file_is_refused(tmp_path: Path) -> None:
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
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # BLAS threads slow down small products
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)


def finish(path: Path, output: Path) -> None:
    process = start_facemill(path, output)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr


@pytest.mark.slow
@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_search_stopped_several_times_writes_the_same_file(tmp_path: Path, stop_signal: signal.Signals) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(900, 16))
    expected, output = tmp_path / "whole.csv", tmp_path / "o.csv"
    finish(path, expected)
    rng, stops = random.Random(int(stop_signal)), 0
    for _ in range(3):
        parts_before = len(parts_of(path))
        process = start_facemill(path, output)
        while process.poll() is None and len(parts_of(path)) <= parts_before + 2:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(stop_signal)
        _, stderr = process.communicate(timeout=60)
        if stop_signal is not signal.SIGKILL and process.returncode:
            assert "E-INTERRUPTED" in stderr
        stops += process.returncode != 0
        assert output.exists() == (process.returncode == 0)
        if process.returncode == 0:
            break
    assert stops
    finish(path, output)
    assert output.read_bytes() == expected.read_bytes()
    assert not parts_of(path)
    assert len(expected.read_text().splitlines()) == 1 + len(pairs_by_numpy(rows_with_duplicates(900, 16), 0.7))


def test_too_many_pairs_suggest_a_threshold_that_works(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(500)
    path = write_rows(tmp_path / "p.h5", vectors)
    with raises(TooManyPairsError, 100, "--threshold", "--max-pairs") as caught:
        search(path, replace(SAVE_EVERY_BLOCK, threshold=0.1, max_pairs=100))
    suggested = float(str(caught.value).split("--threshold ")[1].split(",")[0])
    assert 0 < len(search(path, replace(SAVE_EVERY_BLOCK, threshold=suggested, max_pairs=100)).pairs) <= 100
    assert not parts_of(path)


def test_a_large_budget_gives_the_exact_result(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(500)
    path = write_rows(tmp_path / "p.h5", vectors)
    result = search(path, replace(SAVE_EVERY_BLOCK, budget_s=3600))
    assert list_pairs(result) == pairs_by_numpy(vectors, 0.4)
    assert result.share is None


@pytest.mark.slow
def test_a_small_budget_gives_a_measured_share_of_the_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = rows_with_duplicates(1900)
    path = write_rows(tmp_path / "p.h5", vectors)
    with caplog.at_level(logging.INFO, "runtime"):
        result = search(path, NO_BUDGET)
    expected = pairs_by_numpy(vectors, 0.7)
    assert set(list_pairs(result)) < set(expected)  # each pair has its exact score
    assert list_pairs(result) == sorted(set(list_pairs(result)), key=lambda pair: (-pair[2], pair[0], pair[1]))
    assert result.share == (
        pytest.approx(len(result.pairs) / len(expected)),
        len(expected),
    )  # of 1,900 rows, the sample is all
    assert result.share[0] > 0.3
    assert f"APPROXIMATE, to keep within the budget; share of pairs found: {100 * result.share[0]:.1f} %" in (
        result.method()
    )
    assert any("--budget" in warning for warning in warnings_in(caplog))
    assert result.compared < 1900 * 1899 // 4


@pytest.mark.slow
def test_more_lists_find_more_pairs_and_all_lists_find_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        subset = type(lists)(lists.rows[:count], lists.starts[:count])
        monkeypatch.setattr("runtime.pairs.pairs.make_lists", lambda *_, subset=subset: subset)
        monkeypatch.setattr("runtime.pairs.approximate.NearLists.limit", lambda self, limit: self)
        result = search(path, NO_BUDGET)
        assert result.share is not None
        shares.append(result.share[0])
    assert shares == sorted(shares)
    assert shares[0] < shares[2] == 1
    assert list_pairs(result) == pairs_by_numpy(vectors, 0.7)  # each pair once, although most are in two lists


def test_a_limit_of_comparisons_limits_the_lists(tmp_path: Path) -> None:
    with EmbeddingFile(write_rows(tmp_path / "p.h5", rows_with_duplicates(1900))) as gallery:
        lists = make_lists(gallery, 0)
    ranks = [len(lists.limit(limit).rows) for limit in (0, lists.pairs().sum() // 2, lists.pairs().sum())]
    assert ranks[0] == 1 < ranks[1] < ranks[2] == len(lists.rows)
    assert lists.limit(lists.pairs().sum() // 2).pairs().sum() <= lists.pairs().sum() // 2


def test_a_plan_records_its_query_and_its_file(tmp_path: Path, crash: Any) -> None:
    path = write_rows(tmp_path / "p.h5", rows_with_duplicates(330))
    crash(0)
    with pytest.raises(MemoryError):
        search(path)
    plan = json.loads((tmp_path / "p.h5.pairs.parts" / "plan.json").read_text())
    assert plan["source"]["size_bytes"] == os.path.getsize(path)
    assert (plan["threshold"], plan["tile_rows"], plan["near"]) == (0.4, 100, False)
