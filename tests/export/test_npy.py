"""A folder of NumPy arrays that holds what the file holds, to the bit and to the byte."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import ConfigError, OutputExistsError, StorageError
from runtime.export.npy import export_npy
from runtime.records import FACE_DATASETS
from runtime.storage.derived import recorded_pages, take_fingerprint, written_pages
from runtime.storage.file import EmbeddingFile
from tests.support.errors import raises
from tests.support.export_files import ODD, write_file


def exported(file: Path, folder: Path, *, force: bool = False) -> Path:
    with EmbeddingFile(file) as gallery:
        export_npy(gallery, folder, force=force)
    return folder


def paths_in(folder: Path) -> list[bytes]:
    """As the documentation says that they are read."""
    lines = (folder / "paths.jsonl").read_text(encoding="ascii").split("\n")
    assert lines.pop() == ""
    entries = [json.loads(line) for line in lines]
    return [bytes.fromhex(entry["path_hex"]) if "path_hex" in entry else entry["path"].encode() for entry in entries]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("faces", [False, True])
def test_all_of_the_file_is_there(tmp_path: Path, dtype: str, faces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", 7 * 16 * 4)  # seven rows at a time
    file, vectors, paths = write_file(tmp_path / "people.h5", dtype=dtype, faces=faces, cluster=faces)
    before = file.read_bytes()
    folder = exported(file, tmp_path / "npy")
    found = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    assert isinstance(found, np.memmap)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, vectors)
    assert paths_in(folder) == paths
    assert set(ODD) <= set(paths)
    assert file.read_bytes() == before
    columns = {**FACE_DATASETS, "cluster": "cluster"} if faces else {}
    assert {entry.name for entry in folder.iterdir()} == {
        "embeddings.npy", "paths.jsonl", "metadata.json", *(f"{name}.npy" for name in columns)
    }  # fmt: skip
    with h5py.File(file) as source:
        for name, dataset in columns.items():
            array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            assert array.dtype == source[dataset].dtype
            np.testing.assert_array_equal(array, source[dataset][:])


def test_the_metadata_are_json_that_any_reader_takes(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    text = (exported(file, tmp_path / "npy") / "metadata.json").read_text(encoding="ascii")
    assert "\\ud" not in text  # half of a surrogate pair is no text
    said = json.loads(text)
    assert said["contract"]["model_sha256"] == "ab" * 32
    assert said["root"] == said["contract"]["root"] == "/photos/\\xfe"
    assert bytes.fromhex(said["root_hex"]) == b"/photos/\xfe"
    with h5py.File(file) as source:
        assert said["run_id"] == source["metadata"].attrs["run_id"]
        assert set(said) - {"root_hex"} == set(source["metadata"].attrs)


def test_a_folder_in_the_way_stays_without_force_and_is_replaced_with_it(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    other, vectors, _ = write_file(tmp_path / "other.h5", count=9, seed=1)
    folder = exported(file, tmp_path / "npy")
    with raises(OutputExistsError, "--force"):
        exported(other, folder)
    assert len(np.load(folder / "embeddings.npy")) == 60
    exported(other, folder, force=True)
    np.testing.assert_array_equal(np.load(folder / "embeddings.npy"), vectors)
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith("npy.")]


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with raises(OutputExistsError, "thesis.txt"):
        exported(file, mine, force=True)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_what_is_written_is_noted_for_whoever_removes_a_person(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    file.chmod(0o640)
    folder = exported(file, tmp_path / "npy")
    assert recorded_pages(file) == [folder]
    assert take_fingerprint(folder) in written_pages(file)[folder]
    exported(file, folder, force=True)
    assert take_fingerprint(folder) in written_pages(file)[folder]
    assert folder.stat().st_mode & 0o007 == 0
    assert {path.stat().st_mode & 0o007 for path in folder.iterdir()} == {0}  # who may not read the file


def test_a_damaged_file_leaves_nothing(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=60_000)
    with h5py.File(file) as source:
        at = source["embeddings"].id.get_chunk_info(3).byte_offset
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    with raises(StorageError, file, "/embeddings"):
        exported(file, tmp_path / "npy")
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith("npy")]


def test_a_file_without_embeddings_is_refused(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=0)
    with raises(ConfigError, file):
        exported(file, tmp_path / "npy")


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", 1 << 19)
    file, vectors, _ = write_file(tmp_path / "people.h5", count=100_000, dimension=64)
    total = vectors.nbytes
    del vectors
    tracemalloc.start()
    try:
        exported(file, tmp_path / "npy")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "npy" / "embeddings.npy").stat().st_size > total
    assert peak < total / 4, f"{peak:,} of {total:,} bytes"
