"""The rows as other programs get them, and what the log says on the way."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from runtime.export.rows import columns_of, exact_bytes, is_same_file, metadata_of, path_text, read_blocks
from runtime.records import FACE_DATASETS
from runtime.storage.file import EmbeddingFile
from tests.support.export_files import ODD, write_file


@pytest.mark.parametrize("most", [1, 3, 5, 1000])
@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_blocks_cover_every_row_once(tmp_path: Path, most: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", at_once * 16 * 4)
    file, vectors, paths = write_file(tmp_path / "people.h5", count=24, faces=True, dtype="float16")
    with EmbeddingFile(file) as gallery:
        blocks = list(read_blocks(gallery, most))
    assert [block.start for block in blocks] == np.cumsum([0, *(len(block.paths) for block in blocks[:-1])]).tolist()
    assert max(len(block.paths) for block in blocks) == min(most, at_once, 24)
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors)
    assert blocks[0].vectors.dtype == np.float16
    assert [path for block in blocks for path in block.paths] == paths
    assert np.concatenate([block.columns["face_index"] for block in blocks]).tolist() == [0, 2] * 12


def test_columns_are_those_that_the_file_has(tmp_path: Path) -> None:
    plain, _, _ = write_file(tmp_path / "plain.h5")
    rich, _, _ = write_file(tmp_path / "rich.h5", faces=True, cluster=True)
    with EmbeddingFile(plain) as one, EmbeddingFile(rich) as other:
        assert columns_of(one) == {}
        assert columns_of(other) == {**FACE_DATASETS, "cluster": "cluster"}


def test_the_log_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("runtime.progress._LINE_EVERY_S", 0.0)
    monkeypatch.setattr("runtime.progress._ADVANCE_EVERY_S", 0.0)
    file, _, _ = write_file(tmp_path / "people.h5", count=40)
    with EmbeddingFile(file) as gallery, caplog.at_level(logging.INFO):
        for _ in read_blocks(gallery, 10):
            pass
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    assert said[0].startswith("export: 10/40 (25.0 %), ")
    assert said[3].startswith("export: 40/40 (100.0 %), ")
    assert " embeddings/s, 0 s left; " in said[3]


def test_a_path_is_text_and_bytes_only_where_the_text_does_not_say_it_all() -> None:
    assert [exact_bytes(path) for path in ODD] == [None, None, ODD[2], None, None]
    assert path_text(ODD[2]) == "caf\\xe9/raw\\xff.jpg"
    assert exact_bytes(b"a\\xff.jpg") is None  # a backslash of its own is no stand-in for a byte


def test_metadata_are_json_whatever_the_root_is(tmp_path: Path) -> None:
    for root, wanted in ((b"/photos", None), (b"/caf\xe9", "2f636166e9")):
        file, _, _ = write_file(tmp_path / f"{len(root)}.h5", root=root)
        with EmbeddingFile(file) as gallery:
            said = json.loads(json.dumps(metadata_of(gallery)))
        assert said.get("root_hex") == wanted
        assert said["root"] == said["contract"]["root"] == path_text(root)


def test_a_link_to_the_file_is_the_file(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    (tmp_path / "link").symlink_to(file)
    with EmbeddingFile(file) as gallery:
        assert is_same_file(gallery, tmp_path / "link")
        assert not is_same_file(gallery, tmp_path / "other")
