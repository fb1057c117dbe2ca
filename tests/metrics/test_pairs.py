"""Pairs files in their published forms, and invalid files."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from runtime.errors import ConfigError
from runtime.metrics.pairs import read_pairs
from tests.support.errors import Values, raises

GOOD = "2\t1\nAda\t1\t2\nAda\t1\tBob\t3\nCy B.\t10\t2\nAda\t2\tBob\t12345\n"


def write_pairs(folder: Path, text: str | bytes) -> Path:
    path = folder / "pairs.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_pairs_file_is_read(tmp_path: Path) -> None:
    pairs = read_pairs(write_pairs(tmp_path, GOOD))
    assert pairs.left == ("Ada/Ada_0001", "Ada/Ada_0001", "Cy B./Cy B._0010", "Ada/Ada_0002")
    assert pairs.right == ("Ada/Ada_0002", "Bob/Bob_0003", "Cy B./Cy B._0002", "Bob/Bob_12345")
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert pairs.folds == 2


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        "\n" + GOOD.replace("\n", "\n\n"),
        GOOD.replace("\t", " ").replace("Cy B.", "Cy_B."),
        GOOD.rstrip("\n"),
    ],
)
def test_line_ends_byte_order_marks_and_blanks_are_ignored(tmp_path: Path, text: str) -> None:
    pairs = read_pairs(write_pairs(tmp_path, text))
    assert [name.replace("_B.", " B.") for name in pairs.left] == list(read_pairs(write_pairs(tmp_path, GOOD)).left)
    assert pairs.fold.tolist() == [0, 0, 1, 1]


def test_a_development_set_is_one_fold(tmp_path: Path) -> None:
    pairs = read_pairs(write_pairs(tmp_path, "2\nAda\t1\t2\nAda\t1\t3\nAda\t1\tBob\t3\nAda\t1\tCy\t1\n"))
    assert pairs.folds == 1
    assert pairs.same.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ("''", "`10 300`")),
        ("Ada\t1\t2\n", ("`10 300`",)),
        ("0\t1\n", ("`10 300`",)),
        ("1\t1\nAda\t1\t2\n", (1, 2)),
        ("1\t1\nAda\t1\t2\nAda\t1\t3\n", ("fold 1", 2, 0)),
        ("2\t1\nAda\t1\tBob\t2\nAda\t1\tBob\t3\nAda\t1\t2\nAda\t1\t3\n", ("fold 1", 0)),
        ("1\t1\nAda\t1\t2\nAda\t1\tBob\t3\t4\n", ("line 3",)),
        ("1\t1\nAda\t1\t2\nAda\tone\tBob\t3\n", ("line 3",)),
        ("1\t1\nAda\t1\t1\nAda\t1\tBob\t3\n", ("line 2",)),
        ("1\t1\nAda\t1\t2\nAda\t1\tAda\t3\n", ("line 3",)),
        ("1\t1\nAda\t1\t2\nAda\t1\t\t3\n", ("line 3",)),
        (b"1\t1\nAd\xff\t1\t2\n", ("UTF-8",)),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, text: str | bytes, values: Values) -> None:
    with raises(ConfigError, *values):
        read_pairs(write_pairs(tmp_path, text))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with raises(ConfigError, "none.txt", "No such file", "LFW"):
        read_pairs(tmp_path / "none.txt")


@pytest.mark.slow
def test_the_official_lfw_file_is_read(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "data" / "lfw_pairs.tar") as archive:
        member = archive.extractfile("lfw/pairs.txt")
        assert member is not None
        path = write_pairs(tmp_path, member.read())
        names = {name.removeprefix("lfw/") for name in archive.getnames()}
    pairs = read_pairs(path)
    assert (len(pairs.left), pairs.folds, int(pairs.same.sum())) == (6000, 10, 3000)
    assert all(f"{name}.jpg" in names for name in (*pairs.left, *pairs.right))
