"""Expand the queries of a search: files, folders and lists, in order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import SourceError
from runtime.sources.queries import expand_queries
from tests.support.errors import raises


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/2.jpg", "b/1.PNG", "b/deep/3.jpeg", "b/notes.txt", "a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_arguments_keep_their_order_and_a_folder_is_sorted(data_folder: Path) -> None:
    expected = ["none.jpg", "b/1.PNG", "b/2.jpg", "b/deep/3.jpeg", "a.jpg", "a.jpg"]
    assert expand_queries(["none.jpg", "b", "a.jpg", "a.jpg"]) == expected
    assert expand_queries([str(data_folder / "b")])[0] == str(data_folder / "b/1.PNG")


def test_a_list_is_relative_to_its_folder(data_folder: Path) -> None:
    (data_folder / "b/list.txt").write_text("2.jpg\n\n../a.jpg\nnone.jpg\n")
    queries = expand_queries(["@b/list.txt", "a.jpg"])
    assert queries == [
        str(data_folder / "b/2.jpg"),
        str(data_folder / "a.jpg"),
        str(data_folder / "b/none.jpg"),
        "a.jpg",
    ]


def test_names_keep_their_bytes(data_folder: Path) -> None:
    raw = os.path.join(os.fsencode(data_folder), b"b", b"\xff\n'<.jpg")
    with open(raw, "wb"):
        pass
    assert raw in map(os.fsencode, expand_queries([str(data_folder / "b")]))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_list_or_folder_is_refused(data_folder: Path, content: str) -> None:
    (data_folder / "list.txt").write_text(content)
    (data_folder / "empty").mkdir()
    with raises(SourceError, "list.txt"):
        expand_queries(["@list.txt"])
    with raises(SourceError, "empty"):
        expand_queries(["a.jpg", "empty"])
    with raises(SourceError, "none.txt"):
        expand_queries(["@none.txt"])
