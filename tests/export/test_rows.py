"""Read rows for an export, with progress in the log."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from runtime.export.rows import columns_of, exact_bytes, is_same_file, metadata_of, path_text, read_blocks
from runtime.records import FACE_DATASETS, LATER_DATASETS
from runtime.storage.file import EmbeddingFile
from tests.support.export_files import ODD, write_file


@pytest.mark.slow
@pytest.mark.parametrize("max_rows", [1, 3, 5, 1000])
@pytest.mark.parametrize("block_rows", [1, 5, 1000])
def test_blocks_cover_every_row_once(
    tmp_path: Path, max_rows: int, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", block_rows * 16 * 4)
    file, vectors, paths = write_file(tmp_path / "people.h5", count=24, faces=True, dtype="float16")
    with EmbeddingFile(file) as gallery:
        blocks = list(read_blocks(gallery, max_rows))
    assert [block.start for block in blocks] == np.cumsum([0, *(len(block.paths) for block in blocks[:-1])]).tolist()
    assert max(len(block.paths) for block in blocks) == min(max_rows, block_rows, 24)
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors)
    assert blocks[0].vectors.dtype == np.float16
    assert [path for block in blocks for path in block.paths] == paths
    assert np.concatenate([block.columns["face_index"] for block in blocks]).tolist() == [0, 2] * 12


def test_columns_exist_only_if_the_file_has_them(tmp_path: Path) -> None:
    plain, _, _ = write_file(tmp_path / "plain.h5")
    rich, _, _ = write_file(tmp_path / "rich.h5", faces=True, cluster=True)
    with EmbeddingFile(plain) as plain_file, EmbeddingFile(rich) as rich_file:
        assert columns_of(plain_file) == {}
        assert columns_of(rich_file) == {**FACE_DATASETS, **LATER_DATASETS, "cluster": "cluster"}


def test_progress_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("runtime.progress._LINE_EVERY_S", 0.0)
    monkeypatch.setattr("runtime.progress._ADVANCE_EVERY_S", 0.0)
    file, _, _ = write_file(tmp_path / "people.h5", count=40)
    with EmbeddingFile(file) as gallery, caplog.at_level(logging.INFO):
        for _ in read_blocks(gallery, 10):
            pass
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4
    assert messages[0].startswith("export: 10/40 (25.0 %), ")
    assert messages[3].startswith("export: 40/40 (100.0 %), ")
    assert " embeddings/s, 0 s left; " in messages[3]


def test_a_path_has_bytes_only_if_its_text_is_not_exact() -> None:
    assert [exact_bytes(path) for path in ODD] == [None, None, ODD[2], None, None]
    assert path_text(ODD[2]) == "caf\\xe9/raw\\xff.jpg"
    assert exact_bytes(b"a\\xff.jpg") is None  # a real backslash does not stand for a byte


def test_metadata_are_json_for_any_root(tmp_path: Path) -> None:
    for root, expected in ((b"/photos", None), (b"/caf\xe9", "2f636166e9")):
        file, _, _ = write_file(tmp_path / f"{len(root)}.h5", root=root)
        with EmbeddingFile(file) as gallery:
            metadata = json.loads(json.dumps(metadata_of(gallery)))
        assert metadata.get("root_hex") == expected
        assert metadata["root"] == metadata["contract"]["root"] == path_text(root)


def test_a_link_to_the_file_is_the_file(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    (tmp_path / "link").symlink_to(file)
    with EmbeddingFile(file) as gallery:
        assert is_same_file(gallery, tmp_path / "link")
        assert not is_same_file(gallery, tmp_path / "other")
