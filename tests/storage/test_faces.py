"""Several rows per photo: from segments to the finished file, with kills and damage in between."""

from __future__ import annotations

import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from runtime.errors import DamagedError, StorageError
from runtime.records import FACE, FACE_DATASETS, LATER_DATASETS, Embedded, Outcome, Status
from runtime.storage.dataset import assemble
from runtime.storage.ledger import Ledger
from runtime.storage.segments import segment_files
from tests.support.embedding_files import differences
from tests.support.errors import raises
from tests.support.face_batches import D, batch_of, batches_of, faces_of, segment_writer

# Datasets of a file without faces, unchanged since the version before faces.
WITHOUT_FACES = {"embeddings", "image_paths", "outcomes/path", "outcomes/status", "outcomes/detail"}
COLUMNS = (*FACE_DATASETS.values(), *LATER_DATASETS.values())


def paths_of(rows: int) -> list[bytes]:
    return [b"caf\xe9/%d.jpg" % row if row % 5 == 0 else b"%d.jpg" % row for row in range(rows)]


def run(
    folder: Path,
    rows: int,
    output: Path,
    *,
    seed: int,
    size: int = 3,
    segment_rows: int = 10,
    base: Path | None = None,
    unreadable: frozenset[int] = frozenset(),
) -> list[int]:
    """Run as `process` does: write pending rows to segments, then assemble the file; returns the processed rows."""
    processed: list[int] = []
    while True:
        with Ledger(rows, folder, "p", base) as ledger:
            pending = ledger.pending(retry=base is not None).tolist()
        writer = segment_writer(folder, segment_rows)
        for batch in batches_of(pending, size, seed, unreadable):
            writer.append(batch)
        writer.commit()
        processed += pending
        try:
            with Ledger(rows, folder, "p", base) as ledger:
                assemble(output, ledger, paths_of(rows), {"dimension": D, "contract": '{"root": "/photos"}'}, "float32")
            return processed
        except DamagedError:
            continue


def run_undisturbed(folder: Path, rows: int, seed: int) -> Path:
    """Write the file of a run without interruption."""
    run_folder = folder / "undisturbed"
    run_folder.mkdir()
    run(run_folder, rows, folder / "whole.h5", seed=seed)
    return folder / "whole.h5"


def list_datasets(path: Path) -> set[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return set(names)


def assert_holds(path: Path, batch: Embedded, rows: int) -> None:
    """Assert that the file holds exactly this batch; the oracle is NumPy."""
    texts = [name.decode("utf-8", "backslashreplace") for name in paths_of(rows)]
    counts = np.bincount(batch.rows, minlength=rows)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["embeddings"][:], batch.embeddings)
        assert file["image_paths"].asstr()[:].tolist() == [texts[row] for row in batch.rows]
        assert batch.faces is not None
        for name, dataset in {**FACE_DATASETS, **LATER_DATASETS}.items():
            np.testing.assert_array_equal(file[dataset][:], batch.faces[name])
            assert file[dataset].dtype == FACE[name].base
        outcomes = file["outcomes"]
        assert outcomes["faces"][:].tolist() == [batch.face_counts.get(row, 0) for row in range(rows)]
        assert outcomes["embeddings"][:].tolist() == counts.tolist()
        np.testing.assert_array_equal(np.repeat(np.arange(rows), outcomes["embeddings"][:]), batch.rows)
        np.testing.assert_array_equal(outcomes["status"][:] == Status.EMBEDDED, counts > 0)
        assert file["metadata"].attrs["format_version"] == (2 if counts.max() > 1 else 1)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), rows=st.integers(1, 60), size=st.integers(1, 9), segment_rows=st.integers(1, 20))
def test_the_file_has_all_faces_of_the_batches(seed: int, rows: int, size: int, segment_rows: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        run_folder = Path(temporary) / "run"
        run_folder.mkdir()
        run(run_folder, rows, Path(temporary) / "o.h5", seed=seed, size=size, segment_rows=segment_rows)
        assert_holds(Path(temporary) / "o.h5", batch_of(range(rows), seed), rows)


@pytest.mark.slow
def test_assembly_blocks_end_between_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.dataset._BLOCK_ROWS", 4)  # fewer rows than some photos have faces
    run(tmp_path, 200, tmp_path / "o.h5", seed=8)
    assert_holds(tmp_path / "o.h5", batch_of(range(200), 8), 200)


@pytest.mark.slow
def test_a_photo_is_in_one_segment_with_all_its_faces(tmp_path: Path) -> None:
    run(tmp_path, 100, tmp_path / "o.h5", seed=1, size=7, segment_rows=9)
    rows_in_order: list[int] = []
    for path in segment_files(tmp_path):
        with h5py.File(path) as file:
            rows = file["outcomes/row"][:].tolist()
            batch = batch_of(rows, 1)
            np.testing.assert_array_equal(file["embeddings"][:], batch.embeddings)
            np.testing.assert_array_equal(file["face_index"][:], batch.faces["face_index"])  # type: ignore[index]
        rows_in_order += rows
    assert rows_in_order == list(range(100))
    assert len(segment_files(tmp_path)) > 10


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 999), rows=st.integers(20, 60), size=st.integers(1, 9))
def test_a_killed_and_damaged_run_gives_the_same_file(data: st.DataObject, seed: int, rows: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running, left_folder = folder / "running", folder / "left"
        running.mkdir()
        writer = segment_writer(running, rows=size + 3)
        batch_count = data.draw(st.integers(1, -(-rows // size)), "batches before the kill")
        for batch in list(batches_of(range(rows), size, seed))[:batch_count]:
            writer.append(batch)
        shutil.copytree(running, left_folder)  # the state that a kill would leave, with the unfinished segment
        writer.discard()
        for segment in segment_files(left_folder):
            if data.draw(st.booleans(), "this segment is cut short"):
                content = segment.read_bytes()
                segment.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), "its length")])
        processed = run(left_folder, rows, folder / "o.h5", seed=seed)
        assert len(processed) == len(set(processed))
        assert differences(folder / "o.h5", run_undisturbed(folder, rows, seed)) == []


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["embeddings", *FACE_DATASETS.values()])
def test_photos_of_a_segment_with_a_wrong_bit_are_processed_again(dataset: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    writer = segment_writer(folder, rows=12)
    for batch in batches_of(range(50), 3, 6):
        writer.append(batch)
    writer.commit()
    segment = segment_files(folder)[1]
    with h5py.File(segment) as file:
        offset = file[dataset].id.get_chunk_info(0).byte_offset
    content = bytearray(segment.read_bytes())
    content[offset + 12] ^= 1
    segment.write_bytes(content)
    assert run(folder, 50, tmp_path / "o.h5", seed=6) == list(range(12, 24))
    assert segment.with_suffix(".damaged").exists()
    assert differences(tmp_path / "o.h5", run_undisturbed(tmp_path, 50, 6)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "damage"),
    [
        ("outcomes/embeddings", lambda counts: 2 * counts),
        ("outcomes/embeddings", lambda counts: counts[::-1]),  # the same sum, but rows for photos without a face
        *(
            (dataset, lambda values: values[:-1])
            for dataset in ("embeddings", *FACE_DATASETS.values(), *LATER_DATASETS.values())
        ),
    ],
)
def test_photos_of_an_inconsistent_segment_are_processed_again(
    dataset: str, damage: Callable[[NDArray[Any]], NDArray[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    writer = segment_writer(folder, rows=12)
    for batch in batches_of(range(30), 3, 2):
        writer.append(batch)
    writer.commit()
    with h5py.File(segment_files(folder)[0], "r+") as file:
        damaged = damage(file[dataset][:])
        del file[dataset]
        file[dataset] = damaged
    assert run(folder, 30, tmp_path / "o.h5", seed=2) == list(range(12))
    assert differences(tmp_path / "o.h5", run_undisturbed(tmp_path, 30, 2)) == []


@pytest.mark.slow
def test_photos_of_a_segment_without_faces_are_processed_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    writer = segment_writer(folder)
    writer.append(batch_of(range(8), 3))
    writer.commit()
    writer = segment_writer(folder, faces=False)
    writer.append(Embedded(np.array([8]), (Outcome(9, Status.CORRUPT, "x"),), embeddings=np.ones((1, D), np.float32)))
    writer.commit()
    assert run(folder, 10, tmp_path / "o.h5", seed=3) == [8, 9]
    assert differences(tmp_path / "o.h5", run_undisturbed(tmp_path, 10, 3)) == []


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 999), rows=st.integers(1, 50))
def test_a_retry_gives_the_file_of_a_run_without_failures(data: st.DataObject, seed: int, rows: int) -> None:
    unreadable = frozenset(data.draw(st.sets(st.integers(0, rows - 1), min_size=1), "rows that fail at first"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for attempt in ("first", "second"):
            (folder / attempt).mkdir()
        base = folder / "base.h5"
        run(folder / "first", rows, base, seed=seed, unreadable=unreadable)
        processed = run(folder / "second", rows, folder / "o.h5", seed=seed, base=base)
        always_failing = {outcome.row for outcome in batch_of(range(rows), seed).outcomes}
        assert set(processed) == unreadable | always_failing
        assert differences(folder / "o.h5", run_undisturbed(folder, rows, seed)) == []


@pytest.mark.slow
def test_a_finished_file_as_base_gives_the_same_file(tmp_path: Path) -> None:
    base = run_undisturbed(tmp_path, 40, 5)
    (tmp_path / "nothing").mkdir()
    with Ledger(40, tmp_path / "nothing", "p", base) as ledger:
        assemble(
            tmp_path / "o.h5", ledger, paths_of(40), {"dimension": D, "contract": '{"root": "/photos"}'}, "float32"
        )
    assert differences(tmp_path / "o.h5", base) == []


def test_a_base_without_faces_is_refused_for_a_run_with_faces(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    writer = segment_writer(first, faces=False)
    writer.append(Embedded(np.array([0]), (Outcome(1, Status.CORRUPT, "x"),), embeddings=np.ones((1, D), np.float32)))
    writer.commit()
    with Ledger(2, first, "p") as ledger:
        assemble(
            tmp_path / "base.h5", ledger, paths_of(2), {"dimension": D, "contract": '{"root": "/photos"}'}, "float32"
        )
    (tmp_path / "second").mkdir()
    with raises(StorageError, "--force"):
        run(tmp_path / "second", 2, tmp_path / "o.h5", seed=0, base=tmp_path / "base.h5")


def embedded_photo(row: int, ranks: Sequence[int]) -> Embedded:
    return Embedded(
        np.full(len(ranks), row),
        embeddings=np.ones((len(ranks), D), np.float32),
        faces=faces_of(np.random.default_rng(row), ranks),
        face_counts={row: 5},
    )


@pytest.mark.parametrize(("faces", "version"), [([[0], [0], [2]], 1), ([[0], [0, 3], [1]], 2)])
def test_only_several_rows_per_photo_raise_the_format_version(
    faces: list[list[int]], version: int, tmp_path: Path
) -> None:
    writer = segment_writer(tmp_path)
    for row, ranks in enumerate(faces):
        writer.append(embedded_photo(row, ranks))
    writer.commit()
    with Ledger(3, tmp_path, "p") as ledger:
        assemble(tmp_path / "o.h5", ledger, paths_of(3), {"dimension": D, "contract": '{"root": "/photos"}'}, "float32")
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["metadata"].attrs["format_version"] == version
        assert file["face_index"][:].tolist() == [rank for ranks in faces for rank in ranks]
    raw = {"outcomes/raw_paths/row", "outcomes/raw_paths/bytes"}
    assert list_datasets(tmp_path / "o.h5") == (
        WITHOUT_FACES | raw | set(COLUMNS) | {"outcomes/faces", "outcomes/embeddings"}
    )


def test_a_run_without_any_face_stores_empty_datasets(tmp_path: Path) -> None:
    writer = segment_writer(tmp_path)
    faceless = embedded_photo(0, [])
    writer.append(replace(faceless, outcomes=(Outcome(0, Status.NO_FACE, "no face"),), face_counts={0: 0}))
    writer.commit()
    with Ledger(1, tmp_path, "p") as ledger:
        assemble(tmp_path / "o.h5", ledger, [b"0.jpg"], {"dimension": D, "contract": '{"root": "/photos"}'}, "float32")
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["faces/landmarks"].shape == (0, 5, 2)
        assert file["outcomes/faces"][:].tolist() == [0]


def test_a_file_without_faces_has_the_datasets_of_earlier_versions(tmp_path: Path) -> None:
    writer = segment_writer(tmp_path, faces=False)
    writer.append(
        Embedded(np.array([0, 2]), (Outcome(1, Status.CORRUPT, "x"),), embeddings=np.ones((2, D), np.float32))
    )
    writer.commit()
    with h5py.File(segment_files(tmp_path)[0]) as file:
        assert set(file) == {"embeddings", "outcomes"}
        assert set(file["outcomes"]) == {"row", "status", "detail"}
    with Ledger(3, tmp_path, "p") as ledger:
        assemble(
            tmp_path / "o.h5",
            ledger,
            [b"0", b"1", b"2"],
            {"dimension": D, "contract": '{"root": "/photos"}'},
            "float32",
        )
    assert list_datasets(tmp_path / "o.h5") == WITHOUT_FACES
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["metadata"].attrs["format_version"] == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_faces_per_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 rows (12 MB), forty per photo: a block has a number of rows, not of photos."""
    monkeypatch.setattr("runtime.storage.dataset._BLOCK_ROWS", 4096)
    photo_count, faces_per_photo = 2560, 40
    rng = np.random.default_rng(0)
    vectors, faces = (
        rng.standard_normal((16 * faces_per_photo, D), np.float32),
        faces_of(rng, 16 * list(range(faces_per_photo))),
    )
    tracemalloc.start()
    try:
        writer = segment_writer(tmp_path, rows=1000)
        for start in range(0, photo_count, 16):
            rows = np.repeat(np.arange(start, start + 16), faces_per_photo)
            writer.append(
                Embedded(
                    rows, embeddings=vectors, faces=faces, face_counts=dict.fromkeys(rows.tolist(), faces_per_photo)
                )
            )
        writer.commit()
        with Ledger(photo_count, tmp_path, "p") as ledger:
            assemble(
                tmp_path / "o.h5",
                ledger,
                paths_of(photo_count),
                {"dimension": D, "contract": '{"root": "/photos"}'},
                "float32",
            )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["embeddings"].shape == (photo_count * faces_per_photo, D)
        np.testing.assert_array_equal(file["faces/box"][-faces_per_photo:], faces["box"][-faces_per_photo:])
        total = sum(file[name].nbytes for name in ("embeddings", "image_paths", *FACE_DATASETS.values()))
    assert peak < total / 3, f"{peak:,} of {total:,} bytes"
