"""A whole file is said to be whole, and each way of damaging one is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.storage.verify import verify_file
from tests.support.errors import Values, assert_names, assert_refused, raises
from tests.support.facemill_command import facemill


@pytest.fixture(scope="module")
def whole(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "people.h5"
    assert facemill("process", photos, "-o", path, "--engine", tiny_engine, "--skip-duplicates").returncode == 0
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "copy.h5"))


def test_a_whole_file_is_whole(whole: Path) -> None:
    before = whole.read_bytes()
    found = verify_file(whole)
    assert found.findings == ()
    assert (found.embeddings, found.photographs, found.zeros) == (594, 600, 0)
    assert whole.read_bytes() == before


def test_zeros_are_counted_and_no_damage(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file["embeddings"][7] = 0
    found = verify_file(copy)
    assert (found.zeros, found.findings) == (1, ())


def longer(file: Any) -> None:
    file["embeddings"][5] *= 1.01


def not_a_number(file: Any) -> None:
    file["embeddings"][5, 3] = np.nan


def swapped(file: Any) -> None:
    file["image_paths"][4:6] = file["image_paths"][4:6][::-1]


def shorter(file: Any) -> None:
    file["image_paths"].resize(593, axis=0)


def lost(file: Any) -> None:
    file["embeddings"].resize(593, axis=0)


def another_status(file: Any) -> None:
    file["outcomes/status"][3] = 2


def unknown_status(file: Any) -> None:
    file["outcomes/status"][3] = 77


def another_count(file: Any) -> None:
    file["metadata"].attrs["count_embedded"] = 593


def another_scan(file: Any) -> None:
    file["metadata"].attrs["scanned"] = 601


def another_version(file: Any) -> None:
    file["metadata"].attrs["format_version"] = 2


def another_model(file: Any) -> None:
    file["metadata"].attrs["model"] = "somebody else's"


def another_root(file: Any) -> None:
    file["metadata"].attrs["root"] = "/elsewhere"


def another_dtype(file: Any) -> None:
    rows = file["embeddings"][:]
    del file["embeddings"]
    file.create_dataset("embeddings", data=rows.astype(np.float16), chunks=True)


def no_contract(file: Any) -> None:
    file["metadata"].attrs["contract"] = "{"


def another_exact_path(file: Any) -> None:
    raw = file["outcomes"].create_group("raw_paths")
    raw["row"] = np.array([5], np.int64)
    raw.create_dataset("bytes", shape=(1,), dtype=h5py.vlen_dtype(np.uint8))[0] = np.frombuffer(b"who\xe9", np.uint8)


def out_of_order(file: Any) -> None:
    for name in ("outcomes/path", "image_paths"):
        file[name][:2] = file[name][:2][::-1]


def no_details(file: Any) -> None:
    file["outcomes/detail"].resize(10, axis=0)


def clusters_of(file: Any, numbers: list[int]) -> None:
    file.create_dataset("cluster", data=np.array(numbers, np.int32)).attrs["clusters"] = 2


def too_few_clusters(file: Any) -> None:
    clusters_of(file, [1, 1, 2])


def unknown_cluster(file: Any) -> None:
    clusters_of(file, [1] * 590 + [3, 2, -1, 0])


@pytest.mark.parametrize(
    ("damage", "values"),
    [
        (longer, ("embeddings", "row 5")),
        (not_a_number, ("embeddings", "row 5")),
        (swapped, ("paths", "/outcomes", "row 4, 5")),
        (shorter, ("/image_paths", 593, 594)),
        (lost, (594, 593)),
        (another_status, ("count_corrupt", 6, 7)),
        (unknown_status, ("row 3",)),
        (another_count, ("count_embedded", 593, 594)),
        (another_scan, ("scanned", 601, 600)),
        (another_version, ("format_version", 2, 1)),
        (another_model, ("contract", "model", "tiny", "somebody else's")),
        (another_root, ("/elsewhere",)),
        (another_dtype, ("contract", "dtype", "float32", "float16")),
        (no_contract, ("contract",)),
        (too_few_clusters, ("/cluster", 3, 594)),
        (unknown_cluster, ("cluster", "row 590, 592")),
        (another_exact_path, ("exact paths", "/outcomes/path", "row 5")),
        (out_of_order, ("exact paths", "row 1")),
        (no_details, ("/outcomes/detail", 10, 600)),
    ],
)
def test_damage_is_named(copy: Path, damage: Callable[[Any], None], values: Values) -> None:
    with h5py.File(copy, "r+") as file:
        damage(file)
    assert_names("\n".join(verify_file(copy).findings), *values)


def test_one_wrong_bit_among_the_vectors_is_found_by_its_checksum(copy: Path) -> None:
    with h5py.File(copy) as file:
        at = file["embeddings"].id.get_chunk_info(0).byte_offset
    data = bytearray(copy.read_bytes())
    data[at + 2] ^= 1  # a low bit of the first number: its length alone would not show it
    copy.write_bytes(data)
    assert any(finding.startswith("vectors: cannot be read") for finding in verify_file(copy).findings)


def test_a_chunk_that_is_missing_is_no_row_of_zeros(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        del file["embeddings"]
        file.create_dataset("embeddings", shape=(594, 16), chunks=(100, 16), dtype=np.float32)
        file["embeddings"][:300] = np.eye(16, dtype=np.float32)[0]
        file["embeddings"][500:] = np.eye(16, dtype=np.float32)[0]
    assert any(finding.startswith("vectors: cannot be read") for finding in verify_file(copy).findings)


def test_a_length_that_no_file_could_hold_ends_the_reading(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file["embeddings"].resize(10**13, axis=0)
    (finding,) = verify_file(copy).findings
    assert "which is more than the file can hold" in finding


@pytest.mark.parametrize("content", [None, b"", b"no photograph", "half"])
def test_what_is_no_embedding_file_is_refused(whole: Path, tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "x.h5"
    if content is not None:
        data = whole.read_bytes()
        path.write_bytes(data[: len(data) // 2] if isinstance(content, str) else content)
    with raises(StorageError, path):
        verify_file(path)


def test_the_command_says_so_in_words_json_and_exit_codes(whole: Path, copy: Path) -> None:
    done = facemill("verify", whole)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "whole")
    with h5py.File(copy, "r+") as file:
        longer(file)
    done = facemill("verify", copy)
    assert done.returncode == 1
    assert "not of length 1: row 5" in done.stdout
    assert "damaged" in done.stdout
    answer = json.loads(facemill("verify", copy, "--json").stdout)
    assert (answer["whole"], answer["embeddings"], len(answer["findings"])) == (False, 594, 1)
    missing = facemill("verify", copy.with_name("none.h5"))
    assert_refused(missing, "E-STORAGE", copy.with_name("none.h5"))
