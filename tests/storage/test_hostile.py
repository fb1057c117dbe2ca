"""Files from strangers: no command hangs, crashes, shows a traceback or shows another file, whatever a file holds."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import StorageError
from runtime.storage.dataset import edit_file
from runtime.storage.file import EmbeddingFile
from runtime.storage.verify import verify_file
from tests.support import encoded_images as make
from tests.support.errors import raises
from tests.support.facemill_command import ROOT, facemill
from tests.support.hostile_files import KINDS, commands, make_all

_SECONDS = 60  # between two lines of the commands; a hang lasts for ever, and a busy machine is slow

# These files are unusual, but what they hold is possible: commands may accept them.
HARMLESS = {
    *("clusters huge", "control characters", "calibration of impossible numbers", "calibration deep"),
    *("limits missing", "outcomes missing", "details missing", "status unknown"),
    *("scanned paths absolute", "exact paths of no row", "exact paths upwards", "clusters negative"),
    *("rows of failed photos", "embeddings not finite", "paths absolute", "paths upwards"),
    *("paths with a NUL",),
}
UNSEEN_BY_VERIFY = {"clusters huge", "control characters", "calibration of impossible numbers", "calibration deep"}


@pytest.fixture(scope="module")
def folder(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos, an embedding file of them, and a hostile file of every kind."""
    folder = tmp_path_factory.mktemp("hostile")
    for number in range(12):
        photo = folder / "photos" / f"p{number % 3}" / f"{number:02}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(make.encode(make.scene(112, 112, seed=number), quality=80))
    good = folder / "good.h5"
    done = facemill("process", folder / "photos", "-o", good, "--engine", tiny_engine, "--align", "none")
    assert done.returncode == 0, done.stderr
    make_all(good, folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    """What every command said about every file. A hang or a death ends the commands, and is the last result."""
    with (folder / "errors").open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.support.hostile_files", folder],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert child.stdout is not None
    results, at, buffer = [], ["", ""], b""
    with child, selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(_SECONDS):
                child.kill()
                results.append({"kind": at[0], "command": at[1], "end": "hang"})
                break
            more = os.read(child.stdout.fileno(), 1 << 16)
            if not more:
                break
            *lines, buffer = (buffer + more).split(b"\n")
            for said in map(json.loads, lines):
                if isinstance(said, list):
                    at = said
                else:
                    results.append({**said, "end": "exit"})
    if child.returncode and child.returncode != -9:
        results.append({"kind": at[0], "command": at[1], "end": f"exit code {child.returncode}"})
    return results


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_command_trusts_it(kind: str, folder: Path, results: list[dict[str, Any]]) -> None:
    of_kind = [result for result in results if result["kind"] == kind]
    assert [result for result in of_kind if result["end"] != "exit"] == []
    ended = [result["command"] for result in of_kind]
    assert ended == list(commands(folder / "x.h5", folder / "photos", folder)), "the commands ended at an earlier file"
    for result in of_kind:
        said = result["stderr"]
        assert "Traceback" not in said, f"{result['command']}: {said}"
        assert "this is a bug" not in said, f"{result['command']}: {said}"
        assert not result["leaks"], result["command"]
        if result["code"]:
            assert result["command"] == "verify" or "E-" in said, f"{result['command']}: {said}"
    if kind not in HARMLESS:
        refused = {result["command"] for result in of_kind if result["code"]}
        assert {"verify", "search", "merge", "export npy", "cluster", "add", "remove", "retry"} <= refused


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(KINDS) - UNSEEN_BY_VERIFY))
def test_verify_says_so(kind: str, folder: Path) -> None:
    path = folder / "made" / f"{kind}.h5"
    try:
        found = verify_file(path).findings
    except StorageError as err:
        found = (err.message,)
    assert found


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(KINDS) - HARMLESS))
def test_it_is_refused_when_it_is_opened(kind: str, folder: Path) -> None:
    path = folder / "made" / f"{kind}.h5"
    with raises(StorageError, path):
        EmbeddingFile(path)


def test_a_pipe_a_folder_a_device_and_a_socket_are_refused_at_once(tmp_path: Path) -> None:
    import socket

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (*(tmp_path / name for name in ("pipe", "folder", "socket", "none")), Path("/dev/zero")):
            for read in (EmbeddingFile, verify_file):
                with raises(StorageError, path):
                    read(path)
    with raises(StorageError):
        EmbeddingFile("a\0b")


@pytest.mark.slow
def test_objects_of_other_programs_are_left_alone(folder: Path, tmp_path: Path) -> None:
    import h5py

    path = Path(shutil.copy(folder / "good.h5", tmp_path / "x.h5"))
    with h5py.File(path, "r+") as file:
        file["theirs/labels"] = ["a", "b"]
        file["notes"] = 5
        file.attrs["lab"] = "here"
        file["theirs"].attrs["list"] = [1, 2, 3]
    with EmbeddingFile(path) as opened:
        assert opened.foreign_datasets() == ["notes", "theirs"]
    assert verify_file(path).findings == ()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["content", "attribute"])
def test_damaged_text_of_another_program_is_not_copied(folder: Path, tmp_path: Path, where: str) -> None:
    import h5py

    path = Path(shutil.copy(folder / "good.h5", tmp_path / "x.h5"))
    with h5py.File(path, "r+") as file:
        if where == "content":
            file.create_dataset("theirs/notes", data=["FOREIGN TEXT"] * 9, dtype=h5py.string_dtype())
        else:
            file.create_dataset("theirs/notes", data=[1, 2]).attrs["by"] = "FOREIGN TEXT"
    data = bytearray(path.read_bytes())
    heap = data.rindex(b"GCOL", 0, data.index(b"FOREIGN TEXT"))
    data[heap + 16 : heap + 512] = bytes(496)
    path.write_bytes(data)
    with raises(StorageError, path), edit_file(path):
        pass
