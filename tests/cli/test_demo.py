"""The demo command: from an empty folder to a page of search results."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from tests.support.errors import assert_refused
from tests.support.facemill_command import facemill


@pytest.mark.slow
def test_demo_embeds_searches_and_writes_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "tour"
    result = facemill("demo", folder, "--people", 12, "--shots", 2)
    assert result.returncode == 0, result.stderr
    with h5py.File(folder / "people.h5") as file:
        assert file["outcomes/status"].shape == (26,)  # 24 portraits, a damaged photo, a text file
        assert len(file["embeddings"]) == 24
    page = (folder / "search.html").read_text()
    assert page.count("<img") >= 15
    assert (
        facemill("demo", folder, "--people", 12, "--shots", 2).returncode == 0
    )  # a folder of an earlier demo is accepted


def test_demo_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = facemill("demo", tmp_path)
    assert_refused(result, "E-EXISTS", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
