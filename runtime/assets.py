"""The folders of the included files and of the user's cache, in a checkout or installed."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ConfigError

_HERE = Path(__file__).resolve().parent


def asset_dir(name: str) -> Path:
    """The folder `models` or `kernels`: inside the installed package, or next to `runtime/` in a checkout."""
    inside = _HERE / name
    return inside if inside.is_dir() else _HERE.parent / name


def cache_dir(name: str) -> Path:
    """A folder in the user's cache, created if missing: in $FACEMILL_CACHE, or in the platform's cache folder.

    Raises:
        ConfigError: it cannot be created, or the user has no home folder.
    """
    base = os.environ.get("FACEMILL_CACHE")
    if base is None:
        import platformdirs

        try:
            base = platformdirs.user_cache_dir("facemill")
        except RuntimeError as err:  # neither HOME nor an entry in the list of users
            raise ConfigError(
                "this user has no home folder, and so no folder for a cache. Choose one with: "
                "export FACEMILL_CACHE=/your/folder"
            ) from err
    path = Path(base) / name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(
            f"the cache folder {path} cannot be created: {err.strerror}; expected: a writable folder. "
            f"Choose one with: export FACEMILL_CACHE=/your/folder"
        ) from err
    return path
