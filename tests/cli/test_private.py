"""Outputs are never readable by more users than the embedding file they come from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.facemill_command import facemill


@pytest.fixture(scope="module")
def template(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("private") / "people.h5"
    assert facemill("process", photos, "-o", file, "--engine", tiny_engine).returncode == 0
    return file


@pytest.mark.slow
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
def test_outputs_are_as_private_as_the_file(
    template: Path, photos: Path, tmp_path: Path, command: tuple[str, ...], mode: int
) -> None:
    file = shutil.copy(template, tmp_path / "people.h5")
    file.chmod(mode)
    substitutes = {"FILE": file, "PHOTO": photos / "0" / "p0000.jpg"}
    arguments = [
        substitutes.get(argument, tmp_path / argument if argument.startswith("OUT") else argument)
        for argument in command
    ]
    result = facemill(*arguments)
    assert result.returncode == 0, result.stderr
    outputs = [path for path in tmp_path.rglob("*") if not path.is_symlink()]
    assert len(outputs) > 2
    for path in outputs:
        assert not path.stat().st_mode & 0o777 & ~(mode | 0o111), path
