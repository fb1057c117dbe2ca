"""Sources of photos: files and memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import SourceError
from runtime.images.decode import decode_photo
from runtime.records import Status
from runtime.sources.reader import ReadError
from runtime.sources.scan import scan
from runtime.sources.source import FileSource, MemorySource, Source
from tests.support import encoded_images as make
from tests.support.errors import Values, raises


def test_a_scan_is_a_source_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"B")
    (tmp_path / "a.jpg").write_bytes(b"A" * 100)
    source: Source = scan([str(tmp_path)], max_bytes=50)
    assert source == FileSource(os.fsencode(tmp_path), [b"a.jpg", b"b.jpg"], 50)
    assert source.read(1) == b"B"
    with pytest.raises(ReadError) as large:
        source.read(0)
    assert large.value.status == Status.UNSUPPORTED


def test_a_resumed_run_gives_a_source_the_names_of_its_scan(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"B")
    source = scan([str(tmp_path)]).with_names([b"gone.jpg", b"b.jpg"])
    assert source.read(1) == b"B"
    with pytest.raises(ReadError) as gone:
        source.read(0)
    assert gone.value.status == Status.UNREADABLE


def test_a_missing_folder_ends_the_run_but_a_missing_file_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    source = FileSource(os.fsencode(folder), [b"a.jpg"])
    with pytest.raises(ReadError):
        source.read(0)
    shutil.rmtree(folder)
    with raises(SourceError, folder):
        source.read(0)


def test_photos_in_memory_are_bytes_or_pixels() -> None:
    pixels, encoded = make.scene(40, 30), make.encode(make.scene(50, 40, seed=1))
    source: Source = MemorySource([encoded, pixels, pixels[::2, ::2]])
    assert list(source.names) == [b"0", b"1", b"2"]
    assert source.read(0) == encoded
    np.testing.assert_array_equal(decode_photo(source.read(1), long_side=40).pixels, pixels)
    np.testing.assert_array_equal(decode_photo(source.read(2), long_side=20).pixels, pixels[::2, ::2])


@pytest.mark.parametrize(
    ("photo", "values"),
    [
        (np.zeros((4, 4), np.uint8), ("uint8 (4, 4)",)),
        (np.zeros((4, 4, 3), np.float32), ("float32 (4, 4, 3)",)),
        (np.zeros((0, 4, 3), np.uint8), ()),
        ("a.jpg", ("str",)),
    ],
)
def test_a_value_that_is_no_photo_is_an_outcome(photo: Any, values: Values) -> None:
    with raises(ReadError, *values) as refused:
        MemorySource([photo]).read(0)
    assert refused.value.status == Status.UNSUPPORTED


def test_a_photo_in_memory_keeps_its_name_when_a_run_resumes() -> None:
    """A resumed run has the names of its first scan. Each name maps to its photo, in any order, or to an error."""
    source = MemorySource([b"first", b"second"], [b"a", b"b"])
    resumed = source.with_names([b"b", b"gone", b"a"])
    assert resumed.read(0) == b"second"
    assert resumed.read(2) == b"first"
    with pytest.raises(ReadError) as caught:
        resumed.read(1)
    assert caught.value.status == Status.UNREADABLE
