"""The cluster command: its output, its files, its refusals, and its clusters of LFW."""

from __future__ import annotations

import csv
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.clusters import outputs
from runtime.files import temporary_path
from runtime.pages.map import groups_of_folders
from runtime.storage.derived import derived_file
from tests.oracles.agreement import agreement
from tests.support.clustered_files import EVIL, people_rows, person_of_rows, write_file, write_photos
from tests.support.errors import USAGE, Values, assert_names, assert_refused
from tests.support.extras import require_package
from tests.support.facemill_command import facemill

require_package("scipy", "cluster")
SIZES = [4, 3, 2, 1]
NAMES = [b"%02d.jpg" % i for i in range(9)] + [EVIL]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_file(tmp_path_factory.mktemp("cluster") / "people.h5", people_rows(SIZES, noise=0.3), NAMES)
    write_photos(path, NAMES)
    return path


@pytest.fixture
def file(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(template, tmp_path / "people.h5"))


def read_column(file: Path) -> np.ndarray | None:
    with h5py.File(file) as opened:
        return opened["cluster"][:] if "cluster" in opened else None


@pytest.mark.slow
def test_cluster_writes_every_output(file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    result = facemill(
        "cluster", file, "--threshold", 0.6, "-o", output / "a.csv", "--folders", output / "f", "--sheets", output / "s"
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "10 embeddings in 4 clusters (threshold 0.6)",
        "  3 with several photos, 9 in all",
        "  1 of one photo",
        "  the largest has 4",
        "model: planted (sha256 unknown)",
        f"{output / 'a.csv'}",
        f"{output / 'f'}: 3 folders, 9 photos",
        f"{output / 's' / 'index.html'}: 1 sheet",
        f"{file}: /cluster",
    ]
    assert "WARNING" not in result.stderr
    labels = read_column(file)
    assert labels is not None
    np.testing.assert_array_equal(labels, person_of_rows(SIZES) + 1)
    with (output / "a.csv").open(encoding="utf-8", newline="") as lines:
        assert [int(line["cluster"]) for line in csv.DictReader(lines)] == labels.tolist()
    assert sorted(os.listdir(output / "f" / "cluster-00003")) == ["07.jpg", "08.jpg"]
    assert facemill("verify", file).returncode == 0
    assert not (tmp_path / "people.h5.pairs.parts").exists()
    pages = (tmp_path / "people.h5.pages").read_text("ascii")
    assert all(name in pages for name in ("a.csv", "out/f", "out/s"))


def test_k_sets_the_number_of_clusters_and_no_column_keeps_the_file(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    result = facemill("cluster", file, "-k", 3, "--no-column", "-o", tmp_path / "a.csv", "--seed", 1)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "10 embeddings in 3 clusters (k-means, k = 3)"
    assert file.read_bytes() == data
    assert (tmp_path / "a.csv").exists()


def test_compared_pairs_are_kept_until_every_output_is_written(file: Path, tmp_path: Path) -> None:
    parts = tmp_path / "people.h5.pairs.parts"
    target = tmp_path / "list.csv"

    def block(*arguments: Any, **options: Any) -> Any:
        temporary_path(target).mkdir()  # after the looks before the work: the list cannot be written
        return derived_file(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "derived_file", block)
        result = facemill("cluster", file, "--threshold", 0.6, "-o", target)
    assert_refused(result, "E-EXISTS", target)
    assert parts.exists()
    assert read_column(file) is None
    result = facemill("cluster", file, "--threshold", 0.6)
    assert result.returncode == 0
    assert "resum" in result.stderr
    assert not parts.exists()


def test_a_low_threshold_gives_a_warning(tmp_path: Path) -> None:
    path = write_file(tmp_path / "people.h5", people_rows([60, 3], noise=0.3))
    result = facemill("cluster", path, "--threshold", 0.5, "--no-column")
    assert result.returncode == 0
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("WARNING: 1 cluster ")]
    assert_names(warning, "60 of 63")


def test_existing_outputs_are_refused_before_any_work(file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("mine")
    for option, target in (("-o", "a.csv"), ("--folders", "d"), ("--sheets", "d")):
        result = facemill("cluster", file, "--threshold", 0.6, option, tmp_path / target)
        assert_refused(result, "E-EXISTS", tmp_path / target, "--force" if option == "-o" else "mine.txt")
        assert result.stdout == ""
    assert read_column(file) is None
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
        (["--threshold", "nan"], USAGE, ("--threshold", "nan")),
        (["-k", 2, "--threshold", 0.5], USAGE, ("-k", "--threshold")),
        (["--threshold", 0.5, "--folders", "d", "--sheets", "./d"], "E-OPTION", ("--folders", "--sheets")),
        (["--threshold", 0.5, "--folders", "d", "--sheets", "x/../d/e"], "E-OPTION", ("--folders", "--sheets")),
        (["--threshold", 0.5, "--sheets", "d", "-o", "d/list.csv"], "E-OPTION", ("--sheets", "--output")),
        (["--threshold", 0.5, "--mode", "copy"], USAGE, ("--mode", "--folders")),
        (["--threshold", 0.5, "-o", "list.txt"], "E-CONFIG", ("list.txt", ".csv")),
        (["--threshold", 0.5, "--device", "cuda:0"], USAGE, ("--device", "cuda:0", "auto", "cpu", "gpu")),
    ],
)
def test_wrong_options_are_refused(file: Path, arguments: list[object], code: str, values: Values) -> None:
    result = facemill("cluster", file, *arguments)
    assert_refused(result, code, *values)
    assert read_column(file) is None


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    result = facemill("cluster", tmp_path / "none.h5", "--threshold", 0.5)
    assert_refused(result, "E-STORAGE", tmp_path / "none.h5")


@pytest.mark.slow
def test_clusters_of_lfw_match_its_people(shared: Path, tmp_path: Path) -> None:
    """Cluster every twelfth person of LFW's pairs: 357 people, most of them with one photo."""
    with tarfile.open(shared / "data" / "lfw_pairs.tar") as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")]
        chosen = set(sorted({name.split("/")[1] for name in names})[::12])
        for name in names:
            if name.split("/")[1] in chosen:
                archive.extract(name, tmp_path, filter="data")
    file = tmp_path / "people.h5"
    result = facemill("process", tmp_path / "lfw", "-o", file, "--model", "mobilefacenet-128", "--backend", "cpu",
                    FACEMILL_MODELS=shared / "models")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert facemill("cluster", file, "--threshold", 0.5).returncode == 0
    with h5py.File(file) as opened:
        person = groups_of_folders(opened["image_paths"].asstr()[:].tolist()).labels
    labels = read_column(file)
    assert labels is not None
    assert len(np.unique(person)) > 350
    assert agreement(labels.astype(np.int64), person).f1 >= 0.95
