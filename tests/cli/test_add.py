"""New photographs in an old file: the same as one file made of all of them, whatever interrupts it."""

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
from runtime.storage.derived import derived_nearby
from runtime.storage.runfolder import RunFolder, StoredPlan
from runtime.storage.verify import verify_file
from tests.support import encoded_images as make
from tests.support.embedding_files import differences
from tests.support.errors import assert_refused
from tests.support.facemill_command import ROOT, facemill
from tests.support.people_files import embed_folder, make_odd_people, make_people, paths_in
from tests.support.red_square_detector import save_red_squares


@pytest.fixture(scope="module")
def made(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, the file of all of them, and that of those there were yesterday."""
    place = tmp_path_factory.mktemp("add")
    make_odd_people(place / "photos")
    embed_folder(place / "photos", place / "all.h5", tiny_engine)
    new = ("P02", "P04", "P09", os.fsdecode("odd \xe9".encode()))
    (place / "aside").mkdir()
    for name in new:
        shutil.move(place / "photos" / name, place / "aside" / name)
    embed_folder(place / "photos", place / "old.h5", tiny_engine)
    for name in new:
        shutil.move(place / "aside" / name, place / "photos" / name)
    return place


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return Path(shutil.copy(made / "old.h5", tmp_path / "here" / "people.h5"))


def added(file: Path, *photos: object, retry: bool = False) -> dict[str, Any]:
    """What the command does, in this process."""
    return asdict(add(file, [str(photo) for photo in photos], retry=retry))


def test_the_command_says_what_it_did(file: Path, made: Path) -> None:
    done = facemill("add", file, made / "photos" / "P02", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["scanned"], found["added"], found["outcomes"]) == (4, 4, {"embedded": 4})
    again = facemill("add", file, made / "photos" / "P02")
    assert "0 photos added; 4 of the 4 photos were in it already" in again.stdout


def test_added_is_as_if_made_at_once(file: Path, made: Path) -> None:
    found = added(file, made / "photos")
    assert (found["scanned"], found["known"], found["added"]) == (33, 16, 17)
    assert found["outcomes"] == {"embedded": 16, "corrupt": 1}
    assert differences(file, made / "all.h5") == []
    assert verify_file(file).findings == ()
    assert os.listdir(file.parent) == ["people.h5"]


def test_what_is_known_is_passed_over(file: Path, made: Path) -> None:
    added(file, made / "photos")
    before = file.read_bytes()
    found = added(file, made / "photos", "@" + str(_list(file.parent.parent, made / "photos" / "P00" / "1.jpg")))
    assert (found["added"], found["known"], found["outcomes"]) == (0, 35, {})
    assert file.read_bytes() == before


def _list(place: Path, *paths: Path) -> Path:
    (place / "list.txt").write_text("".join(f"{path}\n" for path in paths for _ in range(2)))
    return place / "list.txt"


def test_added_one_by_one_and_by_list(file: Path, made: Path, tmp_path: Path) -> None:
    photos = made / "photos"
    found = added(file, photos / "P02" / "1.jpg")
    assert (found["added"], found["root"]) == (1, str(photos))
    found = added(file, "@" + str(_list(tmp_path, photos / "P04" / "3.jpg", photos / "P02" / "1.jpg")))
    assert found["added"] == 1
    added(file, photos)
    assert differences(file, made / "all.h5") == []


def test_add_then_remove_gives_back_the_file(file: Path, made: Path) -> None:
    new = sorted(set(paths_in(made / "all.h5")) - set(paths_in(file)))
    added(file, made / "photos")
    (file.parent / "list").write_bytes(b"\0".join(new))
    done = facemill("remove", file, "--paths-from", file.parent / "list", "--yes")
    assert done.returncode == 0, done.stderr
    assert differences(file, made / "old.h5") == []


def test_photographs_outside_the_root_move_it(file: Path, made: Path, tiny_engine: Path) -> None:
    make_people(made / "more" / "x", range(20, 22))
    found = added(file, made / "more")
    assert (found["root"], found["root_before"]) == (str(made), str(made / "photos"))
    assert b"photos/P00/0.jpg" in paths_in(file)
    assert b"more/x/P20/0.jpg" in paths_in(file)
    assert verify_file(file).findings == ()
    added(file, made / "photos")
    done = facemill("process", made / "photos", made / "more", "-o", file.parent / "both.h5", "--engine", tiny_engine)
    assert done.returncode == 0, done.stderr
    assert differences(file, file.parent / "both.h5") == []


def test_failed_photographs_are_tried_again_only_when_asked(made: Path, tiny_engine: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_people(photos, range(2))
    good = (photos / "P00" / "1.jpg").read_bytes()
    (photos / "P00" / "1.jpg").write_bytes(b"")
    file = embed_folder(photos, tmp_path / "people.h5", tiny_engine)
    (photos / "P00" / "1.jpg").write_bytes(good)
    assert added(file, photos)["added"] == 0
    found = added(file, photos, retry=True)
    assert (found["added"], found["outcomes"]) == (1, {"embedded": 1})
    embed_folder(photos, tmp_path / "whole.h5", tiny_engine)
    assert differences(file, tmp_path / "whole.h5") == []
    assert added(file, photos, retry=True)["added"] == 0


def test_a_file_that_is_there_under_another_name_is_a_duplicate(tiny_engine: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_people(photos, range(1, 3))
    file = embed_folder(photos, tmp_path / "people.h5", tiny_engine, "--skip-duplicates")
    (photos / "P00").mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(photos / "P02" / "1.jpg", photos / "P00" / name)
    make_people(photos, range(3, 4), photographs=1)
    assert added(file, photos)["outcomes"] == {"embedded": 1, "duplicate": 2}
    with h5py.File(file) as opened:
        assert opened["outcomes/detail"].asstr()[:2].tolist() == ["the same file as P02/1.jpg"] * 2
        assert (opened["outcomes/digest"][0] == opened["outcomes/digest"][1]).all()
    assert verify_file(file).findings == ()
    assert facemill("remove", file, "--path", "P02/1.jpg", "--yes").returncode == 0
    assert not [path for path in paths_in(file) if path.startswith(b"P00") or path == b"P02/1.jpg"]


def test_what_was_made_by_others_is_dropped_and_the_index_made_again(file: Path, made: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["cluster"] = np.zeros(len(opened["embeddings"]), np.int32)
        opened["metadata"].attrs["ours"] = 7
    query = made / "photos" / "P02" / "1.jpg"
    assert facemill("search", file, query).returncode == 0
    assert derived_nearby(file)
    done = facemill("add", file, made / "photos")
    assert re.search(r"dropped, .*: /cluster$", done.stdout, re.MULTILINE)
    with h5py.File(file) as opened:
        assert opened["metadata"].attrs["ours"] == 7
    answer = facemill("search", file, query, "-k", 1, "--json")
    assert json.loads(answer.stdout)["hits"][0]["path"] == "P02/1.jpg"


def test_another_engine_is_refused_with_both_values(file: Path, made: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(tiny_engine, tmp_path / "other.onnx"))
    card = json.loads(sidecar_path(tiny_engine).read_text())
    sidecar_path(other).write_text(json.dumps({**card, "model_sha256": "0" * 64}))
    data = file.read_bytes()
    done = facemill("add", file, made / "photos", "--engine", other)
    assert_refused(done, "E-CONTRACT", "model_sha256")
    done = facemill("add", file, made / "photos", "--engine", tmp_path / "none.onnx")
    assert_refused(done, "E-ENGINE", tmp_path / "none.onnx")
    assert_refused(facemill("add", file, made / "nothing"), "E-SOURCE", made / "nothing")
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == ["people.h5"]


def killed(file: Path, photos: Path, where: str, deed: str) -> None:
    """An addition that is killed when it calls a function, or after that."""
    module = ".".join(where.split(".")[:3])
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {module}\nbefore = {where}\n"
        f"def die(*a, **k):\n    {deed}\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{where} = die\nfrom runtime.cli.add import main\n"
        f"main({[str(file), str(photos), '--segment-rows', '5']!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "deed"),
    [
        ("runtime.storage.segments.SegmentWriter.commit", "before(*a, **k)"),
        ("runtime.pipeline.run.assemble", "pass"),
        ("runtime.pipeline.run.assemble", "before(*a, **k)"),
        ("runtime.maintenance.add.rewriting", "pass"),
        ("runtime.maintenance.add.assemble", "pass"),
        ("runtime.maintenance.add.assemble", "before(*a, **k)"),
    ],
)
def test_a_kill_between_two_steps_and_the_same_command(where: str, deed: str, file: Path, made: Path) -> None:
    data = file.read_bytes()
    killed(file, made / "photos", where, deed)
    assert file.read_bytes() == data or differences(file, made / "all.h5") == []
    added(file, made / "photos")
    assert differences(file, made / "all.h5") == []
    assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.slow
def test_photographs_that_come_after_a_kill_are_taken_too(file: Path, made: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(made / "photos", photos)
    with h5py.File(file, "r+") as opened:
        contract = json.loads(opened["metadata"].attrs["contract"])
        opened["metadata"].attrs["contract"] = json.dumps({**contract, "root": str(photos)})
    killed(file, photos, "runtime.pipeline.run.assemble", "pass")
    (photos / "P03" / "new.jpg").write_bytes(make.encode(make.scene(112, 112, seed=77)))
    assert added(file, photos)["added"] == 18
    assert b"P03/new.jpg" in paths_in(file)
    assert added(file, photos)["added"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kill_9_at_a_random_moment(seed: int, file: Path, made: Path) -> None:
    data = file.read_bytes()
    command = [sys.executable, "-m", "runtime.cli.app", "add", str(file), str(made / "photos"), "--segment-rows", "4"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.6, 1.8))
        process.kill()
    assert file.read_bytes() == data or differences(file, made / "all.h5") == []
    added(file, made / "photos")
    assert differences(file, made / "all.h5") == []
    assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.slow
def test_another_addition_does_not_go_on_with_an_interrupted_one(file: Path, made: Path) -> None:
    killed(file, made / "photos", "runtime.pipeline.run.assemble", "pass")
    make_people(made / "other", range(30, 31))
    done = facemill("add", file, made / "other")
    assert_refused(done, "E-CONTRACT", file, "people.h5.adding.parts")


def test_an_unfinished_run_on_the_file_is_not_lost(file: Path, made: Path) -> None:
    with RunFolder(file) as folder:
        folder.write_plan(StoredPlan(EmbeddingContract(), "/", 1, "now"))
    done = facemill("add", file, made / "photos")
    assert_refused(done, "E-CONFIG", file)


@pytest.mark.slow
def test_faces_are_looked_for_as_for_the_rows_that_are_there(tiny_engine: Path, tmp_path: Path) -> None:
    detector = save_red_squares(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(8):
        pixels = np.full((300, 400, 3), 40 + 20 * i, np.uint8)
        for face in range(i % 3):
            pixels[100:190, 40 + 180 * face : 130 + 180 * face] = (255, 0, 0)
        (photos / f"{i}.png").write_bytes(make.encode(pixels, "PNG"))
    options = ("--align", "detect", "--detector", detector, "--faces", "all", "--min-iod", 1)
    whole = embed_folder(photos, tmp_path / "whole.h5", tiny_engine, *options)
    for i in (1, 2, 6):
        shutil.move(photos / f"{i}.png", tmp_path / f"{i}.png")
    file = embed_folder(photos, tmp_path / "people.h5", tiny_engine, *options)
    for i in (1, 2, 6):
        shutil.move(tmp_path / f"{i}.png", photos / f"{i}.png")
    assert added(file, photos)["added"] == 3
    with h5py.File(whole) as opened:
        assert len(opened["embeddings"]) > opened["metadata"].attrs["embedded"] > 0
    assert differences(file, whole) == []
    new = sorted(set(paths_in(file)))[:1]
    assert facemill("remove", file, "--path", os.fsdecode(new[0]), "--yes").returncode == 0
    assert added(file, photos)["added"] == 1
    assert differences(file, whole) == []


@pytest.mark.slow
def test_what_is_embedded_meanwhile_is_as_private_as_the_file(file: Path, made: Path) -> None:
    file.chmod(0o600)
    before = os.umask(0o022)
    try:
        command = [sys.executable, "-m", "runtime.cli.app", "add", str(file), str(made / "photos")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            parts = file.with_name(file.name + ".adding.parts")
            while process.poll() is None and not (parts / "plan.json").exists():
                time.sleep(0.005)
            process.send_signal(signal.SIGSTOP)
            modes = {path.stat().st_mode & 0o077 for path in (parts, *parts.iterdir()) if path.name != "lock"}
            process.kill()
    finally:
        os.umask(before)
    assert modes == {0}
