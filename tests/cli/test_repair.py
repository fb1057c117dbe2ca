"""The repair command: keep intact rows, mark lost photos for a retry, and never accept a damaged row."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.maintenance.repair import LOST, repair
from runtime.maintenance.rewrite import rewriting
from runtime.records import Status
from runtime.storage import dataset
from runtime.storage.file import EmbeddingFile
from runtime.storage.ledger import Part
from runtime.storage.pagelist import read_list
from runtime.storage.runfolder import RunFolder
from runtime.storage.verify import verify_file
from tests.storage import test_verify as damages
from tests.support.embedding_files import differences
from tests.support.errors import assert_refused
from tests.support.facemill_command import ROOT, facemill
from tests.support.people_files import embed_folder, make_odd_people, paths_in


@pytest.fixture(scope="module")
def intact(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embed_folder(photos, tmp_path_factory.mktemp("repair") / "people.h5", tiny_engine, "--skip-duplicates")


@pytest.fixture
def copy(intact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the file in chunks of 64 rows; by default so small a file has one chunk."""
    path = tmp_path / "people.h5"
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", 4096)
    with EmbeddingFile(intact) as file, RunFolder(path) as folder, rewriting(folder, [Part.of(file)]) as new:
        dataset.assemble(path, new.ledger, new.paths, file.metadata, file.dtype)
    monkeypatch.undo()
    return path


def retry_failed(file: Path, photos: Path, engine: Path) -> None:
    result = facemill("process", photos, "-o", file, "--engine", engine, "--skip-duplicates", "--retry")
    assert result.returncode == 0, result.stderr


def repair_by_command(file: Path, *options: object) -> dict[str, Any]:
    result = facemill("repair", file, "--json", *options)
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def flip(path: Path, name: str, chunk: int) -> None:
    """Flip one bit in the checksum of a chunk. The checksum is at the end of the chunk for every filter."""
    with h5py.File(path) as file:
        info = file[name].id.get_chunk_info(chunk)
    data = bytearray(path.read_bytes())
    data[info.byte_offset + info.size - 1] ^= 16
    path.write_bytes(data)


@pytest.mark.slow
def test_an_intact_file_is_unchanged(intact: Path) -> None:
    before = intact.read_bytes()
    assert repair_by_command(intact)["whole"]
    assert "nothing to repair" in facemill("repair", intact).stdout
    assert intact.read_bytes() == before
    assert os.listdir(intact.parent) == ["people.h5"]


def no_outcomes(file: Any) -> None:
    del file["outcomes"]


def no_status(file: Any) -> None:
    del file["outcomes/status"]


def no_names(file: Any) -> None:
    del file["image_paths"]


def failure_marked_embedded(file: Any) -> None:
    failed = int(np.flatnonzero(file["outcomes/status"][:] == Status.CORRUPT)[2])
    file["outcomes/status"][failed] = Status.EMBEDDED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "lost_count"),
    [
        (damages.scale_row, 1),
        (damages.write_nan, 1),
        (damages.swap_names, 2),
        (damages.drop_last_name, 0),
        (damages.drop_last_row, 1),
        (damages.change_status, 0),
        (damages.write_unknown_status, 0),
        (damages.change_count, 0),
        (damages.change_scan_count, 0),
        (damages.change_version, 0),
        (damages.change_model, 0),
        (damages.break_contract, 0),
        (damages.shorten_contract, 0),
        (failure_marked_embedded, 1),
        (no_status, 6),
        (no_names, 0),
    ],
)
def test_retry_embeds_lost_photos_again(
    damage: Callable[[Any], None], lost_count: int, copy: Path, intact: Path, photos: Path, tiny_engine: Path
) -> None:
    with h5py.File(copy, "r+") as file:
        damage(file)
    damaged = copy.read_bytes()
    report = repair(copy)
    assert report.findings
    assert (report.lost, report.nameless, report.photographs) == (lost_count, 0, 600)
    assert verify_file(copy).findings == ()
    backup = copy.with_name("people.h5.damaged-1")
    assert report.kept == str(backup)
    assert backup.read_bytes() == damaged
    with h5py.File(copy) as file:
        assert (file["outcomes/detail"].asstr()[:] == LOST).sum() == lost_count
    if lost_count:
        retry_failed(copy, photos, tiny_engine)
    assert differences(copy, intact) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chunks", "lost_count"),
    [
        ("embeddings", (3,), 64),
        ("embeddings", (0, 4, 9), 64 + 64 + 594 - 9 * 64),
        ("outcomes/path", (0,), None),
        ("outcomes/detail", (0,), 0),
        ("image_paths", (0,), 0),
        ("outcomes/status", (0,), 6),
    ],
)
def test_a_wrong_bit_loses_only_the_rows_of_its_chunk(
    name: str,
    chunks: tuple[int, ...],
    lost_count: int | None,
    copy: Path,
    intact: Path,
    photos: Path,
    tiny_engine: Path,
) -> None:
    for chunk in chunks:
        flip(copy, name, chunk)
    report = repair(copy)
    assert verify_file(copy).findings == ()
    if lost_count is None:  # /image_paths has no names of failed photos
        assert report.nameless > 0
        assert report.lost == 0
        assert report.photographs == 600 - report.nameless
        assert facemill("add", copy, photos, "--retry").returncode == 0
    else:
        assert (report.lost, report.photographs) == (lost_count, 600)
        if lost_count or name == "outcomes/detail":  # lost: the error texts of six failed photos
            retry_failed(copy, photos, tiny_engine)
    assert differences(copy, intact) == []


@pytest.mark.slow
def test_without_outcomes_the_rows_and_their_names_are_saved(copy: Path, intact: Path, photos: Path) -> None:
    with h5py.File(copy, "r+") as file:
        no_outcomes(file)
    report = repair_by_command(copy)
    assert (report["photographs"], report["embeddings"], report["lost"]) == (594, 594, 0)
    assert "digests" in " ".join(report["notes"])
    assert verify_file(copy).findings == ()
    with h5py.File(copy) as repaired, h5py.File(intact) as original:
        np.testing.assert_array_equal(repaired["embeddings"][:], original["embeddings"][:])
        np.testing.assert_array_equal(repaired["image_paths"][:], original["image_paths"][:])
    assert facemill("add", copy, photos).returncode == 0
    assert paths_in(copy) == paths_in(intact)


@pytest.mark.slow
def test_odd_names_are_kept(tiny_engine: Path, tmp_path: Path) -> None:
    make_odd_people(tmp_path / "photos")
    file = embed_folder(tmp_path / "photos", tmp_path / "people.h5", tiny_engine)
    before = paths_in(file)
    shutil.copy(file, tmp_path / "whole.h5")
    with h5py.File(file, "r+") as opened:
        opened["embeddings"][-6:] *= 2
    result = facemill("repair", file)
    assert "6 photos are lost" in result.stdout
    assert "line\\nbreak.jpg" in result.stdout
    assert paths_in(file) == before
    assert facemill("process", tmp_path / "photos", "-o", file, "--engine", tiny_engine, "--retry").returncode == 0
    assert differences(file, tmp_path / "whole.h5") == []


@pytest.mark.slow
def test_a_damaged_exact_path_is_replaced_by_its_text(tiny_engine: Path, tmp_path: Path) -> None:
    make_odd_people(tmp_path / "photos")
    file = embed_folder(tmp_path / "photos", tmp_path / "people.h5", tiny_engine)
    before = paths_in(file)
    data = file.read_bytes()
    position = data.rindex(b"caf\xe9.jpg")  # exact paths have no checksum
    file.write_bytes(data[:position] + b"car" + data[position + 3 :])
    assert [finding[:12] for finding in verify_file(file).findings] == ["exact paths:"]
    assert facemill("repair", file).returncode == 0
    assert verify_file(file).findings == ()
    assert set(before) - set(paths_in(file)) == {"odd é/caf".encode() + b"\xe9.jpg"}
    assert "odd é/caf\\xe9.jpg".encode() in paths_in(file)


@pytest.mark.slow
def test_the_repaired_file_can_have_another_path(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        damages.scale_row(file)
    damaged = copy.read_bytes()
    output = copy.with_name("saved.h5")
    assert repair_by_command(copy, "-o", output)["kept"] == ""
    assert copy.read_bytes() == damaged
    assert verify_file(output).findings == ()
    assert_refused(facemill("repair", copy, "-o", output), "E-EXISTS", output, "--force")
    assert_refused(facemill("repair", copy, "-o", copy, "--force"), "E-CONFIG", copy)
    assert sorted(os.listdir(copy.parent)) == ["people.h5", "people.h5.pages", "saved.h5"]
    assert list(read_list(copy).elsewhere) == [str(output)]
    assert [repair_by_command(copy)["kept"], copy.with_name("people.h5.damaged-1").exists()] == [
        str(copy) + ".damaged-1",
        True,
    ]
    with h5py.File(copy, "r+") as file:
        damages.scale_row(file)
    assert repair_by_command(copy)["kept"] == str(copy) + ".damaged-2"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["half", "no rows", "no metadata", "other"])
def test_an_unrepairable_file_is_unchanged(damage: str, copy: Path) -> None:
    if damage == "half":
        copy.write_bytes(copy.read_bytes()[:20_000])
    else:
        with h5py.File(copy, "r+") as file:
            if damage == "no rows":
                file["embeddings"][:] = 3
            elif damage == "no metadata":
                del file["metadata"].attrs["contract"], file["metadata"].attrs["dimension"]
            else:
                del file["embeddings"]
    damaged = copy.read_bytes()
    result = facemill("repair", copy)
    assert_refused(result, "E-STORAGE", copy)
    assert copy.read_bytes() == damaged


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_leaves_the_damaged_file_or_the_repaired_one(seed: int, copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        damages.swap_names(file)
    damaged = copy.read_bytes()
    command = [sys.executable, "-m", "runtime.cli.app", "repair", str(copy)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.2, 0.6))
        process.kill()
    assert copy.read_bytes() == damaged or verify_file(copy).findings == ()
    repair_by_command(copy)
    assert verify_file(copy).findings == ()
    assert copy.with_name("people.h5.damaged-1").read_bytes() == damaged
    assert len(os.listdir(copy.parent)) == 2


@pytest.mark.slow
def test_random_wrong_bits_are_always_detected(copy: Path, intact: Path, tmp_path: Path) -> None:
    with h5py.File(intact) as file:
        rows = dict(zip(file["image_paths"][:].tolist(), file["embeddings"][:], strict=True))
    data = copy.read_bytes()
    outcomes = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        for position in rng.integers(2048, len(damaged), 1 + seed):
            damaged[position] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{seed}.h5"
        path.write_bytes(damaged)
        try:
            report = repair(path)
        except StorageError:
            outcomes.add("refused")
            continue
        outcomes.add("repaired" if report.findings else "whole")
        assert verify_file(path).findings == ()
        with h5py.File(path) as file:
            for name, vector in zip(file["image_paths"][:].tolist(), file["embeddings"][:], strict=True):
                np.testing.assert_array_equal(vector, rows[name])
    assert "repaired" in outcomes, outcomes
