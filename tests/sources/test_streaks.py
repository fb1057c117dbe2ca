"""Very many photos in a row that cannot be read stop a run before anything is recorded for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import MachineError
from runtime.pipeline.work import Read
from runtime.records import Batch
from runtime.sources.source import FileSource
from runtime.sources.streaks import Streaks
from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.errors import raises
from tests.support.facemill_command import facemill

MOST = 6


def source_of(folder: Path, there: str) -> FileSource:
    """A source of one photo for each character; `x` stands for a photo that is gone."""
    names = [b"%02d" % number for number in range(len(there))]
    for name, state in zip(names, there, strict=True):
        if state != "x":
            (folder / name.decode()).write_bytes(b"photo")
    return FileSource(os.fsencode(folder), names)


def read_all(source: FileSource, size: int) -> int:
    """Read all rows in batches; returns the number of outcomes."""
    read, count = Read(source, Streaks(source, MOST)), len(source.names)
    batches = (np.arange(start, min(start + size, count)) for start in range(0, count, size))
    return sum(len(read(Batch(rows)).outcomes) for rows in batches)


@pytest.mark.parametrize("size", [1, 3, 4, 20])
@pytest.mark.parametrize("there", ["..xxxxxx..", "xxxxxx.xxxxxx", "..xxxxxx", ".x.x.x.x", "xxxxx"])
def test_a_few_in_a_row_are_outcomes(tmp_path: Path, there: str, size: int) -> None:
    assert read_all(source_of(tmp_path, there), size) == there.count("x")


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("there", ["..xxxxxxx..", "xxxxxxxx", ".xxxxxx.xxxxxxx", "..xxxxxxx"])
def test_very_many_in_a_row_stop_the_run(tmp_path: Path, there: str, size: int) -> None:
    with raises(MachineError, MOST, "in a row", "--max-unreadable 0"):
        read_all(source_of(tmp_path, there), size)


def test_each_photo_ahead_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(tmp_path, "xxxxxx." * 20)
    looks, read = [0], type(source).read

    def read_and_count(self: FileSource, row: int) -> bytes:
        looks[0] += 1
        return read(self, row)

    monkeypatch.setattr(type(source), "read", read_and_count)
    read_all(source, 1)
    assert looks[0] <= 2 * 140 + 20


@pytest.mark.slow
def test_a_run_whose_photos_are_gone_records_nothing_and_goes_on_when_they_are_back(
    tmp_path: Path, tiny_engine: Path
) -> None:
    photos, away = tmp_path / "photos", tmp_path / "away"
    photos.mkdir()
    for number in range(12):
        (photos / f"{number:02d}.jpg").write_bytes(make.encode(make.scene(112, 112, seed=number)))
    (tmp_path / "list.txt").write_text("".join(f"photos/{number:02d}.jpg\n" for number in range(12)))
    shutil.copytree(photos, away)
    for number in range(2, 10):
        (photos / f"{number:02d}.jpg").unlink()
    command = ("process", f"@{tmp_path / 'list.txt'}", "-o", tmp_path / "p.h5", "--engine", tiny_engine)
    options = ("--align", "none", "--max-unreadable", MOST)
    stopped = facemill(*command, *options)
    assert stopped.returncode == 1
    assert "in a row" in stopped.stderr
    assert not (tmp_path / "p.h5").exists()
    shutil.copytree(away, photos, dirs_exist_ok=True)
    assert facemill(*command, *options).returncode == 0
    with EmbeddingFile(tmp_path / "p.h5") as file:
        assert len(file.status) == 12
        assert (file.vector_counts == 1).all()
