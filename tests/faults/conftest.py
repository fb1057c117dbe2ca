"""The commands that write, and a laboratory that runs them with faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults.case import Case, Templates
from tests.support.faults.commands import writing_commands
from tests.support.faults.laboratory import Laboratory
from tests.support.qdrant_stand_in import qdrant_stand_in


@pytest.fixture(scope="module")
def cases(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    with qdrant_stand_in() as server:
        yield writing_commands(Templates(tmp_path_factory.mktemp("templates"), tiny_model, server))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Laboratory(tmp_path_factory.mktemp("laboratory")) as opened:
        yield opened
