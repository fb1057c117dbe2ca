"""Files made from parts of others: taken apart and put together they are as they were, and damage costs what it hit."""

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
    """A file of photographs with 0 to 5 faces each, every vector of length 1."""
    place = tmp_path_factory.mktemp("crowd")
    paths = sorted(name(row) for row in range(ROWS))
    to = segment_writer(place, 64)
    for batch in batches_of(range(ROWS), 16, 5):
        assert batch.embeddings is not None
        batch.embeddings[:] /= np.linalg.norm(batch.embeddings, axis=1, keepdims=True)
        to.append(batch)
    to.commit()
    with Ledger(ROWS, place, "p") as ledger:
        metadata = metadata_after({**CONTRACT, "contract": json.dumps(CONTRACT), "ours": 7}, ledger)
        assemble(place / "crowd.h5", ledger, paths, metadata, "float32")
    assert verify_file(place / "crowd.h5").findings == ()
    return place / "crowd.h5"


def take(source: Path, output: Path, keep: NDArray[np.bool_] | None) -> Path:
    """What `remove` does: a file with some photographs of another."""
    with EmbeddingFile(source) as file, RunFolder(output) as folder, rewriting(folder, [Part.of(file, keep)]) as new:
        assemble(output, new.ledger, new.paths, metadata_after(file.metadata, new.ledger), file.dtype)
    return output


@pytest.mark.parametrize("seed", range(8))
def test_taken_apart_and_joined_it_is_as_it_was(
    seed: int, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_BLOCK_ROWS", 50)
    monkeypatch.setattr(ledger, "_MAX_SPAN_ROWS", 40)
    rng = np.random.default_rng(seed)
    share = rng.integers(0, 3, ROWS) if seed % 2 else np.sort(rng.integers(0, 3, ROWS))
    pieces = [take(crowd, tmp_path / f"{i}.h5", share == i) for i in rng.permutation(3)]
    for piece in pieces:
        assert verify_file(piece).findings == ()
    output = tmp_path / "joined.h5"
    files = [EmbeddingFile(piece) for piece in pieces]
    with RunFolder(output) as folder, rewriting(folder, [Part.of(file) for file in files]) as new:
        assemble(output, new.ledger, new.paths, metadata_after(files[0].metadata, new.ledger), "float32")
    for file in files:
        file.__exit__(None, None, None)
    assert differences(output, crowd) == []


def test_a_file_without_some_photographs_has_the_rest_in_order(crowd: Path, tmp_path: Path) -> None:
    keep = np.random.default_rng(1).random(ROWS) < 0.1
    output = take(crowd, tmp_path / "o.h5", keep)
    with h5py.File(crowd) as old, h5py.File(output) as new:
        rows = np.repeat(keep, old["outcomes/embeddings"][:])
        for one in ("embeddings", "image_paths", *FACE_DATASETS.values()):
            np.testing.assert_array_equal(new[one][:], old[one][:][rows])
        for one in ("path", "status", "detail", "embeddings", "faces"):
            np.testing.assert_array_equal(new[f"outcomes/{one}"][:], old[f"outcomes/{one}"][:][keep])
        assert new["metadata"].attrs["ours"] == 7
    assert verify_file(output).findings == ()


def test_a_photograph_that_two_parts_have_is_named(crowd: Path, tmp_path: Path) -> None:
    with EmbeddingFile(crowd) as file, RunFolder(tmp_path / "o.h5") as folder:
        some = np.arange(ROWS) < 2
        parts = [Part.of(file), Part.of(file, some)]
        with raises(ConfigError, 2, "P00/1.jpg", "P00/2.jpg"), rewriting(folder, parts):
            pass
        with rewriting(folder, parts, prefer_first=True) as new:
            assert (len(new.paths), new.doubles) == (ROWS, 2)
            assert (new.ledger.source == 0).all()


def test_outcomes_that_are_settled_or_explained_anew(crowd: Path, tmp_path: Path) -> None:
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


def test_a_damaged_file_is_not_rewritten_in_silence(crowd: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(crowd, tmp_path / "x.h5"))
    with h5py.File(path) as file:
        info = file["embeddings"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[info.byte_offset + 5] ^= 1
    path.write_bytes(data)
    with raises(StorageError, "x.h5", "facemill repair"):
        take(path, tmp_path / "o.h5", None)
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.parametrize("seed", range(12))
def test_a_crowd_is_repaired_with_every_face_where_it_belongs(
    seed: int, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", 1024)
    monkeypatch.setattr("runtime.storage.format._CHUNK_ROWS", 64)
    path = take(crowd, tmp_path / "x.h5", None)
    monkeypatch.undo()
    rng = np.random.default_rng(seed)
    hurt = ["embeddings", "image_paths", "outcomes/path", *FACE_DATASETS.values()]
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        for one in rng.choice(hurt, 1 + seed % 4, replace=False):
            info = file[one].id.get_chunk_info(int(rng.integers(file[one].id.get_num_chunks())))
            data[info.byte_offset + info.size - 1] ^= 1
    path.write_bytes(data)
    if seed % 3 == 0:
        with h5py.File(path, "r+") as file:
            del file["outcomes/embeddings" if seed % 2 else "outcomes/status"]
    found = repair(path)
    assert found.findings
    assert found.embeddings > 0
    assert verify_file(path).findings == ()
    with h5py.File(crowd) as old, h5py.File(path) as new:
        names, kept = old["image_paths"][:], new["image_paths"][:]
        rows = [row for one in dict.fromkeys(kept.tolist()) for row in np.flatnonzero(names == one)]
        assert len(rows) == len(kept)  # all faces of a photograph or none
        for one in ("embeddings", *FACE_DATASETS.values()):
            np.testing.assert_array_equal(new[one][:], old[one][:][rows])
