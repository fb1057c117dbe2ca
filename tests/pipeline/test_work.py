"""The work of each stage, on real files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import OutOfMemoryError, SourceError
from runtime.images.decode import Limits
from runtime.pipeline.work import BatchLimit, Decode, DigestTable, Embed, Read, SkipDuplicates, file_digest
from runtime.records import Batch, Crops, Encoded, Outcome, Status
from runtime.sources.source import FileSource
from tests.support import encoded_images as make
from tests.support.arithmetic_runner import ArithmeticRunner
from tests.support.errors import raises, warnings_in


def rows(*numbers: int) -> Batch:
    return Batch(np.array(numbers, np.int64))


def test_reading_keeps_rows_and_names_failures(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A")
    (tmp_path / "c").write_bytes(b"C" * 100)
    read = Read(FileSource(os.fsencode(tmp_path), [b"a", b"b", b"c"], max_bytes=50))
    got = read(rows(0, 1, 2))
    assert got.rows.tolist() == [0]
    assert got.files == (b"A",)
    assert [(o.row, o.status) for o in got.outcomes] == [(1, Status.UNREADABLE), (2, Status.UNSUPPORTED)]
    assert len(got) == 3


def test_a_folder_that_goes_away_stops_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    read = Read(FileSource(os.fsencode(folder), [b"a"]))
    shutil.rmtree(folder)
    with raises(SourceError, folder):
        read(rows(0))


def test_decoding_keeps_the_good_ones_in_order() -> None:
    pixels = make.scene(112, 112)
    files = (make.encode(pixels, "PNG"), b"junk", make.encode(pixels[::-1], "PNG"))
    batch = Encoded(np.array([3, 5, 9]), (Outcome(4, Status.UNREADABLE, "gone"),), files=files)
    got = Decode(112, "rgb", Limits())(batch)
    assert got.rows.tolist() == [3, 9]
    np.testing.assert_array_equal(got.images, np.stack([pixels, pixels[::-1]]))
    assert [(o.row, o.status) for o in got.outcomes] == [(4, Status.UNREADABLE), (5, Status.UNSUPPORTED)]


def test_duplicates_leave_and_the_first_stays(tmp_path: Path) -> None:
    with DigestTable(tmp_path) as table:
        table.load([(file_digest(b"old"), 0)])
        skip = SkipDuplicates(table, FileSource(b"/", [b"old.jpg", b"1", b"2", b"3"]))
        got = skip(Encoded(np.array([1, 2, 3]), files=(b"new", b"old", b"new")))
        assert got.rows.tolist() == [1]
        assert [(o.row, o.status, o.detail) for o in got.outcomes] == [
            (2, Status.DUPLICATE, "the same file as old.jpg"),
            (3, Status.DUPLICATE, "the same file as 1"),
        ]
        assert set(got.digests) == {1, 2, 3}
    assert list(tmp_path.iterdir()) == []


IMAGES = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), np.uint8)


def test_embedding_in_slices_gives_every_row() -> None:
    got = Embed(ArithmeticRunner(), BatchLimit(8))(Crops(np.arange(37), images=IMAGES))
    np.testing.assert_array_equal(got.embeddings, ArithmeticRunner().infer(IMAGES))


def test_a_batch_that_does_not_fit_is_halved_for_good(caplog: pytest.LogCaptureFixture) -> None:
    runner = ArithmeticRunner(fits=5)
    embed = Embed(runner, BatchLimit(32))
    for _ in range(2):
        got = embed(Crops(np.arange(37), images=IMAGES))
        np.testing.assert_array_equal(got.embeddings, ArithmeticRunner().infer(IMAGES))
    assert embed.limit.size == 4
    assert runner.sizes[:4] == [32, 16, 8, 4]
    assert max(runner.sizes[4:]) == 4
    assert len([line for line in warnings_in(caplog) if "out of memory" in line]) == 3


def test_no_memory_for_one_photograph_is_an_error_that_says_so() -> None:
    with raises(OutOfMemoryError, "batch size 1"):
        Embed(ArithmeticRunner(fits=0), BatchLimit(4))(Crops(np.arange(37), images=IMAGES))
