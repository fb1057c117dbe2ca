"""A folder is emptied only where it is facemill's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.clusters.managed_folder import check_folder, managed_folder
from runtime.errors import OutputExistsError, StorageError
from tests.support.errors import raises

NAMES = r"thing-\d+"


def fill(path: Path, entries: int = 2, *, force: bool = False, fail: bool = False) -> None:
    with managed_folder(path, "things", NAMES, force=force):
        for i in range(entries):
            (path / f"thing-{i}").mkdir()
            (path / f"thing-{i}" / "x").write_text("x")
        if fail:
            raise KeyboardInterrupt


def names(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.startswith("thing"))


def test_a_new_or_empty_folder_is_filled(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "new")
    assert names(tmp_path / "deep" / "new") == ["thing-0", "thing-1"]
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty")
    assert names(tmp_path / "empty") == ["thing-0", "thing-1"]


def test_a_finished_one_is_replaced_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "d"
    fill(path, 3)
    with raises(OutputExistsError, "--force"):
        fill(path, 1)
    assert len(names(path)) == 3
    fill(path, 1, force=True)
    assert names(path) == ["thing-0"]


def test_an_unfinished_one_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "d"
    with pytest.raises(KeyboardInterrupt):
        fill(path, 3, fail=True)
    assert len(names(path)) == 3
    fill(path, 1)
    assert names(path) == ["thing-0"]


def test_a_kill_before_the_mark_was_whole_is_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".facemill.json.partial").write_text('{"ki')
    fill(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".facemill.json", "thing-0", "thing-1"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_ours_is_never_touched(tmp_path: Path, force: bool) -> None:
    (tmp_path / "strange" / "thing-0").mkdir(parents=True)  # named like ours, without a mark
    (tmp_path / "file").write_text("mine")
    for name in ("strange", "file"):
        with pytest.raises(OutputExistsError):
            fill(tmp_path / name, force=force)
    fill(tmp_path / "ours")
    (tmp_path / "ours" / "holiday.jpg").write_text("mine")
    with raises(OutputExistsError, "holiday.jpg"):
        fill(tmp_path / "ours", force=force)
    with pytest.raises(OutputExistsError):
        check_folder(tmp_path / "ours", "other things", NAMES, force=force)
    assert (tmp_path / "ours" / "holiday.jpg").read_text() == "mine"
    assert names(tmp_path / "strange") == ["thing-0"]


def test_what_links_point_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a.jpg").write_text("a")
    path = tmp_path / "d"
    with managed_folder(path, "things", NAMES, force=False):
        (path / "thing-0").symlink_to(tmp_path / "precious", target_is_directory=True)
        (path / "thing-1").mkdir()
        (path / "thing-1" / "a.jpg").symlink_to(tmp_path / "precious" / "a.jpg")
        (path / "thing-1" / "all").symlink_to(tmp_path / "precious", target_is_directory=True)
    fill(path, 1, force=True)
    assert names(path) == ["thing-0"]
    assert (tmp_path / "precious" / "a.jpg").read_text() == "a"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises(StorageError):
        fill(tmp_path / "file" / "d")
