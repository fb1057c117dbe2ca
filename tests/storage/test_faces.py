"""Several rows a photograph: from segments to the finished file, whatever happens in between."""

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
from runtime.records import FACE, FACE_DATASETS, Embedded, Outcome, Status
from runtime.storage.dataset import assemble
from runtime.storage.ledger import Ledger
from runtime.storage.segments import segment_files
from tests.support.embedding_files import differences
from tests.support.errors import raises
from tests.support.face_batches import D, batch_of, batches_of, faces_of, segment_writer

# What a file without faces holds, and held before there were any.
WITHOUT_FACES = {"embeddings", "image_paths", "outcomes/path", "outcomes/status", "outcomes/detail"}


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
    spoilt: frozenset[int] = frozenset(),
) -> list[int]:
    """What a run does: what is pending into segments, all of them into the file; returns the rows that it ran."""
    ran: list[int] = []
    while True:
        with Ledger(rows, folder, "p", base) as ledger:
            pending = ledger.pending(retry=base is not None).tolist()
        to = segment_writer(folder, segment_rows)
        for batch in batches_of(pending, size, seed, spoilt):
            to.append(batch)
        to.commit()
        ran += pending
        try:
            with Ledger(rows, folder, "p", base) as ledger:
                assemble(output, ledger, paths_of(rows), {"dimension": D, "contract": '{"root": "/photos"}'}, "float32")
            return ran
        except DamagedError:
            continue


def whole(place: Path, rows: int, seed: int) -> Path:
    """The file of a run that nothing disturbed."""
    folder = place / "undisturbed"
    folder.mkdir()
    run(folder, rows, place / "whole.h5", seed=seed)
    return place / "whole.h5"


def datasets(path: Path) -> set[str]:
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return set(found)


def assert_holds(path: Path, batch: Embedded, rows: int) -> None:
    """The file is one batch of everything, written down with NumPy."""
    texts = [name.decode("utf-8", "backslashreplace") for name in paths_of(rows)]
    counts = np.bincount(batch.rows, minlength=rows)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["embeddings"][:], batch.embeddings)
        assert file["image_paths"].asstr()[:].tolist() == [texts[row] for row in batch.rows]
        assert batch.faces is not None
        for name, dataset in FACE_DATASETS.items():
            np.testing.assert_array_equal(file[dataset][:], batch.faces[name])
            assert file[dataset].dtype == FACE[name].base
        outcomes = file["outcomes"]
        assert outcomes["faces"][:].tolist() == [batch.face_counts.get(row, 0) for row in range(rows)]
        assert outcomes["embeddings"][:].tolist() == counts.tolist()
        np.testing.assert_array_equal(np.repeat(np.arange(rows), outcomes["embeddings"][:]), batch.rows)
        np.testing.assert_array_equal(outcomes["status"][:] == Status.EMBEDDED, counts > 0)
        assert file["metadata"].attrs["format_version"] == (2 if counts.max() > 1 else 1)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), rows=st.integers(1, 60), size=st.integers(1, 9), segment_rows=st.integers(1, 20))
def test_what_is_found_is_in_the_file(seed: int, rows: int, size: int, segment_rows: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        folder.mkdir()
        run(folder, rows, Path(place) / "o.h5", seed=seed, size=size, segment_rows=segment_rows)
        assert_holds(Path(place) / "o.h5", batch_of(range(rows), seed), rows)


def test_blocks_of_the_assembly_end_between_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.storage.dataset._BLOCK_ROWS", 4)  # fewer than some photographs have faces
    run(tmp_path, 200, tmp_path / "o.h5", seed=8)
    assert_holds(tmp_path / "o.h5", batch_of(range(200), 8), 200)


def test_a_photograph_is_in_one_segment_with_all_of_its_faces(tmp_path: Path) -> None:
    run(tmp_path, 100, tmp_path / "o.h5", seed=1, size=7, segment_rows=9)
    seen: list[int] = []
    for path in segment_files(tmp_path):
        with h5py.File(path) as file:
            rows = file["outcomes/row"][:].tolist()
            batch = batch_of(rows, 1)
            np.testing.assert_array_equal(file["embeddings"][:], batch.embeddings)
            np.testing.assert_array_equal(file["face_index"][:], batch.faces["face_index"])  # type: ignore[index]
        seen += rows
    assert seen == list(range(100))
    assert len(segment_files(tmp_path)) > 10


@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 999), rows=st.integers(20, 60), size=st.integers(1, 9))
def test_killed_and_damaged_it_ends_with_the_same_file(data: st.DataObject, seed: int, rows: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        running, folder = place / "running", place / "left"
        running.mkdir()
        to = segment_writer(running, rows=size + 3)
        done = data.draw(st.integers(1, -(-rows // size)), "batches before the kill")
        for batch in list(batches_of(range(rows), size, seed))[:done]:
            to.append(batch)
        shutil.copytree(running, folder)  # what a kill at this moment leaves, the segment in hand as well
        to.discard()
        for segment in segment_files(folder):
            if data.draw(st.booleans(), "this segment is cut short"):
                content = segment.read_bytes()
                segment.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), "its length")])
        ran = run(folder, rows, place / "o.h5", seed=seed)
        assert len(ran) == len(set(ran))
        assert differences(place / "o.h5", whole(place, rows, seed)) == []


@pytest.mark.parametrize("dataset", ["embeddings", *FACE_DATASETS.values()])
def test_a_segment_with_one_wrong_bit_is_run_again(dataset: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    to = segment_writer(folder, rows=12)
    for batch in batches_of(range(50), 3, 6):
        to.append(batch)
    to.commit()
    segment = segment_files(folder)[1]
    with h5py.File(segment) as file:
        at = file[dataset].id.get_chunk_info(0).byte_offset
    content = bytearray(segment.read_bytes())
    content[at + 12] ^= 1
    segment.write_bytes(content)
    assert run(folder, 50, tmp_path / "o.h5", seed=6) == list(range(12, 24))
    assert segment.with_suffix(".damaged").exists()
    assert differences(tmp_path / "o.h5", whole(tmp_path, 50, 6)) == []


@pytest.mark.parametrize(
    ("dataset", "damage"),
    [
        ("outcomes/embeddings", lambda counts: 2 * counts),
        ("outcomes/embeddings", lambda counts: counts[::-1]),  # as many in all, and some for photographs without a face
        *((dataset, lambda values: values[:-1]) for dataset in ("embeddings", *FACE_DATASETS.values())),
    ],
)
def test_a_segment_whose_parts_do_not_fit_together_is_run_again(
    dataset: str, damage: Callable[[NDArray[Any]], NDArray[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    to = segment_writer(folder, rows=12)
    for batch in batches_of(range(30), 3, 2):
        to.append(batch)
    to.commit()
    with h5py.File(segment_files(folder)[0], "r+") as file:
        wrong = damage(file[dataset][:])
        del file[dataset]
        file[dataset] = wrong
    assert run(folder, 30, tmp_path / "o.h5", seed=2) == list(range(12))
    assert differences(tmp_path / "o.h5", whole(tmp_path, 30, 2)) == []


def test_a_segment_without_faces_among_those_that_have_them_is_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    to = segment_writer(folder)
    to.append(batch_of(range(8), 3))
    to.commit()
    to = segment_writer(folder, faces=False)
    to.append(Embedded(np.array([8]), (Outcome(9, Status.CORRUPT, "x"),), embeddings=np.ones((1, D), np.float32)))
    to.commit()
    assert run(folder, 10, tmp_path / "o.h5", seed=3) == [8, 9]
    assert differences(tmp_path / "o.h5", whole(tmp_path, 10, 3)) == []


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 999), rows=st.integers(1, 50))
def test_a_retry_ends_with_the_file_of_a_run_that_never_failed(data: st.DataObject, seed: int, rows: int) -> None:
    spoilt = frozenset(data.draw(st.sets(st.integers(0, rows - 1), min_size=1), "rows that fail at first"))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for attempt in ("first", "second"):
            (place / attempt).mkdir()
        base = place / "base.h5"
        run(place / "first", rows, base, seed=seed, spoilt=spoilt)
        ran = run(place / "second", rows, place / "o.h5", seed=seed, base=base)
        hopeless = {outcome.row for outcome in batch_of(range(rows), seed).outcomes}
        assert set(ran) == spoilt | hopeless
        assert differences(place / "o.h5", whole(place, rows, seed)) == []


def test_a_finished_file_gives_itself_again(tmp_path: Path) -> None:
    base = whole(tmp_path, 40, 5)
    (tmp_path / "nothing").mkdir()
    with Ledger(40, tmp_path / "nothing", "p", base) as ledger:
        assemble(
            tmp_path / "o.h5", ledger, paths_of(40), {"dimension": D, "contract": '{"root": "/photos"}'}, "float32"
        )
    assert differences(tmp_path / "o.h5", base) == []


def test_a_finished_file_without_faces_is_no_base_for_a_run_with_them(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    to = segment_writer(first, faces=False)
    to.append(Embedded(np.array([0]), (Outcome(1, Status.CORRUPT, "x"),), embeddings=np.ones((1, D), np.float32)))
    to.commit()
    with Ledger(2, first, "p") as ledger:
        assemble(
            tmp_path / "base.h5", ledger, paths_of(2), {"dimension": D, "contract": '{"root": "/photos"}'}, "float32"
        )
    (tmp_path / "second").mkdir()
    with raises(StorageError, "--force"):
        run(tmp_path / "second", 2, tmp_path / "o.h5", seed=0, base=tmp_path / "base.h5")


def photograph(row: int, ranks: Sequence[int]) -> Embedded:
    return Embedded(
        np.full(len(ranks), row),
        embeddings=np.ones((len(ranks), D), np.float32),
        faces=faces_of(np.random.default_rng(row), ranks),
        face_counts={row: 5},
    )


@pytest.mark.parametrize(("faces", "version"), [([[0], [0], [2]], 1), ([[0], [0, 3], [1]], 2)])
def test_only_several_rows_for_one_photograph_make_another_version(
    faces: list[list[int]], version: int, tmp_path: Path
) -> None:
    to = segment_writer(tmp_path)
    for row, ranks in enumerate(faces):
        to.append(photograph(row, ranks))
    to.commit()
    with Ledger(3, tmp_path, "p") as ledger:
        assemble(tmp_path / "o.h5", ledger, paths_of(3), {"dimension": D, "contract": '{"root": "/photos"}'}, "float32")
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["metadata"].attrs["format_version"] == version
        assert file["face_index"][:].tolist() == [rank for ranks in faces for rank in ranks]
    raw = {"outcomes/raw_paths/row", "outcomes/raw_paths/bytes"}
    assert datasets(tmp_path / "o.h5") == (
        WITHOUT_FACES | raw | set(FACE_DATASETS.values()) | {"outcomes/faces", "outcomes/embeddings"}
    )


def test_a_run_in_which_no_face_was_found_says_so(tmp_path: Path) -> None:
    to = segment_writer(tmp_path)
    nobody = photograph(0, [])
    to.append(replace(nobody, outcomes=(Outcome(0, Status.NO_FACE, "no face"),), face_counts={0: 0}))
    to.commit()
    with Ledger(1, tmp_path, "p") as ledger:
        assemble(tmp_path / "o.h5", ledger, [b"0.jpg"], {"dimension": D, "contract": '{"root": "/photos"}'}, "float32")
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["faces/landmarks"].shape == (0, 5, 2)
        assert file["outcomes/faces"][:].tolist() == [0]


def test_without_faces_a_file_holds_what_it_always_held(tmp_path: Path) -> None:
    to = segment_writer(tmp_path, faces=False)
    to.append(Embedded(np.array([0, 2]), (Outcome(1, Status.CORRUPT, "x"),), embeddings=np.ones((2, D), np.float32)))
    to.commit()
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
    assert datasets(tmp_path / "o.h5") == WITHOUT_FACES
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["metadata"].attrs["format_version"] == 1


def test_memory_does_not_grow_with_the_faces_of_the_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100,000 rows in crowds of forty, 12 MB of them: blocks are of rows, not of photographs."""
    monkeypatch.setattr("runtime.storage.dataset._BLOCK_ROWS", 4096)
    photographs, crowd = 2560, 40
    rng = np.random.default_rng(0)
    vectors, faces = rng.standard_normal((16 * crowd, D), np.float32), faces_of(rng, 16 * list(range(crowd)))
    tracemalloc.start()
    try:
        to = segment_writer(tmp_path, rows=1000)
        for start in range(0, photographs, 16):
            rows = np.repeat(np.arange(start, start + 16), crowd)
            to.append(Embedded(rows, embeddings=vectors, faces=faces, face_counts=dict.fromkeys(rows.tolist(), crowd)))
        to.commit()
        with Ledger(photographs, tmp_path, "p") as ledger:
            assemble(
                tmp_path / "o.h5",
                ledger,
                paths_of(photographs),
                {"dimension": D, "contract": '{"root": "/photos"}'},
                "float32",
            )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["embeddings"].shape == (photographs * crowd, D)
        np.testing.assert_array_equal(file["faces/box"][-crowd:], faces["box"][-crowd:])
        total = sum(file[name].nbytes for name in ("embeddings", "image_paths", *FACE_DATASETS.values()))
    assert peak < total / 3, f"{peak:,} of {total:,} bytes"
