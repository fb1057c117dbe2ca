"""What each command writes is gone after a removal, unless somebody has made it his own since."""

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
def made(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pages")
    make_odd_people(place / "photos")
    embed_folder(place / "photos", place / "people.h5", tiny_engine)
    return place


@pytest.mark.parametrize("words", WRITERS, ids=lambda words: f"{words[0]}-{words[-1]}")
def test_a_page_goes_and_a_page_that_is_no_more_facemills_stays(
    made: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "here").mkdir()
    file = Path(shutil.copy(made / "people.h5", tmp_path / "here" / "people.h5"))
    known = {"FILE": file, "PHOTO": made / "photos" / "P02" / "1.jpg", "beside.csv": tmp_path / "beside.csv"}
    (output,) = (tmp_path / word for word in words if word.startswith("OUT"))
    command = [known.get(word, output if word.startswith("OUT") else word) for word in words]

    assert facemill(*command).returncode == 0
    assert facemill("remove", file, "--path", "P02/1.jpg", "--yes").returncode == 0
    assert not output.exists()

    known["PHOTO"] = made / "photos" / "P03" / "1.jpg"
    command = [known.get(word, output if word.startswith("OUT") else word) for word in words]
    for force in ((), ("--force",)):  # written over, it is still facemill's
        done = facemill(*command, *force)
        assert done.returncode == 0, done.stderr
    assert facemill("remove", file, "--path", "P02/0.jpg", "--yes").returncode == 0
    assert not output.exists()

    assert facemill(*command).returncode == 0
    mine = output / "mine.txt" if output.is_dir() else output
    mine.write_text("a thesis")
    done = facemill("remove", file, "--path", "P03/0.jpg", "--yes")
    assert done.returncode == 0, done.stderr
    assert mine.read_text() == "a thesis"
