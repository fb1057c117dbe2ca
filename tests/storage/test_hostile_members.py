"""Hostile files made up from seeds: no command hangs, crashes, shows a traceback, trusts them, or passes damage on."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.maintenance.merge import merge
from tests.support import encoded_images as make
from tests.support.clustered_files import people_rows, write_file
from tests.support.errors import raises
from tests.support.facemill_command import facemill
from tests.support.faults.laboratory import Laboratory
from tests.support.hostile_commands import prepare_folder, violations
from tests.support.hostile_files import commands
from tests.support.hostile_members import make_member

SEEDS = (*range(10), 18, 38, 137, 142)  # 18, 38 and 137: damage that was passed on to a new file


@pytest.fixture(scope="module")
def folder(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos, an embedding file of them, and what hostile files refer to."""
    folder = tmp_path_factory.mktemp("members")
    for number in range(12):
        photo = folder / "photos" / f"p{number % 3}" / f"{number:02}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(make.encode(make.scene(112, 112, seed=number), quality=80))
    done = facemill("process", folder / "photos", "-o", folder / "good.h5", "--engine", tiny_engine, "--align", "none")
    assert done.returncode == 0, done.stderr
    prepare_folder(folder, folder / "good.h5")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_no_command_trusts_it(folder: Path, tmp_path: Path, seed: int) -> None:
    hostile = Path(shutil.copy(folder / "good.h5", tmp_path / "hostile.h5"))
    member = make_member(seed, hostile, folder)
    with Laboratory(tmp_path) as laboratory:
        results = list(violations(laboratory, folder, hostile, refused=member.refused))
    assert [name for name, _ in results] == list(commands(hostile, folder / "photos", tmp_path))
    assert [(name, wrong) for name, wrong in results if wrong] == [], member.text


def test_rows_that_are_no_unit_vectors_are_not_joined(tmp_path: Path) -> None:
    first = write_file(tmp_path / "a.h5", people_rows([3, 3]), [b"a%d.jpg" % row for row in range(6)])
    second = write_file(tmp_path / "b.h5", people_rows([3, 3]), [b"b%d.jpg" % row for row in range(6)])
    with h5py.File(second, "r+") as file:
        file["embeddings"][4] = np.nan
    with raises(StorageError, second, "row 4"):
        merge([first, second], tmp_path / "o.h5")
    assert not (tmp_path / "o.h5").exists()


def test_photos_that_are_not_in_scan_order_are_not_joined(tmp_path: Path) -> None:
    first = write_file(tmp_path / "a.h5", people_rows([3]), [b"a.jpg", b"b.jpg", b"c.jpg"])
    second = write_file(tmp_path / "b.h5", people_rows([3]), [b"e.jpg", b"d.jpg", b"f.jpg"])
    with raises(StorageError, second, "row 1"):
        merge([first, second], tmp_path / "o.h5")
