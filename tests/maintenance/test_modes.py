"""Commands that change a file in place keep its mode, also that of a file that its owner may only read."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import h5py
import pytest

from tests.support.facemill_command import facemill
from tests.support.people_files import embed_folder, make_people


@pytest.fixture(scope="module")
def people(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding file of two people, beside the folder `photos`."""
    folder = tmp_path_factory.mktemp("modes")
    make_people(folder / "photos", range(2), 2)
    return embed_folder(folder / "photos", folder / "people.h5", tiny_engine, "--align", "none")


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o444, 0o640])
@pytest.mark.parametrize("command", ["add", "remove", "repair", "attributes"])
def test_the_mode_of_a_changed_file_stays(people: Path, tmp_path: Path, command: str, mode: int) -> None:
    shutil.copytree(people.parent / "photos", tmp_path / "photos")
    file = Path(shutil.copy(people, tmp_path / "people.h5"))
    make_people(tmp_path / "photos", range(7, 8), 1)
    with h5py.File(file, "r+") as opened:
        opened["metadata"].attrs["root"] = str(tmp_path / "photos")
        if command == "repair":
            opened["embeddings"][0] *= 2
    arguments: dict[str, list[object]] = {
        "add": [tmp_path / "photos"],
        "remove": ["--path", "P00/", "--yes"],
        "repair": [],
        "attributes": [],
    }
    file.chmod(mode)
    before = file.stat()
    result = facemill(command, file, *arguments[command])
    assert result.returncode == 0, result.stderr
    assert file.stat().st_ino != before.st_ino  # it was replaced
    assert stat.S_IMODE(file.stat().st_mode) == mode
