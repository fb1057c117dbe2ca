"""Build a file from parts of other files: split and join is lossless, and damage loses only the damaged rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import ConfigError, StorageError
from runtime.maintenance.repair import repair
from runtime.maintenance.rewrite import metadata_after, rewriting
from runtime.records import FACE_DATASETS, Status
from runtime.storage import dataset, ledger
from runtime.storage.dataset import assemble
from runtime.storage.file import EmbeddingFile
from runtime.storage.ledger import Ledger, Part
from runtime.storage.runfolder import RunFolder
from runtime.storage.verify import verify_file
from tests.support.embedding_files import differences
from tests.support.errors import raises
from tests.support.face_batches import D, batches_of, segment_writer

ROWS = 400
CONTRACT = {
    **{"root": "/photos", "model": "m", "model_sha256": "s", "dimension": D, "precision": "fp32"},
    **{"dtype": "float32", "skip_duplicates": False, "limit": 0, "max_bytes": 1, "max_pixels": 1},
}


def name(row: int) -> bytes:
    return b"P%02d/caf\xe9-%d.jpg" % (row // 10, row % 10) if row % 7 == 0 else b"P%02d/%d.jpg" % (row // 10, row % 10)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file of photos with 0 to 5 faces each; every vector has length 1."""
    folder = tmp_path_factory.mktemp("crowd")
    paths = sorted(name(row) for row in range(ROWS))
    writer = segment_writer(folder, 64)
    for batch in batches_of(range(ROWS), 16, 5):
        assert batch.embeddings is not None
        batch.embeddings[:] /= np.linalg.norm(batch.embeddings, axis=1, keepdims=True)
        writer.append(batch)
    writer.commit()
    with Ledger(ROWS, folder, "p") as ledger:
        metadata = metadata_after({**CONTRACT, "contract": json.dumps(CONTRACT), "ours": 7}, ledger)
        assemble(folder / "crowd.h5", ledger, paths, metadata, "float32")
    assert verify_file(folder / "crowd.h5").findings == ()
    return folder / "crowd.h5"


def copy_photos(source: Path, output: Path, keep: NDArray[np.bool_] | None) -> Path:
    """Copy some photos of a file to a new file, as `remove` does."""
    with EmbeddingFile(source) as file, RunFolder(output) as folder, rewriting(folder, [Part.of(file, keep)]) as new:
        assemble(output, new.ledger, new.paths, metadata_after(file.metadata, new.ledger), file.dtype)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_file_split_and_joined_is_unchanged(
    seed: int, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_BLOCK_ROWS", 50)
    monkeypatch.setattr(ledger, "_MAX_SPAN_ROWS", 40)
    rng = np.random.default_rng(seed)
    piece_of_row = rng.integers(0, 3, ROWS) if seed % 2 else np.sort(rng.integers(0, 3, ROWS))
    pieces = [copy_photos(crowd, tmp_path / f"{i}.h5", piece_of_row == i) for i in rng.permutation(3)]
    for piece in pieces:
        assert verify_file(piece).findings == ()
    output = tmp_path / "joined.h5"
    files = [EmbeddingFile(piece) for piece in pieces]
    with RunFolder(output) as folder, rewriting(folder, [Part.of(file) for file in files]) as new:
        assemble(output, new.ledger, new.paths, metadata_after(files[0].metadata, new.ledger), "float32")
    for file in files:
        file.__exit__(None, None, None)
    assert differences(output, crowd) == []


@pytest.mark.slow
def test_the_remaining_photos_keep_their_order(crowd: Path, tmp_path: Path) -> None:
    keep = np.random.default_rng(1).random(ROWS) < 0.1
    output = copy_photos(crowd, tmp_path / "o.h5", keep)
    with h5py.File(crowd) as old, h5py.File(output) as new:
        rows = np.repeat(keep, old["outcomes/embeddings"][:])
        for dataset_name in ("embeddings", "image_paths", *FACE_DATASETS.values()):
            np.testing.assert_array_equal(new[dataset_name][:], old[dataset_name][:][rows])
        for dataset_name in ("path", "status", "detail", "embeddings", "faces"):
            np.testing.assert_array_equal(new[f"outcomes/{dataset_name}"][:], old[f"outcomes/{dataset_name}"][:][keep])
        assert new["metadata"].attrs["ours"] == 7
    assert verify_file(output).findings == ()


def test_a_photo_in_two_parts_is_refused(crowd: Path, tmp_path: Path) -> None:
    with EmbeddingFile(crowd) as file, RunFolder(tmp_path / "o.h5") as folder:
        first_two = np.arange(ROWS) < 2
        parts = [Part.of(file), Part.of(file, first_two)]
        with raises(ConfigError, 2, "P00/1.jpg", "P00/2.jpg"), rewriting(folder, parts):
            pass
        with rewriting(folder, parts, prefer_first=True) as new:
            assert (len(new.paths), new.doubles) == (ROWS, 2)
            assert (new.ledger.source == 0).all()


@pytest.mark.slow
def test_outcomes_and_details_can_be_replaced(crowd: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    with EmbeddingFile(crowd) as file, RunFolder(output) as folder, rewriting(folder, [Part.of(file)]) as new:
        new.ledger.set_outcomes(np.array([3, 77]), Status.UNREADABLE, ["gone", "ä" * 400])
        new.ledger.set_details(np.array([5]), ["other words"])
        assemble(output, new.ledger, new.paths, metadata_after(file.metadata, new.ledger), "float32")
    with h5py.File(output) as file:
        details, status = file["outcomes/detail"].asstr()[:], file["outcomes/status"][:]
        assert (details[3], details[77], details[5]) == ("gone", "ä" * 250, "other words")
        assert (status[[3, 77]] == Status.UNREADABLE).all()
    assert verify_file(output).findings == ()


def test_a_damaged_file_is_not_rewritten(crowd: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(crowd, tmp_path / "x.h5"))
    with h5py.File(path) as file:
        info = file["embeddings"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[info.byte_offset + 5] ^= 1
    path.write_bytes(data)
    with raises(StorageError, "x.h5", "facemill repair"):
        copy_photos(path, tmp_path / "o.h5", None)
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_repair_keeps_every_face_with_its_photo(
    seed: int, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", 1024)
    monkeypatch.setattr("runtime.storage.format._CHUNK_ROWS", 64)
    path = copy_photos(crowd, tmp_path / "x.h5", None)
    monkeypatch.undo()
    rng = np.random.default_rng(seed)
    candidates = ["embeddings", "image_paths", "outcomes/path", *FACE_DATASETS.values()]
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        for dataset_name in rng.choice(candidates, 1 + seed % 4, replace=False):
            info = file[dataset_name].id.get_chunk_info(int(rng.integers(file[dataset_name].id.get_num_chunks())))
            data[info.byte_offset + info.size - 1] ^= 1
    path.write_bytes(data)
    if seed % 3 == 0:
        with h5py.File(path, "r+") as file:
            del file["outcomes/embeddings" if seed % 2 else "outcomes/status"]
    report = repair(path)
    assert report.findings
    assert report.embeddings > 0
    assert verify_file(path).findings == ()
    with h5py.File(crowd) as old, h5py.File(path) as new:
        names, kept_names = old["image_paths"][:], new["image_paths"][:]
        rows = [
            row for dataset_name in dict.fromkeys(kept_names.tolist()) for row in np.flatnonzero(names == dataset_name)
        ]
        assert len(rows) == len(kept_names)  # a photo keeps all its faces or none
        for dataset_name in ("embeddings", *FACE_DATASETS.values()):
            np.testing.assert_array_equal(new[dataset_name][:], old[dataset_name][:][rows])
