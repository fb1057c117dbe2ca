"""From segments through the ledger to the finished file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.errors import StorageError
from runtime.records import Embedded, Outcome, Status
from runtime.storage.dataset import assemble
from runtime.storage.file import EmbeddingFile
from runtime.storage.format import read_scanned_paths
from runtime.storage.ledger import Ledger
from runtime.storage.segments import SegmentRules, SegmentWriter, segment_files
from tests.support.errors import assert_names, raises, warnings_in

D = 8


def unit(seed: int, n: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def open_writer(
    folder: Path, rows: int = 10, plan: str = "p", digests: bool = False, dtype: str = "float32"
) -> SegmentWriter:
    return SegmentWriter(folder, plan_id=plan, dimension=D, dtype=dtype, digests=digests, rules=SegmentRules(rows, 1e9))


def append(
    writer: SegmentWriter, rows: list[int], outcomes: tuple[Outcome, ...] = (), seed: int = 0
) -> NDArray[np.float32]:
    vectors = unit(seed, len(rows))
    writer.append(Embedded(np.array(rows, np.int64), outcomes, embeddings=vectors))
    return vectors


def finish(folder: Path, rows: int, output: Path, base: Path | None = None, paths: list[bytes] | None = None) -> None:
    with Ledger(rows, folder, "p", base) as ledger:
        assemble(
            output,
            ledger,
            paths or [b"%d.jpg" % i for i in range(rows)],
            {"dimension": D, "contract": '{"root": "/photos"}'},
            "float32",
        )


def test_segments_end_at_their_size_and_become_the_file(tmp_path: Path) -> None:
    segment_writer = open_writer(tmp_path, rows=3)
    first = append(segment_writer, [0, 2, 3], (Outcome(1, Status.CORRUPT, "cut short"),), seed=1)
    second = append(segment_writer, [4], seed=2)
    segment_writer.commit()
    assert [path.name for path in segment_files(tmp_path)] == ["segment-000001.h5", "segment-000002.h5"]
    with Ledger(6, tmp_path, "p") as ledger:
        assert ledger.pending(retry=False).tolist() == [5]
        assert ledger.pending(retry=True).tolist() == [1, 5]
        assert ledger.counts() == {"pending": 1, "embedded": 4, "corrupt": 1}
    append(segment_writer, [], (Outcome(5, Status.UNREADABLE, "gone"),))
    segment_writer.commit()
    finish(tmp_path, 6, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["embeddings"][:], np.concatenate([first, second]))
        assert file["image_paths"].asstr()[:].tolist() == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]
        assert file["outcomes/status"][:].tolist() == [1, 2, 1, 1, 1, 4]
        assert file["outcomes/detail"].asstr()[:].tolist() == ["", "cut short", "", "", "", "gone"]
        assert file["outcomes/path"].asstr()[1] == "1.jpg"
        assert file["embeddings"].fletcher32
        assert file["image_paths"].compression == "gzip"
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["metadata"].attrs["format_version"] == 1


def test_later_segments_override_earlier_ones_and_a_base(tmp_path: Path) -> None:
    segment_writer = open_writer(tmp_path)
    first = append(segment_writer, [0, 2], (Outcome(1, Status.CORRUPT, "x"), Outcome(3, Status.NO_FACE, "y")), seed=1)
    segment_writer.commit()
    base = tmp_path / "base.h5"
    finish(tmp_path, 4, base)
    later_folder = tmp_path / "again"
    later_folder.mkdir()
    segment_writer = open_writer(later_folder)
    later_vectors = append(segment_writer, [1], seed=5)
    segment_writer.commit()
    finish(later_folder, 4, tmp_path / "out.h5", base)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["embeddings"][:], np.stack([first[0], later_vectors[0], first[1]]))
        assert file["outcomes/status"][:].tolist() == [1, 1, 1, 6]
        assert file["outcomes/detail"].asstr()[3] == "y"


def test_a_damaged_or_foreign_segment_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for plan in ("p", "other", "p"):
        segment_writer = open_writer(tmp_path, plan=plan)
        append(segment_writer, [len(segment_files(tmp_path))])
        segment_writer.commit()
    third = segment_files(tmp_path)[2]
    third.write_bytes(third.read_bytes()[:1500])
    (tmp_path / "segment-000009.h5.partial").write_bytes(b"half")
    with Ledger(3, tmp_path, "p") as ledger:
        assert ledger.pending(retry=False).tolist() == [1, 2]
    assert_names("\n".join(warnings_in(caplog)), "segment-000002.h5", third)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "segment-000001.h5",
        "segment-000002.damaged",
        "segment-000003.damaged",
    ]


def test_paths_that_are_not_utf8_are_kept_to_the_byte(tmp_path: Path) -> None:
    paths = [b"a.jpg", b"caf\xe9.jpg", "grüße 😀.jpg".encode(), b"x" * 900]
    segment_writer = open_writer(tmp_path)
    append(segment_writer, [0, 1, 2, 3])
    segment_writer.commit()
    finish(tmp_path, 4, tmp_path / "out.h5", paths=paths)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["image_paths"].asstr()[:].tolist() == ["a.jpg", "caf\\xe9.jpg", "grüße 😀.jpg", "x" * 900]
        assert list(read_scanned_paths(file)) == paths


def test_long_details_are_cut_between_characters(tmp_path: Path) -> None:
    segment_writer = open_writer(tmp_path)
    append(segment_writer, [], (Outcome(0, Status.CORRUPT, "ä" * 400),))
    segment_writer.commit()
    finish(tmp_path, 1, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["outcomes/detail"].asstr()[0] == "ä" * 250
        assert file["embeddings"].shape == (0, D)
        assert file["image_paths"].asstr()[:].tolist() == []


def test_half_precision_and_digests(tmp_path: Path) -> None:
    segment_writer = open_writer(tmp_path, digests=True, dtype="float16")
    vectors = unit(3, 2)
    digests = {0: b"a" * 16, 1: b"b" * 16, 2: b"a" * 16}
    duplicate = Outcome(2, Status.DUPLICATE, "the same file as 0.jpg")
    segment_writer.append(Embedded(np.array([0, 1]), (duplicate,), digests, embeddings=vectors))
    segment_writer.commit()
    with Ledger(3, tmp_path, "p") as ledger:
        assert ledger.digests(np.array([2, 0])).tobytes() == b"a" * 32
        assemble(
            tmp_path / "out.h5",
            ledger,
            [b"0", b"1", b"2"],
            {"dimension": D, "contract": '{"root": "/photos"}'},
            "float16",
        )
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["embeddings"].dtype == np.float16
        np.testing.assert_array_equal(file["embeddings"][:], vectors.astype(np.float16))
        assert file["outcomes/digest"].shape == (3, 16)


@pytest.mark.slow
def test_many_rows_in_several_blocks_keep_their_order(tmp_path: Path) -> None:
    rows = 70_000  # more than two blocks of the assembly
    segment_writer = open_writer(tmp_path, rows=9_999)
    vectors = np.arange(rows * D, dtype=np.float32).reshape(rows, D)
    for start in range(0, rows, 1000):
        segment_writer.append(Embedded(np.arange(start, start + 1000), embeddings=vectors[start : start + 1000]))
    segment_writer.commit()
    finish(tmp_path, rows, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["embeddings"][:], vectors)
        assert file["image_paths"].asstr()[65_536] == "65536.jpg"


@pytest.mark.parametrize("content", [b"not hdf5", b""])
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with raises(StorageError, path, "facemill repair"):
        EmbeddingFile(path)


def test_a_different_format_version_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("metadata").attrs["format_version"] = 99
    with raises(StorageError, 99):
        EmbeddingFile(tmp_path / "x.h5")
