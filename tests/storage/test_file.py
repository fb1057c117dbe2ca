"""Reading finished embedding files: rows, photos, damage."""

from __future__ import annotations

import doctest
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.records import FACE_DATASETS, LATER_DATASETS, Embedded, FacePlace, Outcome, Status
from runtime.storage.dataset import assemble
from runtime.storage.file import EmbeddingFile
from runtime.storage.format import display_text, offsets
from runtime.storage.ledger import Ledger
from runtime.storage.segments import SegmentRules, SegmentWriter
from tests.index.test_flat import write_gallery
from tests.support.errors import Values, raises
from tests.support.face_batches import D, batch_of, segment_writer

METADATA = {"dimension": 4, "contract": '{"root": "/photos/\\udcff", "dimension": 4}'}


def write_file(tmp_path: Path, dtype: str = "float32") -> Path:
    """Write a file with four scanned paths: one photo is corrupt, one name is not UTF-8."""
    folder = tmp_path / "run"
    folder.mkdir()
    writer = SegmentWriter(folder, plan_id="p", dimension=4, dtype=dtype, digests=False, rules=SegmentRules())
    vectors = np.eye(4, dtype=np.float32)[:3]
    writer.append(Embedded(np.array([0, 2, 3]), (Outcome(1, Status.CORRUPT, "cut"),), embeddings=vectors))
    writer.commit()
    paths = [b"a.jpg", b"b.jpg", b"c\xfe.jpg", "d\u00e9.jpg".encode()]
    with Ledger(4, folder, "p") as ledger:
        assemble(tmp_path / "people.h5", ledger, paths, METADATA, dtype)
    return tmp_path / "people.h5"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_written_file_can_be_read(tmp_path: Path, dtype: str) -> None:
    with EmbeddingFile(write_file(tmp_path, dtype)) as file:
        assert (file.rows, file.dimension) == (3, 4)
        assert file.names([2, 0]) == ["d\u00e9.jpg", "a.jpg"]
        assert file.names([1]) == ["c\\xfe.jpg"]
        assert file.root == b"/photos/\xff"
        assert file.photo_path(1) == b"/photos/\xff/c\xfe.jpg"
        assert file.photo_path(2) == b"/photos/\xff/d\xc3\xa9.jpg"
        (block,) = file.blocks()
        assert block.dtype == np.float32
        np.testing.assert_array_equal(block, np.eye(4)[:3])


def test_blocks_cover_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", 32)
    with EmbeddingFile(write_file(tmp_path)) as file:
        blocks = list(file.blocks())
    assert [len(block) for block in blocks] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), np.eye(4)[:3])


def test_a_changed_file_has_a_different_source(tmp_path: Path) -> None:
    path = write_file(tmp_path)
    with EmbeddingFile(path) as file:
        first = file.source
    with EmbeddingFile(path) as file:
        assert file.source == first
    os.utime(path, (1, 1))
    with EmbeddingFile(path) as file:
        assert file.source != first


def _no_metadata(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["metadata"]


def _other_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["format_version"] = 99


def _flat_vectors(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["embeddings"]
        file["embeddings"] = np.zeros(3, np.float32)


def _fewer_paths(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["image_paths"]
        file["image_paths"] = np.array([b"x"])


def _integer_vectors(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["embeddings"]
        file["embeddings"] = np.zeros((3, 4), np.int32)


def _bad_contract(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["contract"] = "{"


def _forgetful_contract(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        attributes = file["metadata"].attrs
        contract = json.loads(attributes["contract"])
        attributes["contract"] = json.dumps({name: contract[name] for name in ("root",)})
        attributes["model_sha256"] = "ab"
        attributes["crop"] = "112x112"


@pytest.mark.parametrize(
    ("damage", "values"),
    [
        (_no_metadata, ("metadata",)),
        (_other_version, (99,)),
        (_flat_vectors, ("/embeddings", "(3,)")),
        (_fewer_paths, ("/image_paths",)),
        (_integer_vectors, ("int32",)),
        (_bad_contract, ("'{', which is no JSON", "facemill repair")),
        (_forgetful_contract, ("lacks model_sha256 and", "facemill repair")),
        (lambda path: path.write_bytes(b"hello"), ("signature",)),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), ("truncated",)),
        (lambda path: path.unlink(), ()),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_with_the_reason(tmp_path: Path, damage: object, values: Values) -> None:
    path = write_file(tmp_path)
    damage(path)  # type: ignore[operator]
    with raises(StorageError, path, *values):
        EmbeddingFile(path)


def write_crowd(tmp_path: Path) -> tuple[Path, Embedded, list[bytes]]:
    """Write sixty photos with 0 to 5 faces each; returns the file, its batch and its names, some not UTF-8."""
    batch = batch_of(range(60), seed=4)
    names = sorted(b"caf\xe9 %02d.jpg" % row if row % 3 == 0 else b"%02d.jpg" % row for row in range(60))
    folder = tmp_path / "run"
    folder.mkdir()
    writer = segment_writer(folder)
    writer.append(batch)
    writer.commit()
    with Ledger(60, folder, "p") as ledger:
        metadata = {"dimension": D, "contract": '{"root": "/photos"}'}
        assemble(tmp_path / "people.h5", ledger, names, metadata, "float32")
    return tmp_path / "people.h5", batch, names


@pytest.mark.slow
def test_every_face_has_the_path_of_its_photo(tmp_path: Path) -> None:
    path, batch, names = write_crowd(tmp_path)
    assert batch.faces is not None
    with EmbeddingFile(path) as file:
        assert file.rows == len(batch.rows) > len(np.unique(batch.rows))
        for row, scan_row in enumerate(batch.rows):
            assert file.photo_path(row) == b"/photos/" + names[scan_row]
        shuffled = np.random.default_rng(0).permutation(np.repeat(np.arange(file.rows), 2)).tolist()  # each row twice
        assert file.photo_paths(shuffled) == [b"/photos/" + names[batch.rows[row]] for row in shuffled]
        rows = [*range(file.rows)][::-1]  # in reverse order
        for row, face_place in zip(rows, file.face_places(rows), strict=True):
            assert face_place == FacePlace(int(batch.faces["face_index"][row]), tuple(batch.faces["box"][row].tolist()))


def test_names_are_read_across_chunks(tmp_path: Path) -> None:
    path, *_ = write_crowd(tmp_path)
    with h5py.File(path, "r+") as file:
        names = file["image_paths"][:]
        del file["image_paths"]
        file.create_dataset("image_paths", data=names, chunks=(7,), maxshape=(None,), compression="gzip")
    rows = np.random.default_rng(0).integers(0, len(names), 200).tolist()
    with EmbeddingFile(path) as file:
        assert file.names(rows) == [names[row].decode() for row in rows]
        assert file.names([]) == []


def test_a_file_without_detection_has_no_face_places(tmp_path: Path) -> None:
    with EmbeddingFile(write_file(tmp_path)) as file:
        assert file.face_places([0, 1]) == [None, None]


@pytest.mark.parametrize("dataset", FACE_DATASETS.values())
def test_faces_that_do_not_fit_the_vectors_are_refused(dataset: str, tmp_path: Path) -> None:
    path, _, _ = write_crowd(tmp_path)
    with h5py.File(path, "r+") as file:
        shorter = file[dataset][:-1]
        del file[dataset]
        file[dataset] = shorter
    with raises(StorageError, f"/{dataset}"):
        EmbeddingFile(path)


def test_a_damaged_face_is_an_error_that_names_the_dataset(tmp_path: Path) -> None:
    path, _, _ = write_crowd(tmp_path)
    with h5py.File(path) as file:
        offset = file["faces/box"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with EmbeddingFile(path) as file, raises(StorageError, "/faces/box"):
        file.face_places([0])


def test_columns_are_read_as_stored(tmp_path: Path) -> None:
    path, batch, _ = write_crowd(tmp_path)
    assert batch.faces is not None
    with h5py.File(path, "r+") as file:
        file["short"] = np.arange(3)
    with EmbeddingFile(path) as file:
        assert [file.has_column(name) for name in ("faces/box", "cluster", "short")] == [True, False, False]
        np.testing.assert_array_equal(file.column("faces/box", 3, 7), batch.faces["box"][3:7])
        assert file.column("face_index", 0, 0).dtype == np.uint16
        assert file.column("embeddings", 0, 0).shape == (0, D)
        with raises(StorageError, "/cluster"):
            file.column("cluster", 0, 1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_block_has_the_requested_rows(tmp_path: Path, dtype: str) -> None:
    with EmbeddingFile(write_file(tmp_path, dtype)) as file:
        block = file.block(1, 3)
        assert (block.dtype, block.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(block, np.eye(4)[1:3])
        assert file.block(3, 3).shape == (0, 4)
        assert file.column("image_paths", 1, 3).tolist() == [b"c\\xfe.jpg", "d\u00e9.jpg".encode()]
        assert file.photo_numbers().tolist() == [0, 1, 2]


def test_faces_of_one_photo_share_its_number(tmp_path: Path) -> None:
    writer = segment_writer(tmp_path, 5)
    batches = [batch_of(range(start, start + 5), seed=1) for start in range(0, 20, 5)]
    for batch in batches:
        writer.append(batch)
    writer.commit()
    paths = [f"{row}.jpg".encode() for row in range(20)]
    with Ledger(20, tmp_path, "p") as ledger:
        assemble(tmp_path / "o.h5", ledger, paths, {"dimension": D, "contract": '{"root": "/"}'}, "float32")
    with EmbeddingFile(tmp_path / "o.h5") as file:
        assert file.photo_numbers().tolist() == np.concatenate([batch.rows for batch in batches]).tolist()
        assert len(set(file.photo_numbers().tolist())) < file.rows


def test_the_examples_of_the_docstring_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    writer = SegmentWriter(folder, plan_id="p", dimension=4, dtype="float32", digests=False, rules=SegmentRules())
    failed = (Outcome(1, Status.CORRUPT, "cut"),)
    writer.append(Embedded(np.array([0, 2, 3]), failed, embeddings=np.eye(4, dtype=np.float32)[:3]))
    writer.commit()
    with Ledger(4, folder, "p") as ledger:
        assemble(tmp_path / "people.h5", ledger, [b"a.jpg", b"b.jpg", b"c.jpg", b"d.jpg"], METADATA, "float32")
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(EmbeddingFile, globs={"EmbeddingFile": EmbeddingFile})
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_vectors_paths_and_faces_match_the_rows(tmp_path: Path) -> None:
    path, batch, names = write_crowd(tmp_path)
    assert batch.faces is not None
    with EmbeddingFile(str(path)) as file:
        assert file.faces is not None
        for name in (*FACE_DATASETS, *LATER_DATASETS):
            np.testing.assert_array_equal(file.faces[name], batch.faces[name])
        assert file.paths == [display_text(names[row]) for row in batch.rows]
        assert list(file.scanned_paths()) == names
        np.testing.assert_array_equal(file.vector_counts, np.bincount(batch.rows, minlength=60))
        assert sum(file.outcomes.values()) == 60
        assert file.outcomes["embedded"] == len(np.unique(batch.rows))


def test_a_file_without_faces_has_vectors_only(tmp_path: Path) -> None:
    with EmbeddingFile(write_file(tmp_path, "float16")) as file:
        assert (file.faces, file.dtype, file.vectors.dtype) == (None, "float16", np.float32)
        np.testing.assert_array_equal(file.vectors, np.eye(4)[:3])
        assert file.foreign_datasets() == []


def test_inconsistent_outcomes_are_refused_on_access(tmp_path: Path) -> None:
    path = write_file(tmp_path)
    with h5py.File(path, "r+") as file:
        file["outcomes/status"][0] = int(Status.CORRUPT)
    with EmbeddingFile(path) as embeddings:
        assert len(embeddings.vectors) == 3  # a search needs no outcomes
        with raises(StorageError, 3, 2):
            len(embeddings.status)


def test_offsets_are_cumulative_sums() -> None:
    counts = np.array([2, 0, 60_000, 60_000, 1], np.uint16)
    assert offsets(counts).tolist() == [0, 2, 2, 60_002, 120_002]
    assert offsets(counts[:0]).tolist() == []


@pytest.mark.parametrize("block_rows", [1, 7, 200])
def test_vectors_of_rows_do_not_depend_on_the_block_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    vectors = np.random.default_rng(0).standard_normal((96, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    path, rows = write_gallery(tmp_path / "people.h5", vectors), np.array([0, 6, 7, 13, 94, 95])
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", 4 * 4 * block_rows)
    with EmbeddingFile(path) as file:
        np.testing.assert_array_equal(file.vectors_of(rows), vectors[rows])
