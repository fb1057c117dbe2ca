"""The merge command: its output equals one run over all photos; files with different settings are refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.metrics.falsematch import Calibration
from runtime.storage.contract import EmbeddingContract, Guard
from runtime.storage.verify import verify_file
from tests.support.embedding_files import contents, differences
from tests.support.errors import USAGE, assert_refused
from tests.support.facemill_command import ROOT, facemill
from tests.support.people_files import embed_folder, make_odd_people, paths_in


@pytest.fixture(scope="module")
def samples(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with photos, a file of all of them, and two files with a part each."""
    folder = tmp_path_factory.mktemp("merge")
    make_odd_people(folder / "photos" / "b")
    shutil.copytree(folder / "photos" / "b" / "P02", folder / "photos" / "a" / "P02")
    shutil.copytree(folder / "photos" / "b" / "P03", folder / "photos" / "c")
    embed_folder(folder / "photos", folder / "all.h5", tiny_engine)
    outer = [path for name in "ac" for path in (folder / "photos" / name).rglob("*.jpg")]
    (folder / "list").write_text("".join(f"{path}\n" for path in outer))
    embed_folder(f"@{folder / 'list'}", folder / "ac.h5", tiny_engine)
    embed_folder(folder / "photos" / "b", folder / "b.h5", tiny_engine)
    return folder


@pytest.mark.slow
def test_merged_files_equal_one_process_run(samples: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    contents_before = [(samples / name).read_bytes() for name in ("ac.h5", "b.h5")]
    result = facemill("merge", samples / "ac.h5", samples / "b.h5", "-o", output, "--json")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["photographs"], summary["root"]) == (len(paths_in(output)), str(samples / "photos"))
    assert differences(output, samples / "all.h5") == []
    assert verify_file(output).findings == ()
    assert [(samples / name).read_bytes() for name in ("ac.h5", "b.h5")] == contents_before
    assert os.listdir(tmp_path) == ["o.h5"]


@pytest.mark.slow
def test_the_order_and_number_of_files_do_not_matter(samples: Path, tiny_engine: Path, tmp_path: Path) -> None:
    for name in ("a", "c"):
        embed_folder(samples / "photos" / name, tmp_path / f"{name}.h5", tiny_engine)
    files = [samples / "b.h5", tmp_path / "c.h5", tmp_path / "a.h5"]
    assert facemill("merge", *files, "-o", tmp_path / "o.h5").returncode == 0
    assert differences(tmp_path / "o.h5", samples / "all.h5") == []


@pytest.mark.slow
def test_a_photo_in_two_files_needs_prefer(samples: Path, tiny_engine: Path, tmp_path: Path) -> None:
    overlap = embed_folder(samples / "photos" / "b" / "P02", tmp_path / "again.h5", tiny_engine)
    with h5py.File(overlap, "r+") as file:
        file["embeddings"][:] = np.eye(16, dtype=np.float32)[:4]
    output = tmp_path / "o.h5"
    result = facemill("merge", samples / "b.h5", overlap, "-o", output)
    assert_refused(result, "E-CONFIG", 4, "P02/0.jpg", "P02/1.jpg", "P02/2.jpg", 1, "--prefer first")
    assert sorted(os.listdir(tmp_path)) == ["again.h5"]
    result = facemill("merge", samples / "b.h5", overlap, "-o", output, "--prefer", "first")
    assert "4 photos were in several files" in result.stdout
    assert differences(output, samples / "b.h5") == []
    assert facemill("merge", overlap, samples / "b.h5", "-o", output, "--prefer", "first", "--force").returncode == 0
    assert set(differences(output, samples / "b.h5")) == {"embeddings"}


@pytest.mark.slow
def test_different_settings_are_refused_with_both_values(samples: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other_file = embed_folder(samples / "photos" / "c", tmp_path / "half.h5", tiny_engine, "--dtype", "float16")
    result = facemill("merge", samples / "b.h5", other_file, "-o", tmp_path / "o.h5")
    assert_refused(result, "E-CONTRACT", "dtype", "float32", "float16")
    with h5py.File(other_file, "r+") as file:
        contract = json.loads(file["metadata"].attrs["contract"])
        changed = {**contract, "model_sha256": "0" * 64, "faces": "all"}
        file["metadata"].attrs["contract"] = json.dumps(changed)
    result = facemill("merge", samples / "b.h5", other_file, "-o", tmp_path / "o.h5")
    assert_refused(result, "E-CONTRACT", "model_sha256", "faces", "largest", "all")
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.slow
def test_details_of_duplicates_use_paths_relative_to_the_new_root(
    samples: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    b = embed_folder(samples / "photos" / "b", tmp_path / "b.h5", tiny_engine, "--skip-duplicates")
    output = tmp_path / "o.h5"
    assert facemill("merge", b, samples / "ac.h5", "-o", output).returncode == 0
    with h5py.File(output) as file:
        details = file["outcomes/detail"].asstr()[:]
        assert sum(detail == "the same file as b/P00/0.jpg" for detail in details) == 2
        assert "digest" not in file["outcomes"]
        assert not file["metadata"].attrs["skip_duplicates"]
    assert verify_file(output).findings == ()
    result = facemill("remove", output, "--path", "b/P00/0.jpg", "--yes")
    assert result.returncode == 0, result.stderr
    assert not [path for path in paths_in(output) if path in (b"b/P00/0.jpg", b"b/P09/0.jpg", b"b/P09/1.jpg")]


@pytest.mark.slow
def test_a_calibration_that_fits_is_kept(samples: Path, tmp_path: Path) -> None:

    with h5py.File(samples / "ac.h5") as file:
        contract = EmbeddingContract.from_json(file["metadata"].attrs["contract"]).select(Guard.SCORES)
    for name, value in (("fits", contract), ("other", {**contract, "model_sha256": "x"})):
        copy = Path(shutil.copy(samples / "ac.h5", tmp_path / f"{name}.h5"))
        calibration = Calibration(value, "f", 2, 2, 1, 999, (1, 1, 0), "2026-01-01T00:00:00+00:00", "1")
        with h5py.File(copy, "r+") as file:
            file["metadata"].attrs["score_calibration"] = calibration.to_json()
        assert facemill("merge", copy, samples / "b.h5", "-o", tmp_path / f"{name}-o.h5").returncode == 0
        assert ("@score_calibration" in contents(tmp_path / f"{name}-o.h5")) == (name == "fits")


@pytest.mark.parametrize("mistake", ["one", "twice", "itself", "exists", "none", "no file"])
def test_wrong_arguments_are_refused(mistake: str, samples: Path, tmp_path: Path) -> None:
    a, b = samples / "ac.h5", samples / "b.h5"
    (tmp_path / "there.h5").write_bytes(b"x")
    existing, missing = tmp_path / "there.h5", tmp_path / "none.h5"
    arguments, code, values = {
        "one": ((a, "-o", tmp_path / "o"), USAGE, ()),
        "twice": ((a, a, "-o", tmp_path / "o"), "E-CONFIG", (a,)),
        "itself": ((a, b, "-o", a, "--force"), "E-CONFIG", ("-o", a)),
        "exists": ((a, b, "-o", existing), "E-EXISTS", (existing, "-o", "--force")),
        "none": ((a, missing, "-o", tmp_path / "o"), "E-STORAGE", (missing,)),
        "no file": ((a, existing, "-o", tmp_path / "o"), "E-STORAGE", (existing,)),
    }[mistake]
    assert_refused(facemill("merge", *arguments), code, *values)
    assert os.listdir(tmp_path) == ["there.h5"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["maintenance.merge.assemble", "storage.dataset._write_outcomes"])
def test_a_kill_during_writing_leaves_the_output_unchanged(target: str, samples: Path, tmp_path: Path) -> None:
    output = Path(shutil.copy(samples / "b.h5", tmp_path / "o.h5"))
    arguments = [str(a) for a in (samples / "ac.h5", samples / "b.h5", "-o", output, "--force")]
    module = ".".join(target.split(".")[:2])
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import runtime.{module}\nruntime.{target} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"from runtime.cli.merge import main\nmain({arguments!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == -signal.SIGKILL
    assert differences(output, samples / "b.h5") == []
    assert facemill("merge", *arguments).returncode == 0
    assert differences(output, samples / "all.h5") == []
    assert os.listdir(tmp_path) == ["o.h5"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kill_9_leaves_no_partial_file_and_the_command_resumes(seed: int, samples: Path, tmp_path: Path) -> None:
    output = Path(shutil.copy(samples / "b.h5", tmp_path / "o.h5"))
    arguments = ["merge", samples / "ac.h5", samples / "b.h5", "-o", output, "--force"]
    command = [sys.executable, "-m", "runtime.cli.app", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.3, 1.0))
        process.kill()
    assert differences(output, samples / "b.h5") == [] or differences(output, samples / "all.h5") == []
    assert facemill(*arguments).returncode == 0
    assert differences(output, samples / "all.h5") == []
    assert os.listdir(tmp_path) == ["o.h5"]
