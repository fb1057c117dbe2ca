"""The commands of training/, if torch is installed: documented commands parse, and errors are one line."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import ModelError
from tests.support.errors import Values, assert_names, raises
from tests.support.facemill_command import ROOT
from tests.support.training_extra import compose, torch_of_extra

torch = torch_of_extra()

CONFIGS = {
    "train": "distil",
    "train_detector": "detector",
    "train_identities": "identities",
    "train_landmarks": "landmarks",
    "train_attributes": "attributes",
}
FOLDER = ROOT / "training"


def documented_commands() -> list[tuple[str, str, str]]:
    """List every command in README, settings and modules: file, module, arguments."""
    commands = []
    for path in (FOLDER / "README.md", *sorted((FOLDER / "conf").glob("*.yaml")), *sorted(FOLDER.glob("*.py"))):
        text = re.sub(r"\\\n\s*", "", path.read_text())  # a command may have several lines
        for module, arguments in re.findall(r"python -m training\.(\w+)([^\n`\"]*)", text):
            if arguments.strip():
                commands.append((path.name, module, arguments))
    return commands


@pytest.mark.parametrize(("where", "module", "arguments"), [one for one in documented_commands() if one[1] in CONFIGS])
def test_documented_settings_exist(where: str, module: str, arguments: str) -> None:
    from omegaconf import OmegaConf

    config = compose(CONFIGS[module], shlex.split(arguments))
    assert not OmegaConf.missing_keys(config), where
    if module == "train":
        assert config.teacher.path, where


def test_every_command_is_documented() -> None:
    assert {module for where, module, _ in documented_commands() if where == "README.md"} == {
        *CONFIGS,
        "export",
        "export_detector",
        "export_attributes",
        "train_head",
        "held_out",
        "export_landmarks",
        "lfw",
    }


@pytest.mark.parametrize("name", CONFIGS.values())
def test_every_option_is_listed_so_that_plain_overrides_work(name: str) -> None:
    from training.augment import Augmentation
    from training.scenes import SceneRules
    from training.squares import SquareRules

    config = compose(name, [])
    assert list(config.augmentation) == [field.name for field in fields(Augmentation)]
    own = {
        "distil": {},
        "identities": {"mixture": 0.0, "jpeg": 0.2},
        "detector": {"flip": 0.0, "rotation": 0.0, "scale": 0.0, "shift": 0.0, "occlusion": 0.1, "mixture": 0.0},
        "landmarks": {
            **dict.fromkeys(("flip", "rotation", "scale", "shift", "mixture"), 0.0),
            **{"downscale": 0.2, "jpeg": 0.1},
        },
        "attributes": {
            **{"rotation": 6.0, "scale": 0.06, "shift": 0.025, "blur": 0.1, "noise": 3.0},
            **{"mixture": 0.0, "jpeg": 0.1},
        },
    }[name]
    assert Augmentation(**config.augmentation) == Augmentation(**own)
    if name == "detector":
        assert dict(config.scenes) == asdict(SceneRules())
    if name == "landmarks":
        assert dict(config.squares) == asdict(SquareRules())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unusable tars and files."""
    folder = tmp_path_factory.mktemp("data")
    for name, members in {"empty.tar": (), "notes.tar": ("notes.txt",), "people.tar": ("a/1.jpg",)}.items():
        with tarfile.open(folder / name, "w") as archive:
            for member in members:
                entry = tarfile.TarInfo(member)
                entry.size = 4
                archive.addfile(entry, io.BytesIO(b"junk"))
    (folder / "junk").write_bytes(b"junk" * 999)
    return folder


def run_command(module: str, *arguments: str, cwd: Path) -> tuple[int, str]:
    """Run a command; return its exit code and stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    result = subprocess.run(
        [sys.executable, "-m", f"training.{module}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=environment,
    )
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("module", "arguments", "values"),
    [
        ("train", "", ("data=...", "teacher.path=...")),
        ("train_identities", "data=/nowhere tars='[a.tar]'", ("data", "/nowhere")),
        ("train_detector", "data=. tars=notes.tar teacher=junk", ("tars", "notes.tar")),
        ("export", "junk mine.onnx", ("junk", "last.pt")),
        ("export_detector", "last.pt mine.onnx", ("last.pt",)),
        ("export_landmarks", "last.pt mine.onnx", ("last.pt",)),
        ("lfw", "people.tar junk nowhere/lfw.npz", ("nowhere/lfw.npz", "nowhere")),
    ],
)
def test_a_user_mistake_is_a_one_line_error(data: Path, module: str, arguments: str, values: Values) -> None:
    code, text = run_command(module, *shlex.split(arguments), cwd=data)
    assert (code, text.count("\n"), text.startswith("error: ")) == (1, 1, True), text
    assert_names(text, *values)


def test_help_prints_help(tmp_path: Path) -> None:
    assert run_command("lfw", "--help", cwd=tmp_path) == (0, "")


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ("tars=[missing.tar]", ("missing.tar",)),
        ("tars=[junk]", ("junk",)),
        ("tars=[empty.tar]", ("empty.tar", "112x112", "*.jpg")),
        ("tars=[notes.tar]", ("notes.tar",)),
        ("left_out=names.txt", ("left_out", "names.txt", "left_out=null")),
        ("start=nothing.pt", ("start", "nothing.pt")),
        ("lfw=nothing.npz", ("lfw", "nothing.npz", "python -m training.lfw")),
        ("lfw={data}/junk", ("junk",)),
        ("+augmentation.snow=1", ("augmentation", "flip", "rotation")),
        ("", ("a/1.jpg", "people.tar", "112x112")),
    ],
)
def test_unsuitable_files_are_named(data: Path, tmp_path: Path, changes: str, values: Values) -> None:
    from training.train_identities import IdentityTrainer

    overrides = [f"data={data}", "tars=[people.tar]", f"run={tmp_path}", *changes.format(data=data).split()]
    with raises(ValueError, *values):
        IdentityTrainer(compose("identities", overrides))


def test_missing_or_unsuitable_teachers_are_named(data: Path) -> None:
    from training.teacher import DetectorTeacher, Teacher

    with raises(ValueError, "teacher.path", data / "nothing.xml"):
        Teacher(data / "nothing.xml", size=112)
    (data / "junk.onnx").write_bytes(b"junk" * 999)
    with raises(ValueError, data / "junk.onnx", "112x112"):
        Teacher(data / "junk.onnx", size=112)
    with raises(ValueError, "teacher", data / "nothing.onnx"):
        DetectorTeacher(ROOT / "models" / "yunet.toml", data / "nothing.onnx")
    with raises((ValueError, ModelError), data / "junk.onnx"):
        DetectorTeacher(ROOT / "models" / "yunet.toml", data / "junk.onnx")


def test_pairs_are_read_by_their_photos() -> None:
    from training.lfw import read_pairs

    rows = {"Ann_Lee_0001": 0, "Ann_Lee_0012": 1, "Bo_0003": 2}
    left_rows, right_rows, same = read_pairs(["10\t300", "Ann_Lee\t1\t12", "Bo\t3\tAnn_Lee\t12"], rows)
    assert (left_rows, right_rows, same) == ([0, 2], [1, 1], [True, False])
    with raises(ValueError, r"Bo\t3\t4"):
        read_pairs(["Bo\t3\t4"], rows)


def test_a_tar_without_pairs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    from training import lfw

    content = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    with tarfile.open(tmp_path / "lfw.tar", "w") as archive:
        entry = tarfile.TarInfo("lfw/Bo/Bo_0001.jpg")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(lfw, "align_face", lambda image, *_: image)
    with raises(ValueError, 1, 0, "lfw/pairs.txt"):
        lfw.read_photos(tmp_path / "lfw.tar", None, None)
