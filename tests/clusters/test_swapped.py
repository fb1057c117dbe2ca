"""While a folder is filled, its owner may put a link or another folder in the place of any part of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.receipts import fill
from runtime.receipts.placing import MODES, Place, Placed
from tests.support.clustered_files import people_rows, write_file, write_photos
from tests.support.errors import assert_refused
from tests.support.facemill_command import facemill

NAMES = [b"a/1.jpg", b"a/2.jpg", b"b/3.jpg", b"c/3.jpg"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = write_file(tmp_path / "people.h5", people_rows([4], noise=0.1), NAMES)
    write_photos(path, NAMES)
    return path


def before_photo(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Do something before a photo is placed: the folders are made."""
    made, left = fill.placer, [number]

    def placer(*arguments: object) -> Place:
        place = made(*arguments)  # type: ignore[arg-type]

        def placing(photo: bytes, target: str) -> Placed:
            left[0] -= 1
            if not left[0]:
                act()
            return place(photo, target)

        return placing

    monkeypatch.setattr(fill, "placer", placer)


def cluster(file: Path, mode: str) -> subprocess.CompletedProcess[str]:
    arguments = ("--threshold", 0.4, "--no-column", "--folders", file.parent / "out", "--mode", mode)
    return facemill("cluster", file, *arguments)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["out/cluster-00001", "out/photos.partial", "out"])
@pytest.mark.parametrize("number", [1, 4])
def test_a_folder_that_became_a_link_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, mode: str, name: str, number: int
) -> None:
    folder, other = file.parent / name, file.parent / "other"
    other.mkdir(0o755)

    def swap() -> None:
        folder.rename(file.parent / "away")
        folder.symlink_to(other)

    before_photo(monkeypatch, number, swap)
    status = other.stat()
    result = cluster(file, mode)
    assert_refused(result, "E-STORAGE", folder.name, "run the same command again")
    assert (other.stat().st_mode, other.stat().st_uid) == (status.st_mode, status.st_uid)
    assert not list(other.iterdir())


@pytest.mark.parametrize("instead", [True, False])
def test_a_folder_that_was_moved_away_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch, instead: bool) -> None:
    folder = file.parent / "out" / "cluster-00001"

    def swap() -> None:
        folder.rename(file.parent / "away")
        if instead:
            folder.mkdir()

    before_photo(monkeypatch, 1, swap)
    assert_refused(cluster(file, "copy"), "E-STORAGE", folder.name, "run the same command again")
    assert not instead or not list(folder.iterdir())


def test_the_same_command_goes_on_when_the_link_is_gone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = file.parent / "out" / "cluster-00001"

    def swap() -> None:
        folder.rename(file.parent / "away")
        folder.symlink_to(file.parent)

    with monkeypatch.context() as patch:
        before_photo(patch, 2, swap)
        cluster(file, "copy")
    folder.unlink()
    assert cluster(file, "copy").returncode == 0
    assert len(list(folder.iterdir())) == 4
