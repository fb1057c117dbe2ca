"""The table of pairs: unchanged names, all-or-nothing writes, expected false pairs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import ConfigError, DiskFullError, OutputExistsError
from runtime.metrics.falsematch import Calibration
from runtime.pairs.all_pairs import ScoredPairs
from runtime.pairs.table import PairTable, check_table_path, write_table
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
from tests.support.duplicate_people import calibration_of, pairs_by_numpy, rows_with_duplicates, write_rows
from tests.support.errors import raises

EVIL = [
    b'say "hi", <b>.jpg',
    b"two\nlines\r.jpg",
    "caf\u00e9 \u202e.jpg".encode(),
    b"a\\xff.jpg",
    b"=1+1;'.jpg",
    b",,,",
]


def scored_pairs(vectors: np.ndarray, threshold: float = 0.4) -> ScoredPairs:
    first, second, scores = zip(*pairs_by_numpy(vectors, threshold), strict=True)
    return ScoredPairs(np.array(first), np.array(second), np.array(scores, np.float32))


def table_of(gallery: EmbeddingFile, scored: ScoredPairs, calibration: Calibration | None = None) -> PairTable:
    return PairTable(gallery, scored, calibration)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_has_every_pair_in_order_with_unchanged_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.pairs.table._PAIRS_PER_WRITE", 7)
    monkeypatch.setattr("runtime.pairs.table._NAMES_PER_READ", 11)
    vectors = rows_with_duplicates(100)
    names = [EVIL[row % 6] + b"%d" % row for row in range(100)]
    scored = scored_pairs(vectors)
    with EmbeddingFile(write_rows(tmp_path / "p.h5", vectors, names=names)) as gallery:
        write_table(tmp_path / "o.csv", gallery, table_of(gallery, scored))
    lines = read_csv(tmp_path / "o.csv")
    assert list(lines[0]) == ["path_a", "path_b", "score", "expected_false", "at_most", "row_a", "row_b"]
    assert [(int(line["row_a"]), int(line["row_b"])) for line in lines] == [
        pair[:2] for pair in pairs_by_numpy(vectors, 0.4)
    ]
    for line, score in zip(lines, scored.scores, strict=True):
        assert line["path_a"] == names[int(line["row_a"])].decode()
        assert line["path_b"] == names[int(line["row_b"])].decode()
        assert line["score"] == f"{score:.6f}"
        assert line["expected_false"] == line["at_most"] == ""
    assert read_list(tmp_path / "p.h5").pages() == [tmp_path / "o.csv"]


def test_parquet_equals_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[parquet]'")
    monkeypatch.setattr("runtime.pairs.table._PAIRS_PER_WRITE", 7)
    counts = [3, 0, 1, 2] * 20
    vectors = rows_with_duplicates(sum(counts))
    names = [EVIL[row % 6] for row in range(len(vectors))]
    scored, calibration = scored_pairs(vectors), calibration_of(np.linspace(-0.5, 0.5, 1000))
    path = write_rows(tmp_path / "p.h5", vectors, names=names, counts=counts)
    with EmbeddingFile(path) as gallery:
        table = table_of(gallery, scored, calibration)
        for name in ("o.parquet", "o.csv"):
            write_table(tmp_path / name, gallery, table)
    stored = parquet.read_table(tmp_path / "o.parquet")
    assert stored["score"].to_numpy().tolist() == scored.scores.tolist()
    lines = read_csv(tmp_path / "o.csv")
    assert stored.column_names == list(lines[0])
    ranks = np.concatenate([np.arange(count) for count in counts])
    for line, row in zip(lines, stored.to_pylist(), strict=True):
        assert [line[name] for name in ("path_a", "path_b")] == [row["path_a"], row["path_b"]]
        assert [int(line[name]) for name in ("row_a", "row_b")] == [row["row_a"], row["row_b"]]
        assert float(line["expected_false"]) == pytest.approx(row["expected_false"], rel=1e-5)
        assert line["at_most"] == str(row["at_most"]).lower()
        for side in "ab":
            assert int(line[f"face_index_{side}"]) == row[f"face_index_{side}"] == ranks[row[f"row_{side}"]]
    assert {line["at_most"] for line in lines} == {"true", "false"}


def test_expected_is_the_false_match_rate_times_all_pairs_of_the_file(tmp_path: Path) -> None:
    impostors = np.linspace(-0.5, 0.5, 1000)
    vectors = rows_with_duplicates(200)
    with EmbeddingFile(write_rows(tmp_path / "p.h5", vectors)) as gallery:
        table = table_of(gallery, scored_pairs(vectors), calibration_of(impostors))
    for pair in table.rows(0, len(table.pairs)):
        assert pair.expected is not None
        count_above = int((impostors >= np.floor(pair.score * 1000) / 1000).sum())
        assert pair.expected.at_most == (count_above == 0)
        assert pair.expected.hits == pytest.approx((count_above or 3) / 1000 * 200 * 199 / 2)


def test_no_pairs_give_a_table_without_lines(tmp_path: Path) -> None:
    vectors = rows_with_duplicates(60)
    no_pairs = ScoredPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    with EmbeddingFile(write_rows(tmp_path / "p.h5", vectors)) as gallery:
        write_table(tmp_path / "o.csv", gallery, table_of(gallery, no_pairs))
    assert (tmp_path / "o.csv").read_text() == "path_a,path_b,score,expected_false,at_most,row_a,row_b\n"


@pytest.mark.parametrize("name", ["o.csv", "o.parquet"])
def test_a_failed_write_keeps_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install '.[parquet]'")
    vectors = rows_with_duplicates(100)
    (tmp_path / name).write_text("old")
    with EmbeddingFile(write_rows(tmp_path / "p.h5", vectors)) as gallery:
        table = table_of(gallery, scored_pairs(vectors))
        rows = PairTable.rows

        def fail_after_10(self: PairTable, start: int, stop: int) -> object:
            yield from list(rows(self, start, stop))[:10]
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(PairTable, "rows", fail_after_10)
        with pytest.raises(DiskFullError):
            write_table(tmp_path / name, gallery, table)
    assert (tmp_path / name).read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "p.h5", "p.h5.pages"])
    assert read_list(tmp_path / "p.h5").pages() == [
        tmp_path / name
    ]  # recorded before the write, because a kill would leave a part of the table


def test_unwritable_table_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("old")
    with raises(ConfigError, ".csv", ".parquet"):
        check_table_path(tmp_path / "o.txt", force=True)
    with raises(ConfigError, tmp_path / "no"):
        check_table_path(tmp_path / "no" / "o.csv", force=True)
    with raises(OutputExistsError, "--force"):
        check_table_path(tmp_path / "o.csv", force=False)
    check_table_path(tmp_path / "o.csv", force=True)
