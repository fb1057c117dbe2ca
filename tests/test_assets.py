"""The cache folder: chosen, of the system, or named as missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.assets import cache_dir
from runtime.errors import ConfigError
from tests.support.errors import assert_refused, raises
from tests.support.facemill_command import facemill_process

NOBODY = 12345  # a user id without an account


def test_a_named_cache_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEMILL_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir("models") == tmp_path / "a" / "b" / "models"
    assert (tmp_path / "a" / "b" / "models").is_dir()


def test_a_cache_below_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FACEMILL_CACHE", str(tmp_path / "file"))
    with raises(ConfigError, tmp_path / "file" / "models", "FACEMILL_CACHE"):
        cache_dir("models")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_user_without_a_home_folder_is_told_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    del environment["FACEMILL_CACHE"]
    for arguments in (("models", "list"), ("process", "photos"), ("build-engine",)):
        done = facemill_process(*arguments, env=environment, user=NOBODY, group=NOBODY, extra_groups=[])
        assert_refused(done, "E-CONFIG", "FACEMILL_CACHE")
