"""Add photos to a file: the result equals one run over all photos, even after an interruption."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.engines.engine import sidecar_path
from runtime.maintenance.add import add
from runtime.storage.contract import EmbeddingContract
from runtime.storage.nearby import derived_nearby, other_names
from runtime.storage.runfolder import RunFolder, StoredPlan
from runtime.storage.verify import verify_file
from tests.support import encoded_images as make
from tests.support.embedding_files import differences
from tests.support.errors import assert_refused
from tests.support.facemill_command import ROOT, facemill
from tests.support.people_files import embed_folder, make_odd_people, make_people, paths_in
from tests.support.red_square_detector import save_red_squares


@pytest.fixture(scope="module")
def samples(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with photos, `all.h5` with all of them, and `old.h5` without the new ones."""
    folder = tmp_path_factory.mktemp("add")
    make_odd_people(folder / "photos")
    embed_folder(folder / "photos", folder / "all.h5", tiny_engine)
    new_names = ("P02", "P04", "P09", os.fsdecode("odd \xe9".encode()))
    (folder / "aside").mkdir()
    for name in new_names:
        shutil.move(folder / "photos" / name, folder / "aside" / name)
    embed_folder(folder / "photos", folder / "old.h5", tiny_engine)
    for name in new_names:
        shutil.move(folder / "aside" / name, folder / "photos" / name)
    return folder


@pytest.fixture
def file(samples: Path, tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return Path(shutil.copy(samples / "old.h5", tmp_path / "here" / "people.h5"))


def add_photos(file: Path, *photos: object, retry: bool = False) -> dict[str, Any]:
    """Run `add` in this process; returns its summary."""
    return asdict(add(file, [str(photo) for photo in photos], retry=retry))


@pytest.mark.slow
def test_add_prints_its_counts(file: Path, samples: Path) -> None:
    result = facemill("add", file, samples / "photos" / "P02", "--json")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["scanned"], summary["added"], summary["outcomes"]) == (4, 4, {"embedded": 4})
    repeated = facemill("add", file, samples / "photos" / "P02")
    assert "0 photos added; 4 of the 4 photos were in it already" in repeated.stdout


@pytest.mark.slow
def test_added_photos_give_the_file_of_one_process_run(file: Path, samples: Path) -> None:
    counts = add_photos(file, samples / "photos")
    assert (counts["scanned"], counts["known"], counts["added"]) == (33, 16, 17)
    assert counts["outcomes"] == {"embedded": 16, "corrupt": 1}
    assert differences(file, samples / "all.h5") == []
    assert verify_file(file).findings == ()
    assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.slow
def test_known_photos_are_skipped(file: Path, samples: Path) -> None:
    add_photos(file, samples / "photos")
    before = file.read_bytes()
    counts = add_photos(
        file, samples / "photos", "@" + str(_list(file.parent.parent, samples / "photos" / "P00" / "1.jpg"))
    )
    assert (counts["added"], counts["known"], counts["outcomes"]) == (0, 35, {})
    assert file.read_bytes() == before


def _list(folder: Path, *paths: Path) -> Path:
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths for _ in range(2)))
    return folder / "list.txt"


@pytest.mark.slow
def test_single_photos_and_lists_can_be_added(file: Path, samples: Path, tmp_path: Path) -> None:
    photos = samples / "photos"
    counts = add_photos(file, photos / "P02" / "1.jpg")
    assert (counts["added"], counts["root"]) == (1, str(photos))
    counts = add_photos(file, "@" + str(_list(tmp_path, photos / "P04" / "3.jpg", photos / "P02" / "1.jpg")))
    assert counts["added"] == 1
    add_photos(file, photos)
    assert differences(file, samples / "all.h5") == []


@pytest.mark.slow
def test_remove_undoes_add(file: Path, samples: Path) -> None:
    new_paths = sorted(set(paths_in(samples / "all.h5")) - set(paths_in(file)))
    add_photos(file, samples / "photos")
    (file.parent / "list").write_bytes(b"\0".join(new_paths))
    result = facemill("remove", file, "--paths-from", file.parent / "list", "--yes")
    assert result.returncode == 0, result.stderr
    assert differences(file, samples / "old.h5") == []


@pytest.mark.slow
def test_photos_outside_the_root_move_the_root(file: Path, samples: Path, tiny_engine: Path) -> None:
    make_people(samples / "more" / "x", range(20, 22))
    counts = add_photos(file, samples / "more")
    assert (counts["root"], counts["root_before"]) == (str(samples), str(samples / "photos"))
    assert b"photos/P00/0.jpg" in paths_in(file)
    assert b"more/x/P20/0.jpg" in paths_in(file)
    assert verify_file(file).findings == ()
    add_photos(file, samples / "photos")
    result = facemill(
        "process", samples / "photos", samples / "more", "-o", file.parent / "both.h5", "--engine", tiny_engine
    )
    assert result.returncode == 0, result.stderr
    assert differences(file, file.parent / "both.h5") == []


@pytest.mark.slow
def test_failed_photos_are_retried_only_with_retry(samples: Path, tiny_engine: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_people(photos, range(2))
    content = (photos / "P00" / "1.jpg").read_bytes()
    (photos / "P00" / "1.jpg").write_bytes(b"")
    file = embed_folder(photos, tmp_path / "people.h5", tiny_engine)
    (photos / "P00" / "1.jpg").write_bytes(content)
    assert add_photos(file, photos)["added"] == 0
    counts = add_photos(file, photos, retry=True)
    assert (counts["added"], counts["outcomes"]) == (1, {"embedded": 1})
    embed_folder(photos, tmp_path / "whole.h5", tiny_engine)
    assert differences(file, tmp_path / "whole.h5") == []
    assert add_photos(file, photos, retry=True)["added"] == 0


@pytest.mark.slow
def test_a_copy_of_a_known_photo_is_a_duplicate(tiny_engine: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_people(photos, range(1, 3))
    file = embed_folder(photos, tmp_path / "people.h5", tiny_engine, "--skip-duplicates")
    (photos / "P00").mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(photos / "P02" / "1.jpg", photos / "P00" / name)
    make_people(photos, range(3, 4), photographs=1)
    assert add_photos(file, photos)["outcomes"] == {"embedded": 1, "duplicate": 2}
    with h5py.File(file) as opened:
        assert opened["outcomes/detail"].asstr()[:2].tolist() == ["the same file as P02/1.jpg"] * 2
        assert (opened["outcomes/digest"][0] == opened["outcomes/digest"][1]).all()
    assert verify_file(file).findings == ()
    assert facemill("remove", file, "--path", "P02/1.jpg", "--yes").returncode == 0
    assert not [path for path in paths_in(file) if path.startswith(b"P00") or path == b"P02/1.jpg"]


@pytest.mark.slow
def test_foreign_datasets_are_dropped_and_the_index_is_rebuilt(file: Path, samples: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["cluster"] = np.zeros(len(opened["embeddings"]), np.int32)
        opened["metadata"].attrs["ours"] = 7
    query = samples / "photos" / "P02" / "1.jpg"
    assert facemill("search", file, query).returncode == 0
    assert derived_nearby(file, other_names(file).earlier)
    result = facemill("add", file, samples / "photos")
    assert re.search(r"dropped, .*: /cluster$", result.stdout, re.MULTILINE)
    with h5py.File(file) as opened:
        assert opened["metadata"].attrs["ours"] == 7
    repeated = facemill("search", file, query, "-k", 1, "--json")
    assert json.loads(repeated.stdout)["hits"][0]["path"] == "P02/1.jpg"


def test_a_different_engine_is_refused(file: Path, samples: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other_engine = Path(shutil.copy(tiny_engine, tmp_path / "other.onnx"))
    card = json.loads(sidecar_path(tiny_engine).read_text())
    sidecar_path(other_engine).write_text(json.dumps({**card, "model_sha256": "0" * 64}))
    data = file.read_bytes()
    result = facemill("add", file, samples / "photos", "--engine", other_engine)
    assert_refused(result, "E-CONTRACT", "model_sha256")
    result = facemill("add", file, samples / "photos", "--engine", tmp_path / "none.onnx")
    assert_refused(result, "E-ENGINE", tmp_path / "none.onnx")
    assert_refused(facemill("add", file, samples / "nothing"), "E-SOURCE", samples / "nothing")
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == ["people.h5"]


def kill_add(file: Path, photos: Path, target: str, action: str) -> None:
    """Run `add` in a process that kills itself at a call of `target`; `action` runs before the kill."""
    module = ".".join(target.split(".")[:3])
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {module}\nbefore = {target}\n"
        f"def die(*a, **k):\n    {action}\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{target} = die\nfrom runtime.cli.add import main\n"
        f"main({[str(file), str(photos), '--segment-rows', '5']!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert result.returncode == -signal.SIGKILL, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "action"),
    [
        ("runtime.storage.segments.SegmentWriter.commit", "before(*a, **k)"),
        ("runtime.pipeline.run.assemble", "pass"),
        ("runtime.pipeline.run.assemble", "before(*a, **k)"),
        ("runtime.maintenance.add.rewriting", "pass"),
        ("runtime.maintenance.add.assemble", "pass"),
        ("runtime.maintenance.add.assemble", "before(*a, **k)"),
    ],
)
def test_add_resumes_after_a_kill_between_two_steps(target: str, action: str, file: Path, samples: Path) -> None:
    data = file.read_bytes()
    kill_add(file, samples / "photos", target, action)
    assert file.read_bytes() == data or differences(file, samples / "all.h5") == []
    add_photos(file, samples / "photos")
    assert differences(file, samples / "all.h5") == []
    assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.slow
def test_photos_that_arrive_after_a_kill_are_added(file: Path, samples: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(samples / "photos", photos)
    with h5py.File(file, "r+") as opened:
        contract = json.loads(opened["metadata"].attrs["contract"])
        opened["metadata"].attrs["contract"] = json.dumps({**contract, "root": str(photos)})
    kill_add(file, photos, "runtime.pipeline.run.assemble", "pass")
    (photos / "P03" / "new.jpg").write_bytes(make.encode(make.scene(112, 112, seed=77)))
    assert add_photos(file, photos)["added"] == 18
    assert b"P03/new.jpg" in paths_in(file)
    assert add_photos(file, photos)["added"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_add_resumes_after_kill_9_at_a_random_moment(seed: int, file: Path, samples: Path) -> None:
    data = file.read_bytes()
    command = [
        sys.executable,
        "-m",
        "runtime.cli.app",
        "add",
        str(file),
        str(samples / "photos"),
        "--segment-rows",
        "4",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.6, 1.8))
        process.kill()
    assert file.read_bytes() == data or differences(file, samples / "all.h5") == []
    add_photos(file, samples / "photos")
    assert differences(file, samples / "all.h5") == []
    assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.slow
def test_other_photos_do_not_resume_an_interrupted_addition(file: Path, samples: Path) -> None:
    kill_add(file, samples / "photos", "runtime.pipeline.run.assemble", "pass")
    make_people(samples / "other", range(30, 31))
    result = facemill("add", file, samples / "other")
    assert_refused(result, "E-CONTRACT", file, "people.h5.adding.parts")


def test_add_refuses_a_file_with_an_unfinished_run(file: Path, samples: Path) -> None:
    with RunFolder(file) as folder:
        folder.write_plan(StoredPlan(EmbeddingContract(), "/", 1, "now"))
    result = facemill("add", file, samples / "photos")
    assert_refused(result, "E-CONFIG", file)


@pytest.mark.slow
def test_added_photos_use_the_face_settings_of_the_file(tiny_engine: Path, tmp_path: Path) -> None:
    detector = save_red_squares(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(8):
        pixels = np.full((300, 400, 3), 40 + 20 * i, np.uint8)
        for face in range(i % 3):
            pixels[100:190, 40 + 180 * face : 130 + 180 * face] = (255, 0, 0)
        (photos / f"{i}.png").write_bytes(make.encode(pixels, "PNG"))
    options = ("--align", "detect", "--detector", detector, "--faces", "all", "--min-iod", 1)
    complete = embed_folder(photos, tmp_path / "whole.h5", tiny_engine, *options)
    for i in (1, 2, 6):
        shutil.move(photos / f"{i}.png", tmp_path / f"{i}.png")
    file = embed_folder(photos, tmp_path / "people.h5", tiny_engine, *options)
    for i in (1, 2, 6):
        shutil.move(tmp_path / f"{i}.png", photos / f"{i}.png")
    assert add_photos(file, photos)["added"] == 3
    with h5py.File(complete) as opened:
        assert len(opened["embeddings"]) > opened["metadata"].attrs["embedded"] > 0
    assert differences(file, complete) == []
    first_paths = sorted(set(paths_in(file)))[:1]
    assert facemill("remove", file, "--path", os.fsdecode(first_paths[0]), "--yes").returncode == 0
    assert add_photos(file, photos)["added"] == 1
    assert differences(file, complete) == []


@pytest.mark.slow
def test_partial_results_are_as_private_as_the_file(file: Path, samples: Path) -> None:
    file.chmod(0o600)
    old_umask = os.umask(0o022)
    try:
        command = [sys.executable, "-m", "runtime.cli.app", "add", str(file), str(samples / "photos")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            parts = file.with_name(file.name + ".adding.parts")
            while process.poll() is None and not (parts / "plan.json").exists():
                time.sleep(0.005)
            process.send_signal(signal.SIGSTOP)
            modes = {path.stat().st_mode & 0o077 for path in (parts, *parts.iterdir()) if path.name != "lock"}
            process.kill()
    finally:
        os.umask(old_umask)
    assert modes == {0}
