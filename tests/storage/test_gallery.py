"""What is an embedding file and what is not."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.records import FACE_DATASETS, Embedded, FacePlace, Outcome, Status
from runtime.storage.dataset import assemble
from runtime.storage.gallery import Gallery
from runtime.storage.ledger import Ledger
from runtime.storage.segments import SegmentRules, SegmentWriter
from tests.support.face_batches import D, batch_of, writer

METADATA = {"dimension": 4, "contract": '{"root": "/photos/\\udcff", "dimension": 4}'}


def assembled(tmp_path: Path, dtype: str = "float32") -> Path:
    """A file made by the storage room itself: four scanned paths, one corrupt, one whose name is not UTF-8."""
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
def test_reads_what_storage_wrote(tmp_path: Path, dtype: str) -> None:
    with Gallery(assembled(tmp_path, dtype)) as gallery:
        assert (gallery.rows, gallery.dimension) == (3, 4)
        assert gallery.names([2, 0]) == ["d\u00e9.jpg", "a.jpg"]
        assert gallery.names([1]) == ["c\\xfe.jpg"]
        assert gallery.root == b"/photos/\xff"
        assert gallery.photograph(1) == b"/photos/\xff/c\xfe.jpg"
        assert gallery.photograph(2) == b"/photos/\xff/d\xc3\xa9.jpg"
        (block,) = gallery.blocks()
        assert block.dtype == np.float32
        np.testing.assert_array_equal(block, np.eye(4)[:3])


def test_blocks_cover_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.gallery._BLOCK_BYTES", 32)
    with Gallery(assembled(tmp_path)) as gallery:
        blocks = list(gallery.blocks())
    assert [len(b) for b in blocks] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), np.eye(4)[:3])


def test_another_file_has_another_source(tmp_path: Path) -> None:
    path = assembled(tmp_path)
    with Gallery(path) as gallery:
        first = gallery.source
    with Gallery(path) as gallery:
        assert gallery.source == first
    os.utime(path, (1, 1))
    with Gallery(path) as gallery:
        assert gallery.source != first


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


def _whole_numbers(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["embeddings"]
        file["embeddings"] = np.zeros((3, 4), np.int32)


def _bad_contract(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["contract"] = "{"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_no_metadata, "metadata"),
        (_other_version, "format version 99"),
        (_flat_vectors, "unpack"),
        (_fewer_paths, "image_paths"),
        (_whole_numbers, "int32"),
        (_bad_contract, "finished embedding file"),
        (lambda path: path.write_bytes(b"hello"), "no HDF5 file"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "HDF5"),
        (lambda path: path.unlink(), "no such file"),
    ],
)
def test_anything_else_is_refused_with_the_reason(tmp_path: Path, damage: object, words: str) -> None:
    path = assembled(tmp_path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(StorageError, match=words):
        Gallery(path)


def crowded(tmp_path: Path) -> tuple[Path, Embedded, list[bytes]]:
    """A file of sixty photographs with 0 to 5 faces each, what was put into it, and the names; some are not UTF-8."""
    batch = batch_of(range(60), seed=4)
    names = [b"caf\xe9 %d.jpg" % row if row % 3 == 0 else b"%d.jpg" % row for row in range(60)]
    folder = tmp_path / "run"
    folder.mkdir()
    to = writer(folder)
    to.append(batch)
    to.commit()
    with Ledger(60, folder, "p") as ledger:
        metadata = {"dimension": D, "contract": '{"root": "/photos"}'}
        assemble(tmp_path / "people.h5", ledger, names, metadata, "float32")
    return tmp_path / "people.h5", batch, names


def test_several_faces_lead_to_the_photograph_that_they_are_in(tmp_path: Path) -> None:
    path, batch, names = crowded(tmp_path)
    assert batch.faces is not None
    with Gallery(path) as gallery:
        assert gallery.rows == len(batch.rows) > len(np.unique(batch.rows))
        for row, scan_row in enumerate(batch.rows):
            assert gallery.photograph(row) == b"/photos/" + names[scan_row]
        shuffled = np.random.default_rng(0).permutation(np.repeat(np.arange(gallery.rows), 2)).tolist()  # each twice
        assert gallery.photograph_paths(shuffled) == [b"/photos/" + names[batch.rows[row]] for row in shuffled]
        rows = [*range(gallery.rows)][::-1]  # in whatever order they are asked for
        for row, place in zip(rows, gallery.places(rows), strict=True):
            assert place == FacePlace(int(batch.faces["face_index"][row]), tuple(batch.faces["box"][row].tolist()))


def test_entries_are_those_of_their_rows_across_chunks(tmp_path: Path) -> None:
    path, *_ = crowded(tmp_path)
    with h5py.File(path, "r+") as file:
        names = file["image_paths"][:]
        del file["image_paths"]
        file.create_dataset("image_paths", data=names, chunks=(7,), maxshape=(None,), compression="gzip")
    rows = np.random.default_rng(0).integers(0, len(names), 200).tolist()
    with Gallery(path) as gallery:
        assert gallery.names(rows) == [names[row].decode() for row in rows]
        assert gallery.names([]) == []


def test_where_no_faces_were_looked_for_there_is_nothing_known_of_them(tmp_path: Path) -> None:
    with Gallery(assembled(tmp_path)) as gallery:
        assert gallery.places([0, 1]) == [None, None]


@pytest.mark.parametrize("dataset", FACE_DATASETS.values())
def test_faces_that_do_not_fit_the_vectors_are_refused(dataset: str, tmp_path: Path) -> None:
    path, _, _ = crowded(tmp_path)
    with h5py.File(path, "r+") as file:
        shorter = file[dataset][:-1]
        del file[dataset]
        file[dataset] = shorter
    with pytest.raises(StorageError, match=f"embeddings, /{dataset} is"):
        Gallery(path)


def test_a_damaged_face_is_an_error_that_names_the_dataset(tmp_path: Path) -> None:
    path, _, _ = crowded(tmp_path)
    with h5py.File(path) as file:
        at = file["faces/box"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with Gallery(path) as gallery, pytest.raises(StorageError, match="damaged in /faces/box"):
        gallery.places([0])


def test_datasets_beside_the_vectors_are_read_as_they_are_stored(tmp_path: Path) -> None:
    path, batch, _ = crowded(tmp_path)
    assert batch.faces is not None
    with h5py.File(path, "r+") as file:
        file["short"] = np.arange(3)
    with Gallery(path) as gallery:
        assert [gallery.has(name) for name in ("faces/box", "cluster", "short")] == [True, False, False]
        np.testing.assert_array_equal(gallery.aligned("faces/box", 3, 7), batch.faces["box"][3:7])
        assert gallery.aligned("face_index", 0, 0).dtype == np.uint16
        assert gallery.aligned("embeddings", 0, 0).shape == (0, D)
        with pytest.raises(StorageError, match="damaged in /cluster"):
            gallery.aligned("cluster", 0, 1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_block_is_what_was_asked_for(tmp_path: Path, dtype: str) -> None:
    with Gallery(assembled(tmp_path, dtype)) as gallery:
        block = gallery.block(1, 3)
        assert (block.dtype, block.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(block, np.eye(4)[1:3])
        assert gallery.block(3, 3).shape == (0, 4)
        assert gallery.aligned("image_paths", 1, 3).tolist() == [b"c\\xfe.jpg", "d\u00e9.jpg".encode()]
        assert gallery.photographs().tolist() == [0, 1, 2]


def test_faces_of_one_photograph_share_it(tmp_path: Path) -> None:
    to = writer(tmp_path, 5)
    batches = [batch_of(range(start, start + 5), seed=1) for start in range(0, 20, 5)]
    for batch in batches:
        to.append(batch)
    to.commit()
    paths = [f"{row}.jpg".encode() for row in range(20)]
    with Ledger(20, tmp_path, "p") as ledger:
        assemble(tmp_path / "o.h5", ledger, paths, {"dimension": D, "contract": '{"root": "/"}'}, "float32")
    with Gallery(tmp_path / "o.h5") as gallery:
        assert gallery.photographs().tolist() == np.concatenate([batch.rows for batch in batches]).tolist()
        assert len(set(gallery.photographs().tolist())) < gallery.rows
