"""remove deletes the outputs of each command, unless a user has changed them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.facemill_command import facemill
from tests.support.people_files import embed_folder, make_odd_people

WRITERS = [
    ("search", "FILE", "PHOTO", "--html", "OUT.html"),
    ("compare", "PHOTO", "PHOTO", "--file", "FILE", "--html", "OUT.html"),
    ("pairs", "FILE", "--threshold", "0.9", "-o", "OUT.csv"),
    ("pairs", "FILE", "--threshold", "0.9", "-o", "beside.csv", "--html", "OUT.html"),
    ("cluster", "FILE", "-k", "3", "--no-column", "-o", "OUT.csv"),
    ("cluster", "FILE", "-k", "3", "--no-column", "--sheets", "OUT"),
    ("map", "FILE", "-o", "OUT.html"),
    ("export", "FILE", "--npy", "OUT"),
    ("export", "FILE", "--parquet", "OUT.parquet"),
]


@pytest.fixture(scope="module")
def samples(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    make_odd_people(folder / "photos")
    embed_folder(folder / "photos", folder / "people.h5", tiny_engine)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("template", WRITERS, ids=lambda template: f"{template[0]}-{template[-1]}")
def test_remove_deletes_pages_of_facemill_and_keeps_changed_pages(
    samples: Path, tmp_path: Path, template: tuple[str, ...]
) -> None:
    (tmp_path / "here").mkdir()
    file = Path(shutil.copy(samples / "people.h5", tmp_path / "here" / "people.h5"))
    substitutes = {"FILE": file, "PHOTO": samples / "photos" / "P02" / "1.jpg", "beside.csv": tmp_path / "beside.csv"}
    (output,) = (tmp_path / argument for argument in template if argument.startswith("OUT"))
    command = [substitutes.get(argument, output if argument.startswith("OUT") else argument) for argument in template]

    assert facemill(*command).returncode == 0
    assert facemill("remove", file, "--path", "P02/1.jpg", "--yes").returncode == 0
    assert not output.exists()

    substitutes["PHOTO"] = samples / "photos" / "P03" / "1.jpg"
    command = [substitutes.get(argument, output if argument.startswith("OUT") else argument) for argument in template]
    for force in ((), ("--force",)):  # an overwritten page still belongs to facemill
        result = facemill(*command, *force)
        assert result.returncode == 0, result.stderr
    assert facemill("remove", file, "--path", "P02/0.jpg", "--yes").returncode == 0
    assert not output.exists()

    assert facemill(*command).returncode == 0
    changed_page = output / "mine.txt" if output.is_dir() else output
    changed_page.write_text("a thesis")
    result = facemill("remove", file, "--path", "P03/0.jpg", "--yes")
    assert result.returncode == 0, result.stderr
    assert changed_page.read_text() == "a thesis"
