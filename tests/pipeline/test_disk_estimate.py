"""Disk estimate of a run: exact figures, and never less than a real run needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.engines.engine import read_engine
from runtime.faces.rules import FaceRules
from runtime.pipeline.disk import disk_bytes_while_running
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.text import size


def test_disk_bytes_are_exact() -> None:
    base = disk_bytes_while_running(1000, 512, "float32", faces=False, longest=10)
    assert base == int(2.02 * 1000 * 2048) + 30_000 + (1 << 20)
    half = disk_bytes_while_running(1000, 512, "float16", faces=False, longest=10)
    assert base - half == int(2.02 * 1000 * 2048) - int(2.02 * 1000 * 1024)
    assert disk_bytes_while_running(1000, 512, "float32", faces=True, longest=10) - base == 2 * 86 * 1000
    assert (
        disk_bytes_while_running(1000, 512, "float32", faces=False, longest=10, skip_duplicates=True) - base == 64_000
    )
    assert disk_bytes_while_running(1000, 512, "float32", faces=False, longest=900) - base == 3 * 54 * 1000


@pytest.mark.slow
def test_a_finished_file_takes_at_most_half_of_the_estimate(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    process(Request((str(photos),), tmp_path / "people.h5", read_engine(tiny_engine), faces=FaceRules("none")))
    disk_bytes = disk_bytes_while_running(600, 16, "float32", faces=False)
    assert (tmp_path / "people.h5").stat().st_size <= disk_bytes // 2


@pytest.mark.parametrize(("amount", "text"), [(0, "0 MB"), (339e6, "339 MB"), (1e9, "1.0 GB"), (2.04e12, "2,040.0 GB")])
def test_sizes_are_printed_in_decimal_units(amount: float, text: str) -> None:
    assert size(amount) == text
