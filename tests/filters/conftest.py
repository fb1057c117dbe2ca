"""An embedding file of people with odd names, with ages and genders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attribute_files import embed_with_attributes
from tests.support.people_files import make_odd_people


@pytest.fixture(scope="session")
def samples(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `people.h5` and its `photos`. Tests must not change it."""
    folder = tmp_path_factory.mktemp("filters")
    make_odd_people(folder / "photos")
    embed_with_attributes(folder, tiny_engine)
    return folder
