"""Export to a folder of NumPy arrays: the arrays equal the data of the file."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import ConfigError, OutputExistsError, StorageError
from runtime.export.npy import export_npy
from runtime.records import FACE_DATASETS, LATER_DATASETS
from runtime.storage.derived import take_fingerprint
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
from tests.support.errors import raises
from tests.support.export_files import ODD, write_file


def export(file: Path, folder: Path, *, force: bool = False) -> Path:
    with EmbeddingFile(file) as gallery:
        export_npy(gallery, folder, force=force)
    return folder


def read_paths(folder: Path) -> list[bytes]:
    """Read the paths as the documentation describes."""
    lines = (folder / "paths.jsonl").read_text(encoding="ascii").split("\n")
    assert lines.pop() == ""
    entries = [json.loads(line) for line in lines]
    return [bytes.fromhex(entry["path_hex"]) if "path_hex" in entry else entry["path"].encode() for entry in entries]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("faces", [False, True])
def test_the_export_has_all_data_of_the_file(
    tmp_path: Path, dtype: str, faces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", 7 * 16 * 4)  # seven rows at a time
    file, vectors, paths = write_file(tmp_path / "people.h5", dtype=dtype, faces=faces, cluster=faces)
    before = file.read_bytes()
    folder = export(file, tmp_path / "npy")
    array = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    assert isinstance(array, np.memmap)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, vectors)
    assert read_paths(folder) == paths
    assert set(ODD) <= set(paths)
    assert file.read_bytes() == before
    columns = {**FACE_DATASETS, **LATER_DATASETS, "cluster": "cluster"} if faces else {}
    assert {entry.name for entry in folder.iterdir()} == {
        "embeddings.npy", "paths.jsonl", "metadata.json", *(f"{name}.npy" for name in columns)
    }  # fmt: skip
    with h5py.File(file) as source:
        for name, dataset in columns.items():
            column = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            assert column.dtype == source[dataset].dtype
            np.testing.assert_array_equal(column, source[dataset][:])


def test_metadata_are_strict_json(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    text = (export(file, tmp_path / "npy") / "metadata.json").read_text(encoding="ascii")
    assert "\\ud" not in text  # half of a surrogate pair is not valid text
    metadata = json.loads(text)
    assert metadata["contract"]["model_sha256"] == "ab" * 32
    assert metadata["root"] == metadata["contract"]["root"] == "/photos/\\xfe"
    assert bytes.fromhex(metadata["root_hex"]) == b"/photos/\xfe"
    with h5py.File(file) as source:
        assert metadata["run_id"] == source["metadata"].attrs["run_id"]
        assert set(metadata) - {"root_hex"} == set(source["metadata"].attrs)


def test_an_existing_export_is_replaced_only_with_force(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    other_file, vectors, _ = write_file(tmp_path / "other.h5", count=9, seed=1)
    folder = export(file, tmp_path / "npy")
    with raises(OutputExistsError, "--force"):
        export(other_file, folder)
    assert len(np.load(folder / "embeddings.npy")) == 60
    export(other_file, folder, force=True)
    np.testing.assert_array_equal(np.load(folder / "embeddings.npy"), vectors)
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith("npy.")]


def test_a_folder_with_foreign_files_is_never_replaced(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    foreign_folder = tmp_path / "mine"
    foreign_folder.mkdir()
    (foreign_folder / "thesis.txt").write_text("years of work")
    with raises(OutputExistsError, "thesis.txt"):
        export(file, foreign_folder, force=True)
    assert (foreign_folder / "thesis.txt").read_text() == "years of work"


def test_an_export_is_recorded_for_later_removals(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    file.chmod(0o640)
    folder = export(file, tmp_path / "npy")
    assert read_list(file).pages() == [folder]
    assert take_fingerprint(folder) in read_list(file).written[folder]
    export(file, folder, force=True)
    assert take_fingerprint(folder) in read_list(file).written[folder]
    assert folder.stat().st_mode & 0o007 == 0
    assert {path.stat().st_mode & 0o007 for path in folder.iterdir()} == {0}  # users who may not read the file


@pytest.mark.slow
def test_a_damaged_file_gives_no_export(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=60_000)
    with h5py.File(file) as source:
        offset = source["embeddings"].id.get_chunk_info(3).byte_offset
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)
    with raises(StorageError, file, "/embeddings"):
        export(file, tmp_path / "npy")
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith("npy")]


def test_a_file_without_embeddings_is_refused(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=0)
    with raises(ConfigError, file):
        export(file, tmp_path / "npy")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", 1 << 19)
    file, vectors, _ = write_file(tmp_path / "people.h5", count=100_000, dimension=64)
    total = vectors.nbytes
    del vectors
    tracemalloc.start()
    try:
        export(file, tmp_path / "npy")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "npy" / "embeddings.npy").stat().st_size > total
    assert peak < total / 4, f"{peak:,} of {total:,} bytes"
