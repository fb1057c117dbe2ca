"""What vouches for a derived file: its mark, or else its content, which is then read once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runtime.fetch import sha256_of
from runtime.index import sidecar
from runtime.index.sidecar import is_unchanged, mark_of, read_card, sidecar_path, write_card


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Moved to another place, with its sidecar."""
    made = tmp_path / "made"
    made.write_bytes(b"codes")
    write_card(made, {"sha256": sha256_of(made), "rows": 3})
    moved = tmp_path / "moved"
    shutil.copy2(made, moved)
    shutil.copy2(sidecar_path(made), sidecar_path(moved))
    return moved


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose content was read."""
    found: list[Path] = []

    def counted(path: Path) -> str:
        found.append(path)
        return sha256_of(path)

    monkeypatch.setattr(sidecar, "sha256_of", counted)
    return found


def test_the_content_of_a_moved_file_is_read_once(index: Path, reads: list[Path]) -> None:
    assert is_unchanged(index, read_card(index))
    assert is_unchanged(index, read_card(index))
    assert reads == [index]
    assert read_card(index) == {"sha256": sha256_of(index), "rows": 3, "mark": mark_of(index)}


def test_other_content_is_never_vouched_for(index: Path, reads: list[Path]) -> None:
    before = read_card(index)
    index.write_bytes(b"c0des")
    for _ in range(2):
        assert not is_unchanged(index, read_card(index))
    assert read_card(index) == before
    assert reads == [index, index]


def test_what_is_written_afterwards_is_seen(index: Path) -> None:
    assert is_unchanged(index, read_card(index))
    index.write_bytes(b"c0des")
    assert not is_unchanged(index, read_card(index))


def test_a_mark_that_cannot_be_noted_is_no_error(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **facts: object) -> None:
        raise OSError(30, "Read-only file system")

    before = read_card(index)
    monkeypatch.setattr(sidecar, "amend_card", refuse)
    assert is_unchanged(index, before)
    assert read_card(index) == before
