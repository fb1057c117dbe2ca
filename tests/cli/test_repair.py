"""A damaged file: what is whole of it is saved, what is lost is embedded again, and nothing is taken for whole."""

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
from runtime.storage.derived import recorded_elsewhere
from runtime.storage.file import EmbeddingFile
from runtime.storage.ledger import Part
from runtime.storage.runfolder import RunFolder
from runtime.storage.verify import verify_file
from tests.storage import test_verify as damages
from tests.support.embedding_files import differences
from tests.support.errors import assert_refused
from tests.support.facemill_command import ROOT, facemill
from tests.support.people_files import embed_folder, make_odd_people, paths_in


@pytest.fixture(scope="module")
def whole(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embed_folder(photos, tmp_path_factory.mktemp("repair") / "people.h5", tiny_engine, "--skip-duplicates")


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in chunks of 64 rows: of a file as small as this, one chunk would be all."""
    path = tmp_path / "people.h5"
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", 4096)
    with EmbeddingFile(whole) as file, RunFolder(path) as folder, rewriting(folder, [Part.of(file)]) as new:
        dataset.assemble(path, new.ledger, new.paths, file.metadata, file.dtype)
    monkeypatch.undo()
    return path


def retried(file: Path, photos: Path, engine: Path) -> None:
    done = facemill("process", photos, "-o", file, "--engine", engine, "--skip-duplicates", "--retry")
    assert done.returncode == 0, done.stderr


def repaired(file: Path, *options: object) -> dict[str, Any]:
    done = facemill("repair", file, "--json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def flip(path: Path, name: str, chunk: int) -> None:
    """One wrong bit in a chunk of a dataset: in its checksum, which lies at the end whatever the filter."""
    with h5py.File(path) as file:
        info = file[name].id.get_chunk_info(chunk)
    data = bytearray(path.read_bytes())
    data[info.byte_offset + info.size - 1] ^= 16
    path.write_bytes(data)


def test_a_whole_file_is_left_alone(whole: Path) -> None:
    before = whole.read_bytes()
    assert repaired(whole)["whole"]
    assert "nothing to repair" in facemill("repair", whole).stdout
    assert whole.read_bytes() == before
    assert os.listdir(whole.parent) == ["people.h5"]


def no_outcomes(file: Any) -> None:
    del file["outcomes"]


def no_status(file: Any) -> None:
    del file["outcomes/status"]


def no_names(file: Any) -> None:
    del file["image_paths"]


def a_failure_said_to_be_embedded(file: Any) -> None:
    failed = int(np.flatnonzero(file["outcomes/status"][:] == Status.CORRUPT)[2])
    file["outcomes/status"][failed] = Status.EMBEDDED


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (damages.longer, 1),
        (damages.not_a_number, 1),
        (damages.swapped, 2),
        (damages.shorter, 0),
        (damages.lost, 1),
        (damages.another_status, 0),
        (damages.unknown_status, 0),
        (damages.another_count, 0),
        (damages.another_scan, 0),
        (damages.another_version, 0),
        (damages.another_model, 0),
        (damages.no_contract, 0),
        (a_failure_said_to_be_embedded, 1),
        (no_status, 6),
        (no_names, 0),
    ],
)
def test_what_is_lost_is_embedded_again(
    damage: Callable[[Any], None], lost: int, copy: Path, whole: Path, photos: Path, tiny_engine: Path
) -> None:
    with h5py.File(copy, "r+") as file:
        damage(file)
    damaged = copy.read_bytes()
    found = repair(copy)
    assert found.findings
    assert (found.lost, found.nameless, found.photographs) == (lost, 0, 600)
    assert verify_file(copy).findings == ()
    kept = copy.with_name("people.h5.damaged-1")
    assert found.kept == str(kept)
    assert kept.read_bytes() == damaged
    with h5py.File(copy) as file:
        assert (file["outcomes/detail"].asstr()[:] == LOST).sum() == lost
    if lost:
        retried(copy, photos, tiny_engine)
    assert differences(copy, whole) == []


@pytest.mark.parametrize(
    ("name", "chunks", "lost"),
    [
        ("embeddings", (3,), 64),
        ("embeddings", (0, 4, 9), 64 + 64 + 594 - 9 * 64),
        ("outcomes/path", (0,), None),
        ("outcomes/detail", (0,), 0),
        ("image_paths", (0,), 0),
        ("outcomes/status", (0,), 6),
    ],
)
def test_a_wrong_bit_costs_the_rows_of_its_chunk(
    name: str, chunks: tuple[int, ...], lost: int | None, copy: Path, whole: Path, photos: Path, tiny_engine: Path
) -> None:
    for chunk in chunks:
        flip(copy, name, chunk)
    found = repair(copy)
    assert verify_file(copy).findings == ()
    if lost is None:  # names of failures, which /image_paths does not have
        assert found.nameless > 0
        assert found.lost == 0
        assert found.photographs == 600 - found.nameless
        assert facemill("add", copy, photos, "--retry").returncode == 0
    else:
        assert (found.lost, found.photographs) == (lost, 600)
        if lost or name == "outcomes/detail":  # the reasons of six failures
            retried(copy, photos, tiny_engine)
    assert differences(copy, whole) == []


def test_without_outcomes_the_rows_and_their_names_are_saved(copy: Path, whole: Path, photos: Path) -> None:
    with h5py.File(copy, "r+") as file:
        no_outcomes(file)
    found = repaired(copy)
    assert (found["photographs"], found["embeddings"], found["lost"]) == (594, 594, 0)
    assert "digests" in " ".join(found["notes"])
    assert verify_file(copy).findings == ()
    with h5py.File(copy) as one, h5py.File(whole) as other:
        np.testing.assert_array_equal(one["embeddings"][:], other["embeddings"][:])
        np.testing.assert_array_equal(one["image_paths"][:], other["image_paths"][:])
    assert facemill("add", copy, photos).returncode == 0
    assert paths_in(copy) == paths_in(whole)


def test_odd_names_come_through(tiny_engine: Path, tmp_path: Path) -> None:
    make_odd_people(tmp_path / "photos")
    file = embed_folder(tmp_path / "photos", tmp_path / "people.h5", tiny_engine)
    before = paths_in(file)
    shutil.copy(file, tmp_path / "whole.h5")
    with h5py.File(file, "r+") as opened:
        opened["embeddings"][-6:] *= 2
    done = facemill("repair", file)
    assert "6 photos are lost" in done.stdout
    assert "line\\nbreak.jpg" in done.stdout
    assert paths_in(file) == before
    assert facemill("process", tmp_path / "photos", "-o", file, "--engine", tiny_engine, "--retry").returncode == 0
    assert differences(file, tmp_path / "whole.h5") == []


def test_an_exact_path_that_is_not_what_its_text_says_is_not_believed(tiny_engine: Path, tmp_path: Path) -> None:
    make_odd_people(tmp_path / "photos")
    file = embed_folder(tmp_path / "photos", tmp_path / "people.h5", tiny_engine)
    before = paths_in(file)
    data = file.read_bytes()
    at = data.rindex(b"caf\xe9.jpg")  # no checksum guards it
    file.write_bytes(data[:at] + b"car" + data[at + 3 :])
    assert [finding[:12] for finding in verify_file(file).findings] == ["exact paths:"]
    assert facemill("repair", file).returncode == 0
    assert verify_file(file).findings == ()
    assert set(before) - set(paths_in(file)) == {"odd é/caf".encode() + b"\xe9.jpg"}
    assert "odd é/caf\\xe9.jpg".encode() in paths_in(file)


def test_the_repaired_file_may_go_elsewhere(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        damages.longer(file)
    damaged = copy.read_bytes()
    output = copy.with_name("saved.h5")
    assert repaired(copy, "-o", output)["kept"] == ""
    assert copy.read_bytes() == damaged
    assert verify_file(output).findings == ()
    assert_refused(facemill("repair", copy, "-o", output), "E-EXISTS", output, "--force")
    assert_refused(facemill("repair", copy, "-o", copy, "--force"), "E-CONFIG", copy)
    assert sorted(os.listdir(copy.parent)) == ["people.h5", "people.h5.pages", "saved.h5"]
    assert recorded_elsewhere(copy) == [str(output)]
    assert [repaired(copy)["kept"], copy.with_name("people.h5.damaged-1").exists()] == [str(copy) + ".damaged-1", True]
    with h5py.File(copy, "r+") as file:
        damages.longer(file)
    assert repaired(copy)["kept"] == str(copy) + ".damaged-2"


@pytest.mark.parametrize("wrong", ["half", "no rows", "no metadata", "other"])
def test_what_cannot_be_saved_is_left_as_it_is(wrong: str, copy: Path) -> None:
    if wrong == "half":
        copy.write_bytes(copy.read_bytes()[:20_000])
    else:
        with h5py.File(copy, "r+") as file:
            if wrong == "no rows":
                file["embeddings"][:] = 3
            elif wrong == "no metadata":
                del file["metadata"].attrs["contract"], file["metadata"].attrs["dimension"]
            else:
                del file["embeddings"]
    damaged = copy.read_bytes()
    done = facemill("repair", copy)
    assert_refused(done, "E-STORAGE", copy)
    assert copy.read_bytes() == damaged


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_leaves_the_damaged_file_or_the_repaired_one(seed: int, copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        damages.swapped(file)
    damaged = copy.read_bytes()
    command = [sys.executable, "-m", "runtime.cli.app", "repair", str(copy)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.2, 0.6))
        process.kill()
    assert copy.read_bytes() == damaged or verify_file(copy).findings == ()
    repaired(copy)
    assert verify_file(copy).findings == ()
    assert copy.with_name("people.h5.damaged-1").read_bytes() == damaged
    assert len(os.listdir(copy.parent)) == 2


def test_random_bits_never_pass_for_whole(copy: Path, whole: Path, tmp_path: Path) -> None:
    with h5py.File(whole) as file:
        rows = dict(zip(file["image_paths"][:].tolist(), file["embeddings"][:], strict=True))
    data = copy.read_bytes()
    outcomes = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        hurt = bytearray(data)
        for at in rng.integers(2048, len(hurt), 1 + seed):
            hurt[at] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{seed}.h5"
        path.write_bytes(hurt)
        try:
            found = repair(path)
        except StorageError:
            outcomes.add("refused")
            continue
        outcomes.add("repaired" if found.findings else "whole")
        assert verify_file(path).findings == ()
        with h5py.File(path) as file:
            for name, vector in zip(file["image_paths"][:].tolist(), file["embeddings"][:], strict=True):
                np.testing.assert_array_equal(vector, rows[name])
    assert "repaired" in outcomes
