"""What is made from a file can be read by nobody who may not read the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.facemill_command import facemill


@pytest.fixture(scope="module")
def made(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("private") / "people.h5"
    assert facemill("process", photos, "-o", file, "--engine", tiny_engine).returncode == 0
    return file


@pytest.mark.parametrize("mode", [0o600, 0o640])
@pytest.mark.parametrize(
    "command",
    [
        ("search", "FILE", "PHOTO", "--index", "sq8", "--html", "OUT.html"),
        ("pairs", "FILE", "--threshold", "0.9999", "-o", "OUT.csv", "--html", "OUT.html"),
        ("cluster", "FILE", "-k", "3", "-o", "OUT.csv", "--sheets", "OUT", "--folders", "OUT.d"),
        ("export", "FILE", "--npy", "OUT"),
    ],
    ids=lambda command: command[0],
)
def test_nobody_else_may_read_it(made: Path, photos: Path, tmp_path: Path, command: tuple[str, ...], mode: int) -> None:
    file = shutil.copy(made, tmp_path / "people.h5")
    file.chmod(mode)
    known = {"FILE": file, "PHOTO": photos / "0" / "p0000.jpg"}
    words = [known.get(word, tmp_path / word if word.startswith("OUT") else word) for word in command]
    done = facemill(*words)
    assert done.returncode == 0, done.stderr
    new = [path for path in tmp_path.rglob("*") if not path.is_symlink()]
    assert len(new) > 2
    for path in new:
        assert not path.stat().st_mode & 0o777 & ~(mode | 0o111), path
