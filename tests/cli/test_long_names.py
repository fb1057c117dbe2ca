"""An output with the longest name that is taken works with every command; a longer one is refused before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.outputs import SIDE_BYTES
from tests.support import encoded_images as make
from tests.support.errors import assert_refused
from tests.support.facemill_command import facemill


@pytest.fixture
def longest(tmp_path: Path) -> int:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(make.encode(make.scene(112, 112, seed=number)))
    return int(os.pathconf(tmp_path, "PC_NAME_MAX")) - SIDE_BYTES


def name(size: int, ending: str) -> str:
    return "é" * ((size - len(ending)) // 2) + "x" * ((size - len(ending)) % 2) + ending


@pytest.mark.slow
def test_the_longest_name_works_with_every_command(longest: int, tiny_engine: Path, tmp_path: Path) -> None:
    file, options = name(longest, ".h5"), ("--engine", tiny_engine, "--align", "none")
    new = tmp_path / "photos" / "new.jpg"
    for words in (
        ("process", "photos", "-o", file, *options),
        ("process", "photos", "-o", file, *options, "--force"),
        ("search", file, "photos/0.jpg", "--index", "flat", "--html", name(longest, ".html")),
        ("pairs", file, "--threshold", "0.9", "-o", name(longest, ".csv")),
        ("cluster", file, "--threshold", "0.9", "--folders", name(longest, ""), "--sheets", name(longest, "s")),
        ("export", file, "--npy", name(longest, ".npy")),
        ("add", file, "photos"),
        ("remove", file, "--path", "0.jpg", "--yes", "--name-paths"),
        ("remove", file, "--path", "1.jpg", "--yes"),
        ("verify", file),
    ):
        if words[0] == "add":
            new.write_bytes(make.encode(make.scene(112, 112, seed=9)))
        done = facemill(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "too long" not in done.stderr
    assert not (tmp_path / name(longest, ".html")).exists()  # the removal found it


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (("process", "photos", "--align", "none", "-o"), ".h5"),
        (("merge", "a.h5", "b.h5", "-o"), ".h5"),
        (("repair", "a.h5", "-o"), ".h5"),
        (("map", "a.h5", "-o"), ".html"),
        (("compare", "photos/0.jpg", "photos/1.jpg", "--html"), ".html"),
    ],
)
def test_a_longer_name_is_refused_before_the_work(
    words: tuple[str, ...], ending: str, longest: int, tiny_engine: Path, tmp_path: Path
) -> None:
    before = sorted(os.listdir(tmp_path))
    output = name(longest + 1, ending)
    engine = ("--engine", tiny_engine) if words[0] == "process" else ()
    done = facemill(*words, output, *engine, cwd=tmp_path)
    assert_refused(done, "E-CONFIG", output, longest + 1, longest)
    assert sorted(os.listdir(tmp_path)) == before
