"""Verify embedding files: an intact file has no findings, and each kind of damage is named."""

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
from runtime.storage.digest import seal
from runtime.storage.verify import verify_file
from tests.support.errors import Values, assert_names, assert_refused, raises
from tests.support.facemill_command import facemill


@pytest.fixture(scope="module")
def intact(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "people.h5"
    assert facemill("process", photos, "-o", path, "--engine", tiny_engine, "--skip-duplicates").returncode == 0
    return path


@pytest.fixture
def copy(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(intact, tmp_path / "copy.h5"))


@pytest.mark.slow
def test_an_intact_file_has_no_findings(intact: Path) -> None:
    before = intact.read_bytes()
    report = verify_file(intact)
    assert report.findings == ()
    assert (report.embeddings, report.photographs, report.zeros) == (594, 600, 0)
    assert intact.read_bytes() == before


@pytest.mark.slow
def test_zero_rows_are_counted_and_are_no_damage(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file["embeddings"][7] = 0
        seal(file)
    report = verify_file(copy)
    assert (report.zeros, report.findings) == (1, ())


def scale_row(file: Any) -> None:
    file["embeddings"][5] *= 1.01


def write_nan(file: Any) -> None:
    file["embeddings"][5, 3] = np.nan


def swap_names(file: Any) -> None:
    file["image_paths"][4:6] = file["image_paths"][4:6][::-1]


def drop_last_name(file: Any) -> None:
    file["image_paths"].resize(593, axis=0)


def drop_last_row(file: Any) -> None:
    file["embeddings"].resize(593, axis=0)


def change_status(file: Any) -> None:
    file["outcomes/status"][3] = 2


def write_unknown_status(file: Any) -> None:
    file["outcomes/status"][3] = 77


def change_count(file: Any) -> None:
    file["metadata"].attrs["count_embedded"] = 593


def change_scan_count(file: Any) -> None:
    file["metadata"].attrs["scanned"] = 601


def change_version(file: Any) -> None:
    file["metadata"].attrs["format_version"] = 2


def change_model(file: Any) -> None:
    file["metadata"].attrs["model"] = "somebody else's"


def change_root(file: Any) -> None:
    file["metadata"].attrs["root"] = "/elsewhere"


def change_dtype(file: Any) -> None:
    rows = file["embeddings"][:]
    del file["embeddings"]
    file.create_dataset("embeddings", data=rows.astype(np.float16), chunks=True)


def break_contract(file: Any) -> None:
    file["metadata"].attrs["contract"] = "{"


def shorten_contract(file: Any) -> None:
    attributes = file["metadata"].attrs
    contract = json.loads(attributes["contract"])
    attributes["contract"] = json.dumps({name: contract[name] for name in ("root", "model")})


def add_exact_path(file: Any) -> None:
    raw = file["outcomes"].create_group("raw_paths")
    raw["row"] = np.array([5], np.int64)
    raw.create_dataset("bytes", shape=(1,), dtype=h5py.vlen_dtype(np.uint8))[0] = np.frombuffer(b"who\xe9", np.uint8)


def reorder_paths(file: Any) -> None:
    for name in ("outcomes/path", "image_paths"):
        file[name][:2] = file[name][:2][::-1]


def drop_details(file: Any) -> None:
    file["outcomes/detail"].resize(10, axis=0)


def write_clusters(file: Any, numbers: list[int]) -> None:
    file.create_dataset("cluster", data=np.array(numbers, np.int32)).attrs["clusters"] = 2


def write_too_few_clusters(file: Any) -> None:
    write_clusters(file, [1, 1, 2])


def write_unknown_clusters(file: Any) -> None:
    write_clusters(file, [1] * 590 + [3, 2, -1, 0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "values"),
    [
        (scale_row, ("embeddings", "row 5")),
        (write_nan, ("embeddings", "row 5")),
        (swap_names, ("paths", "/outcomes", "row 4, 5")),
        (drop_last_name, ("/image_paths", 593, 594)),
        (drop_last_row, (594, 593)),
        (change_status, ("count_corrupt", 6, 7)),
        (write_unknown_status, ("row 3",)),
        (change_count, ("count_embedded", 593, 594)),
        (change_scan_count, ("scanned", 601, 600)),
        (change_version, ("format_version", 2, 1)),
        (change_model, ("contract", "model", "tiny", "somebody else's")),
        (change_root, ("/elsewhere",)),
        (change_dtype, ("contract", "dtype", "float32", "float16")),
        (break_contract, ("contract",)),
        (write_too_few_clusters, ("/cluster", 3, 594)),
        (write_unknown_clusters, ("cluster", "row 590, 592")),
        (add_exact_path, ("exact paths", "/outcomes/path", "row 5")),
        (reorder_paths, ("exact paths", "row 1")),
        (drop_details, ("/outcomes/detail", 10, 600)),
    ],
)
def test_every_kind_of_damage_is_named(copy: Path, damage: Callable[[Any], None], values: Values) -> None:
    with h5py.File(copy, "r+") as file:
        damage(file)
    assert_names("\n".join(verify_file(copy).findings), *values)


@pytest.mark.slow
def test_a_wrong_bit_in_the_vectors_fails_the_checksum(copy: Path) -> None:
    with h5py.File(copy) as file:
        offset = file["embeddings"].id.get_chunk_info(0).byte_offset
    data = bytearray(copy.read_bytes())
    data[offset + 2] ^= 1  # a low bit of the first number, too small a change for the check of lengths
    copy.write_bytes(data)
    assert any(finding.startswith("vectors: cannot be read") for finding in verify_file(copy).findings)


@pytest.mark.slow
def test_a_missing_chunk_is_damage(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        del file["embeddings"]
        file.create_dataset("embeddings", shape=(594, 16), chunks=(100, 16), dtype=np.float32)
        file["embeddings"][:300] = np.eye(16, dtype=np.float32)[0]
        file["embeddings"][500:] = np.eye(16, dtype=np.float32)[0]
    assert any(finding.startswith("vectors: cannot be read") for finding in verify_file(copy).findings)


@pytest.mark.slow
def test_an_impossible_length_is_damage(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file["embeddings"].resize(10**13, axis=0)
    (finding,) = verify_file(copy).findings
    assert "which is more than the file can hold" in finding


@pytest.mark.parametrize("content", [None, b"", b"not a photo", "half"])
def test_a_foreign_file_is_refused(intact: Path, tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "x.h5"
    if content is not None:
        data = intact.read_bytes()
        path.write_bytes(data[: len(data) // 2] if isinstance(content, str) else content)
    with raises(StorageError, path):
        verify_file(path)


@pytest.mark.slow
def test_the_verify_command_reports_in_text_json_and_exit_code(intact: Path, copy: Path) -> None:
    result = facemill("verify", intact)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "whole")
    with h5py.File(copy, "r+") as file:
        scale_row(file)
    result = facemill("verify", copy)
    assert result.returncode == 1
    assert "not of length 1: row 5" in result.stdout
    assert "damaged" in result.stdout
    answer = json.loads(facemill("verify", copy, "--json").stdout)
    assert (answer["whole"], answer["embeddings"], len(answer["findings"])) == (False, 594, 1)
    missing = facemill("verify", copy.with_name("none.h5"))
    assert_refused(missing, "E-STORAGE", copy.with_name("none.h5"))
