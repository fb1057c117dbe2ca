"""Files joined: the same as one file made of all the photographs; what may not stand together is named."""

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
def made(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs in two folders, the file of each and the file of both."""
    place = tmp_path_factory.mktemp("merge")
    make_odd_people(place / "photos" / "b")
    shutil.copytree(place / "photos" / "b" / "P02", place / "photos" / "a" / "P02")
    shutil.copytree(place / "photos" / "b" / "P03", place / "photos" / "c")
    embed_folder(place / "photos", place / "all.h5", tiny_engine)
    outer = [path for folder in "ac" for path in (place / "photos" / folder).rglob("*.jpg")]
    (place / "list").write_text("".join(f"{path}\n" for path in outer))
    embed_folder(f"@{place / 'list'}", place / "ac.h5", tiny_engine)
    embed_folder(place / "photos" / "b", place / "b.h5", tiny_engine)
    return place


def test_joined_is_as_if_made_at_once(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    before = [(made / name).read_bytes() for name in ("ac.h5", "b.h5")]
    done = facemill("merge", made / "ac.h5", made / "b.h5", "-o", output, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["photographs"], found["root"]) == (len(paths_in(output)), str(made / "photos"))
    assert differences(output, made / "all.h5") == []
    assert verify_file(output).findings == ()
    assert [(made / name).read_bytes() for name in ("ac.h5", "b.h5")] == before
    assert os.listdir(tmp_path) == ["o.h5"]


def test_the_order_of_the_files_does_not_matter_nor_their_number(made: Path, tiny_engine: Path, tmp_path: Path) -> None:
    for name in ("a", "c"):
        embed_folder(made / "photos" / name, tmp_path / f"{name}.h5", tiny_engine)
    files = [made / "b.h5", tmp_path / "c.h5", tmp_path / "a.h5"]
    assert facemill("merge", *files, "-o", tmp_path / "o.h5").returncode == 0
    assert differences(tmp_path / "o.h5", made / "all.h5") == []


def test_a_photograph_in_two_files(made: Path, tiny_engine: Path, tmp_path: Path) -> None:
    again = embed_folder(made / "photos" / "b" / "P02", tmp_path / "again.h5", tiny_engine)
    with h5py.File(again, "r+") as file:
        file["embeddings"][:] = np.eye(16, dtype=np.float32)[:4]
    output = tmp_path / "o.h5"
    done = facemill("merge", made / "b.h5", again, "-o", output)
    assert_refused(done, "E-CONFIG", 4, "P02/0.jpg", "P02/1.jpg", "P02/2.jpg", 1, "--prefer first")
    assert sorted(os.listdir(tmp_path)) == ["again.h5"]
    done = facemill("merge", made / "b.h5", again, "-o", output, "--prefer", "first")
    assert "4 photos were in several files" in done.stdout
    assert differences(output, made / "b.h5") == []
    assert facemill("merge", again, made / "b.h5", "-o", output, "--prefer", "first", "--force").returncode == 0
    assert set(differences(output, made / "b.h5")) == {"embeddings"}


def test_what_may_not_stand_together_is_named_with_both_values(made: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other = embed_folder(made / "photos" / "c", tmp_path / "half.h5", tiny_engine, "--dtype", "float16")
    done = facemill("merge", made / "b.h5", other, "-o", tmp_path / "o.h5")
    assert_refused(done, "E-CONTRACT", "dtype", "float32", "float16")
    with h5py.File(other, "r+") as file:
        contract = json.loads(file["metadata"].attrs["contract"])
        changed = {**contract, "dtype": "float32", "model_sha256": "0" * 64, "faces": "all"}
        file["metadata"].attrs["contract"] = json.dumps(changed)
    done = facemill("merge", made / "b.h5", other, "-o", tmp_path / "o.h5")
    assert_refused(done, "E-CONTRACT", "model_sha256", "faces", "largest", "all")
    assert not (tmp_path / "o.h5").exists()


def test_details_of_duplicates_name_paths_below_the_new_root(made: Path, tiny_engine: Path, tmp_path: Path) -> None:
    b = embed_folder(made / "photos" / "b", tmp_path / "b.h5", tiny_engine, "--skip-duplicates")
    output = tmp_path / "o.h5"
    assert facemill("merge", b, made / "ac.h5", "-o", output).returncode == 0
    with h5py.File(output) as file:
        details = file["outcomes/detail"].asstr()[:]
        assert sum(detail == "the same file as b/P00/0.jpg" for detail in details) == 2
        assert "digest" not in file["outcomes"]
        assert not file["metadata"].attrs["skip_duplicates"]
    assert verify_file(output).findings == ()
    done = facemill("remove", output, "--path", "b/P00/0.jpg", "--yes")
    assert done.returncode == 0, done.stderr
    assert not [path for path in paths_in(output) if path in (b"b/P00/0.jpg", b"b/P09/0.jpg", b"b/P09/1.jpg")]


def test_a_calibration_that_fits_is_kept(made: Path, tmp_path: Path) -> None:

    with h5py.File(made / "ac.h5") as file:
        contract = EmbeddingContract.from_json(file["metadata"].attrs["contract"]).select(Guard.SCORES)
    for name, value in (("fits", contract), ("other", {**contract, "model_sha256": "x"})):
        copy = Path(shutil.copy(made / "ac.h5", tmp_path / f"{name}.h5"))
        known = Calibration(value, "f", 2, 2, 1, 999, (1, 1, 0), "2026-01-01T00:00:00+00:00", "1")
        with h5py.File(copy, "r+") as file:
            file["metadata"].attrs["score_calibration"] = known.to_json()
        assert facemill("merge", copy, made / "b.h5", "-o", tmp_path / f"{name}-o.h5").returncode == 0
        assert ("@score_calibration" in contents(tmp_path / f"{name}-o.h5")) == (name == "fits")


@pytest.mark.parametrize("wrong", ["one", "twice", "itself", "exists", "none", "no file"])
def test_mistakes_are_said(wrong: str, made: Path, tmp_path: Path) -> None:
    a, b = made / "ac.h5", made / "b.h5"
    (tmp_path / "there.h5").write_bytes(b"x")
    there, none = tmp_path / "there.h5", tmp_path / "none.h5"
    arguments, code, values = {
        "one": ((a, "-o", tmp_path / "o"), USAGE, ()),
        "twice": ((a, a, "-o", tmp_path / "o"), "E-CONFIG", (a,)),
        "itself": ((a, b, "-o", a, "--force"), "E-CONFIG", ("-o", a)),
        "exists": ((a, b, "-o", there), "E-EXISTS", (there, "-o", "--force")),
        "none": ((a, none, "-o", tmp_path / "o"), "E-STORAGE", (none,)),
        "no file": ((a, there, "-o", tmp_path / "o"), "E-STORAGE", (there,)),
    }[wrong]
    assert_refused(facemill("merge", *arguments), code, *values)
    assert os.listdir(tmp_path) == ["there.h5"]


@pytest.mark.parametrize("where", ["maintenance.merge.assemble", "storage.dataset._write_outcomes"])
def test_a_kill_while_it_writes_leaves_the_output_as_it_was(where: str, made: Path, tmp_path: Path) -> None:
    output = Path(shutil.copy(made / "b.h5", tmp_path / "o.h5"))
    arguments = [str(a) for a in (made / "ac.h5", made / "b.h5", "-o", output, "--force")]
    module = ".".join(where.split(".")[:2])
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import runtime.{module}\nruntime.{where} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"from runtime.cli.merge import main\nmain({arguments!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == -signal.SIGKILL
    assert differences(output, made / "b.h5") == []
    assert facemill("merge", *arguments).returncode == 0
    assert differences(output, made / "all.h5") == []
    assert os.listdir(tmp_path) == ["o.h5"]


@pytest.mark.parametrize("seed", range(4))
def test_kill_9_leaves_no_half_file_and_the_same_command_goes_on(seed: int, made: Path, tmp_path: Path) -> None:
    output = Path(shutil.copy(made / "b.h5", tmp_path / "o.h5"))
    arguments = ["merge", made / "ac.h5", made / "b.h5", "-o", output, "--force"]
    command = [sys.executable, "-m", "runtime.cli.app", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.3, 1.0))
        process.kill()
    assert differences(output, made / "b.h5") == [] or differences(output, made / "all.h5") == []
    assert facemill(*arguments).returncode == 0
    assert differences(output, made / "all.h5") == []
    assert os.listdir(tmp_path) == ["o.h5"]
