"""A request has the same defaults in Python and on the command line."""

from __future__ import annotations

from pathlib import Path

from runtime.cli.process import main
from runtime.engines.engine import read_engine
from runtime.errors import ConfigError
from runtime.faces.rules import FaceRules
from runtime.pipeline.request import Request
from tests.support.errors import raises


def test_defaults_are_those_of_the_command(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    """Photos are embedded as crops only with align="none"; the default rules need a detector."""
    options = {parameter.name: parameter.default for parameter in main.params}
    rules = FaceRules()
    assert (rules.align, rules.policy, rules.threshold) == (options["align"], options["faces"], options["min_score"])
    quality = rules.min_iod, rules.min_sharpness, rules.min_frontal
    assert quality == (options["min_iod"], options["min_sharpness"], options["min_frontal"])
    assert rules.pages == options["pages"] == "main"
    with raises(ConfigError, "None"):
        Request((str(photos),), tmp_path / "o.h5", read_engine(tiny_engine))
    request = Request((), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules("none"))
    assert (request.dtype, request.decoder) == (options["dtype"], options["decoder"])
    assert (request.limits.max_bytes, request.limits.max_pixels) == (options["max_bytes"], options["max_pixels"])
    segments = request.run.segments
    assert (segments.max_rows, segments.max_seconds) == (options["segment_rows"], options["segment_seconds"])
    flags = ("skip_duplicates", "retry", "force")
    assert all(name in options for name in flags)
    assert [getattr(request, name) for name in flags] == [False] * 3
