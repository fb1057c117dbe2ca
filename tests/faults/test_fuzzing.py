"""Damaged photos, models, files, indexes and runs: an error or the right answer, never a traceback, hang or signal."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.faults.case import Templates
from tests.support.faults.laboratory import Laboratory
from tests.support.fuzzing import FileCases, damage, image_case, toml_case

FILE_KINDS = ("embedding file", "index", "run folder", "model file", "name of a photo")


@pytest.fixture(scope="module")
def files(tiny_model: Path, laboratory: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> FileCases:
    folder = tmp_path_factory.mktemp("fuzzing")
    return FileCases(laboratory, Templates(tmp_path_factory.mktemp("templates"), tiny_model), folder)


def test_damage_changes_something_and_follows_from_its_seed() -> None:
    data = random.Random(0).randbytes(5000)
    changed = [damage(data, random.Random(seed))[0] for seed in range(50)]
    assert changed == [damage(data, random.Random(seed))[0] for seed in range(50)]
    assert data not in changed
    assert len(set(changed)) > 40


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_damaged_photo_gives_pixels_or_a_reason(part: int) -> None:
    case = image_case()
    assert [wrong for seed in range(400) if (wrong := case(random.Random(f"photo {part} {seed}")))] == []


@pytest.mark.slow
def test_a_damaged_model_file_gives_a_model_or_an_error(tmp_path: Path) -> None:
    case = toml_case(tmp_path)
    assert [wrong for seed in range(400) if (wrong := case(random.Random(f"model {seed}")))] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILE_KINDS)
def test_a_damaged_file_gives_the_right_answer_or_an_error(files: FileCases, kind: str) -> None:
    assert set(FILE_KINDS) == set(files.kinds)
    case = files.kinds[kind]
    assert [wrong for seed in range(12) if (wrong := case(random.Random(f"{kind} {seed}")))] == []
