"""The commands that write, and a laboratory that runs them with faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults.commands import Case, Templates, writing_commands
from tests.support.faults.laboratory import Laboratory


@pytest.fixture(scope="module")
def cases(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return writing_commands(Templates(tmp_path_factory.mktemp("templates"), tiny_engine))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Laboratory(tmp_path_factory.mktemp("laboratory")) as opened:
        yield opened
