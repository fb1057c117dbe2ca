"""Where the shipped files and the user's cache are, in a checkout and when installed."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ConfigError

_HERE = Path(__file__).resolve().parent


def asset_dir(name: str) -> Path:
    """The folder `models` or `kernels`: inside the installed package, or beside `runtime/` in a checkout."""
    inside = _HERE / name
    return inside if inside.is_dir() else _HERE.parent / name


def cache_dir(name: str) -> Path:
    """A folder of the user's cache, created: `$FACEMILL_CACHE/name` or the platform's place for facemill."""
    base = os.environ.get("FACEMILL_CACHE")
    if base is None:
        import platformdirs

        base = platformdirs.user_cache_dir("facemill")
    path = Path(base) / name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(
            f"the cache folder {path} cannot be made: {err.strerror}; expected: a folder that can be written to. "
            f"Name one with: export FACEMILL_CACHE=/a/folder/of/yours"
        ) from err
    return path
