"""The work of each stage on real files: read, skip duplicates, decode, embed."""

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


def test_reading_keeps_rows_and_reports_failures(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A")
    (tmp_path / "c").write_bytes(b"C" * 100)
    read = Read(FileSource(os.fsencode(tmp_path), [b"a", b"b", b"c"], max_bytes=50))
    result = read(rows(0, 1, 2))
    assert result.rows.tolist() == [0]
    assert result.files == (b"A",)
    assert [(outcome.row, outcome.status) for outcome in result.outcomes] == [
        (1, Status.UNREADABLE),
        (2, Status.UNSUPPORTED),
    ]
    assert len(result) == 3


def test_a_missing_folder_stops_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    read = Read(FileSource(os.fsencode(folder), [b"a"]))
    shutil.rmtree(folder)
    with raises(SourceError, folder):
        read(rows(0))


def test_decoding_keeps_valid_photos_in_order() -> None:
    pixels = make.scene(112, 112)
    files = (make.encode(pixels, "PNG"), b"junk", make.encode(pixels[::-1], "PNG"))
    batch = Encoded(np.array([3, 5, 9]), (Outcome(4, Status.UNREADABLE, "gone"),), files=files)
    result = Decode(112, "rgb", Limits())(batch)
    assert result.rows.tolist() == [3, 9]
    np.testing.assert_array_equal(result.images, np.stack([pixels, pixels[::-1]]))
    assert [(outcome.row, outcome.status) for outcome in result.outcomes] == [
        (4, Status.UNREADABLE),
        (5, Status.UNSUPPORTED),
    ]


def test_skip_duplicates_keeps_the_first_photo(tmp_path: Path) -> None:
    with DigestTable(tmp_path) as table:
        table.load([(file_digest(b"old"), 0)])
        skip = SkipDuplicates(table, FileSource(b"/", [b"old.jpg", b"1", b"2", b"3"]))
        result = skip(Encoded(np.array([1, 2, 3]), files=(b"new", b"old", b"new")))
        assert result.rows.tolist() == [1]
        assert [(outcome.row, outcome.status, outcome.detail) for outcome in result.outcomes] == [
            (2, Status.DUPLICATE, "the same file as old.jpg"),
            (3, Status.DUPLICATE, "the same file as 1"),
        ]
        assert set(result.digests) == {1, 2, 3}
    assert list(tmp_path.iterdir()) == []


IMAGES = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), np.uint8)


def test_embedding_in_slices_gives_every_row() -> None:
    result = Embed(ArithmeticRunner(), BatchLimit(8))(Crops(np.arange(37), images=IMAGES))
    np.testing.assert_array_equal(result.embeddings, ArithmeticRunner().infer(IMAGES))


def test_a_batch_that_does_not_fit_halves_the_limit_permanently(caplog: pytest.LogCaptureFixture) -> None:
    runner = ArithmeticRunner(fits=5)
    embed = Embed(runner, BatchLimit(32))
    for _ in range(2):
        result = embed(Crops(np.arange(37), images=IMAGES))
        np.testing.assert_array_equal(result.embeddings, ArithmeticRunner().infer(IMAGES))
    assert embed.limit.size == 4
    assert runner.sizes[:4] == [32, 16, 8, 4]
    assert max(runner.sizes[4:]) == 4
    assert len([line for line in warnings_in(caplog) if "out of memory" in line]) == 3


def test_no_memory_for_one_photo_is_an_error() -> None:
    with raises(OutOfMemoryError, "batch size 1"):
        Embed(ArithmeticRunner(fits=0), BatchLimit(4))(Crops(np.arange(37), images=IMAGES))
