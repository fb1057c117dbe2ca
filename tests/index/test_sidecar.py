"""A derived file is trusted by its mark or by its content, which is then read once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runtime.fetch import sha256_of
from runtime.index import sidecar
from runtime.index.sidecar import is_unchanged, mark_of, read_card, sidecar_path, write_card


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index moved to another folder with its sidecar."""
    source = tmp_path / "made"
    source.write_bytes(b"codes")
    write_card(source, {"sha256": sha256_of(source), "rows": 3})
    moved = tmp_path / "moved"
    shutil.copy2(source, moved)
    shutil.copy2(sidecar_path(source), sidecar_path(moved))
    return moved


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Record the files whose content is read."""
    paths: list[Path] = []

    def record(path: Path) -> str:
        paths.append(path)
        return sha256_of(path)

    monkeypatch.setattr(sidecar, "sha256_of", record)
    return paths


def test_the_content_of_a_moved_file_is_read_once(index: Path, reads: list[Path]) -> None:
    assert is_unchanged(index, read_card(index))
    assert is_unchanged(index, read_card(index))
    assert reads == [index]
    assert read_card(index) == {"sha256": sha256_of(index), "rows": 3, "mark": mark_of(index)}


def test_other_content_is_never_trusted(index: Path, reads: list[Path]) -> None:
    before = read_card(index)
    index.write_bytes(b"c0des")
    for _ in range(2):
        assert not is_unchanged(index, read_card(index))
    assert read_card(index) == before
    assert reads == [index, index]


def test_a_later_write_is_detected(index: Path) -> None:
    assert is_unchanged(index, read_card(index))
    index.write_bytes(b"c0des")
    assert not is_unchanged(index, read_card(index))


def test_a_mark_that_cannot_be_stored_is_no_error(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **facts: object) -> None:
        raise OSError(30, "Read-only file system")

    before = read_card(index)
    monkeypatch.setattr(sidecar, "amend_card", refuse)
    assert is_unchanged(index, before)
    assert read_card(index) == before
