"""The list of clusters contains every row once, cluster by cluster, for any file name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from runtime.clusters import outputs
from runtime.clusters.clusters import Clusters, number_clusters
from runtime.clusters.outputs import check_list_path, write_list
from runtime.errors import ConfigError, OutputExistsError
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
from tests.support.clustered_files import EVIL, people_rows, write_file
from tests.support.errors import raises

NAMES = sorted([b"=cmd()|'x'.jpg", b"a,b.jpg", b"c\n1,2,3.jpg", b'd".jpg', EVIL, b"z.jpg"])


def clusters(labels: list[int]) -> Clusters:
    scores = np.linspace(0.5, 0.6, len(labels)).astype(np.float32)
    return number_clusters(np.array(labels), scores, method="whispers", threshold=0.5)


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("lines", [2, 100])
def test_every_row_is_listed_once_by_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    monkeypatch.setattr(outputs, "_ROWS_PER_READ", lines)
    file = write_file(tmp_path / "people.h5", people_rows([6]), NAMES)
    with EmbeddingFile(file) as gallery:
        write_list(tmp_path / "people.csv", gallery, clusters([8, -1, 7, 8, 7, 8]))
        names = gallery.names(range(6))
    assert read(tmp_path / "people.csv") == [
        ["cluster", "size", "score", "row", "path"],
        ["0", "0", "0.5200", "1", names[1]],
        ["1", "3", "0.5000", "0", names[0]],
        ["1", "3", "0.5600", "3", names[3]],
        ["1", "3", "0.6000", "5", names[5]],
        ["2", "2", "0.5400", "2", names[2]],
        ["2", "2", "0.5800", "4", names[4]],
    ]
    assert read_list(file).pages() == [tmp_path / "people.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.csv", "people.h5", "people.h5.pages"]


def test_faces_have_their_rank(tmp_path: Path) -> None:
    file = write_file(tmp_path / "people.h5", people_rows([3]), ranks=[0, 2, 1])
    with EmbeddingFile(file) as gallery:
        write_list(tmp_path / "people.csv", gallery, clusters([0, 0, 1]))
    rows = read(tmp_path / "people.csv")
    assert rows[0][-1] == "face_index"
    assert [int(line[-1]) for line in rows[1:]] == [0, 2, 1]


def test_a_failure_leaves_the_old_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_file(tmp_path / "people.h5", people_rows([3]))
    (tmp_path / "people.csv").write_text("old")
    monkeypatch.setattr(EmbeddingFile, "names", lambda self, rows: 1 / 0)
    with EmbeddingFile(file) as gallery, pytest.raises(ZeroDivisionError):
        write_list(tmp_path / "people.csv", gallery, clusters([0, 0, 1]))
    assert (tmp_path / "people.csv").read_text() == "old"
    assert not (tmp_path / "people.csv.partial").exists()


def test_the_output_path_is_checked_first(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with raises(OutputExistsError, "--force"):
        check_list_path(tmp_path / "a.csv", force=False)
    check_list_path(tmp_path / "a.csv", force=True)
    for name in ("people.h5", "none/a.csv"):
        with pytest.raises(ConfigError):
            check_list_path(tmp_path / name, force=True)
