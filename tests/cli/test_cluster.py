"""The cluster command: what is printed, what is written, what is refused; and real people in real photographs."""

from __future__ import annotations

import csv
import os
import shutil
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.files import temporary_path
from runtime.pages.map import groups_of_folders
from tests.oracles.agreement import agreement
from tests.support.clustered_files import EVIL, people_rows, person_of_rows, write_file, write_photos
from tests.support.errors import USAGE, Values, assert_names, assert_refused
from tests.support.facemill_command import facemill

pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[cluster]'")
SIZES = [4, 3, 2, 1]
NAMES = [b"%02d.jpg" % i for i in range(9)] + [EVIL]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_file(tmp_path_factory.mktemp("cluster") / "people.h5", people_rows(SIZES, noise=0.3), NAMES)
    write_photos(path, NAMES)
    return path


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "people.h5"))


def column(file: Path) -> np.ndarray | None:
    with h5py.File(file) as opened:
        return opened["cluster"][:] if "cluster" in opened else None


def test_all_that_it_writes(file: Path, tmp_path: Path) -> None:
    where = tmp_path / "out"
    where.mkdir()
    done = facemill(
        "cluster", file, "--threshold", 0.6, "-o", where / "a.csv", "--folders", where / "f", "--sheets", where / "s"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "10 embeddings in 4 clusters (threshold 0.6)",
        "  3 with several photos, 9 in all",
        "  1 of one photo",
        "  the largest has 4",
        "model: planted (sha256 unknown)",
        f"{where / 'a.csv'}",
        f"{where / 'f'}: 3 folders, 9 photos",
        f"{where / 's' / 'index.html'}: 1 sheet",
        f"{file}: /cluster",
    ]
    assert "WARNING" not in done.stderr
    found = column(file)
    assert found is not None
    np.testing.assert_array_equal(found, person_of_rows(SIZES) + 1)
    with (where / "a.csv").open(encoding="utf-8", newline="") as lines:
        assert [int(line["cluster"]) for line in csv.DictReader(lines)] == found.tolist()
    assert sorted(os.listdir(where / "f" / "cluster-00003")) == ["07.jpg", "08.jpg"]
    assert facemill("verify", file).returncode == 0
    assert not (tmp_path / "people.h5.pairs.parts").exists()
    pages = (tmp_path / "people.h5.pages").read_text("ascii")
    assert all(name in pages for name in ("a.csv", "out/f", "out/s"))


def test_with_k_and_without_the_column(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    done = facemill("cluster", file, "-k", 3, "--no-column", "-o", tmp_path / "a.csv", "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "10 embeddings in 3 clusters (k-means, k = 3)"
    assert file.read_bytes() == data
    assert (tmp_path / "a.csv").exists()


def test_what_was_compared_is_kept_until_all_is_written(file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "people.h5.pairs.parts"
    target = tmp_path / "list.csv"
    temporary_path(target).mkdir()  # so that the list cannot be written
    done = facemill("cluster", file, "--threshold", 0.6, "-o", target)
    assert_refused(done, "E-STORAGE", target)
    assert kept.exists()
    assert column(file) is None
    done = facemill("cluster", file, "--threshold", 0.6)
    assert done.returncode == 0
    assert "resum" in done.stderr
    assert not kept.exists()


def test_a_threshold_that_is_too_low_is_said(tmp_path: Path) -> None:
    path = write_file(tmp_path / "people.h5", people_rows([60, 3], noise=0.3))
    done = facemill("cluster", path, "--threshold", 0.5, "--no-column")
    assert done.returncode == 0
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("WARNING: 1 cluster ")]
    assert_names(warning, "60 of 63")


def test_existing_outputs_are_refused_before_anything_is_done(file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("mine")
    for option, target in (("-o", "a.csv"), ("--folders", "d"), ("--sheets", "d")):
        done = facemill("cluster", file, "--threshold", 0.6, option, tmp_path / target)
        assert_refused(done, "E-EXISTS", tmp_path / target, "--force" if option == "-o" else "mine.txt")
        assert done.stdout == ""
    assert column(file) is None
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert facemill("cluster", file, "--threshold", 0.6, "-o", tmp_path / "a.csv", "--force").returncode == 0
    assert (tmp_path / "a.csv").read_text().startswith("cluster,size,score,row,path\n")


@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        ([], "E-CONFIG", ("--threshold", "-k", "facemill evaluate")),
        (["-k", 11], "E-CONFIG", (11,)),
        (["-k", 0], USAGE, ("-k", 0)),
        (["--threshold", 0], USAGE, ("--threshold", 0.0)),
        (["--threshold", "nan"], "E-CONFIG", ("nan", 0, 1)),
        (["-k", 2, "--threshold", 0.5], USAGE, ("-k", "--threshold")),
        (["--threshold", 0.5, "--folders", "d", "--sheets", "./d"], "E-OPTION", ("--folders", "--sheets")),
        (["--threshold", 0.5, "--folders", "d", "--sheets", "x/../d/e"], "E-OPTION", ("--folders", "--sheets")),
        (["--threshold", 0.5, "--sheets", "d", "-o", "d/list.csv"], "E-OPTION", ("--sheets", "--output")),
        (["--threshold", 0.5, "--mode", "copy"], USAGE, ("--mode", "--folders")),
        (["--threshold", 0.5, "-o", "list.txt"], "E-CONFIG", ("list.txt", ".csv")),
        (["--threshold", 0.5, "--device", "cuda:0"], USAGE, ("--device", "cuda:0", "auto", "cpu", "gpu")),
    ],
)
def test_mistakes_get_words_not_tracebacks(file: Path, arguments: list[object], code: str, values: Values) -> None:
    done = facemill("cluster", file, *arguments)
    assert_refused(done, code, *values)
    assert column(file) is None


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    done = facemill("cluster", tmp_path / "none.h5", "--threshold", 0.5)
    assert_refused(done, "E-STORAGE", tmp_path / "none.h5")


@pytest.mark.slow
def test_real_people(shared: Path, tmp_path: Path) -> None:
    """Every twelfth person of LFW's pairs: 357 people, most of them with one photograph."""
    with tarfile.open(shared / "data" / "lfw_pairs.tar") as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")]
        chosen = set(sorted({name.split("/")[1] for name in names})[::12])
        for name in names:
            if name.split("/")[1] in chosen:
                archive.extract(name, tmp_path, filter="data")
    file = tmp_path / "people.h5"
    done = facemill("process", tmp_path / "lfw", "-o", file, "--model", "mobilefacenet-128", "--backend", "cpu",
                    FACEMILL_MODELS=shared / "models")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert facemill("cluster", file, "--threshold", 0.5).returncode == 0
    with h5py.File(file) as opened:
        person = groups_of_folders(opened["image_paths"].asstr()[:].tolist()).labels
    found = column(file)
    assert found is not None
    assert len(np.unique(person)) > 350
    assert agreement(found.astype(np.int64), person).f1 >= 0.95
