"""Whether a file can be written where a user wants it: asked before the work, not after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, OutputExistsError


def check_new_file(
    path: Path, what: str = "", endings: Sequence[str] = (), *, force: bool, other: str = "another file with -o"
) -> None:
    """Say so when a file could not be written.

    Args:
        path: where.
        what: it is, for messages, such as "the list".
        endings: that its name may have, in lower case; none for any.
        force: it may replace an existing one.
        other: what else can be named, for messages.
    Raises:
        ConfigError: the name has another ending, or the folder is missing.
        OutputExistsError: the file exists and is not to be replaced.
    """
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(f"{what} would be written to {path}; wanted: a name that ends in {' or '.join(endings)}")
    if not path.parent.is_dir():
        named = f"{what} {path.name}".strip()
        raise ConfigError(f"there is no folder {path.parent} for {named}. Make it, or name another one")
    if os.path.lexists(path) and not force:
        raise OutputExistsError(f"{path} exists. Name {other}, or replace it with --force")
