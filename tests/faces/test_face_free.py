"""Pictures without a face: drawn ones give no row, and those of installed packages few."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.engines.build import build_engine
from runtime.engines.engine import Engine
from runtime.engines.weights import weights_for
from runtime.modelspec import load_spec
from runtime.modelstore import SHIPPED_DETECTOR, SHIPPED_LANDMARKS
from tests.support.face_free_pictures import drawn_pictures, installed_pictures, pictures_with_rows

MOST_FALSE = 0.12  # share of installed pictures; 21 of 226 were measured


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    folder = tmp_path_factory.mktemp("engines")
    specs = [load_spec(name) for name in (SHIPPED_DETECTOR, SHIPPED_LANDMARKS)]
    detector, landmarks = (build_engine(spec, weights_for(spec), backend="cpu", output=folder).engine for spec in specs)
    return detector, landmarks


@pytest.mark.slow
def test_no_face_in_drawn_pictures(engines: tuple[Engine, Engine]) -> None:
    pictures = drawn_pictures()
    assert len(pictures) >= 200
    assert pictures_with_rows(pictures, *engines) == []


@pytest.mark.slow
def test_few_faces_in_installed_pictures(engines: tuple[Engine, Engine]) -> None:
    pictures = installed_pictures()
    if len(pictures) < 20:
        pytest.skip("too few pictures: install scikit-image, scikit-learn or Adwaita's icons")
    seen = [Path(name).name for name in pictures_with_rows(pictures, *engines)]
    assert len(seen) <= MOST_FALSE * len(pictures), seen
