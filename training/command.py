"""Shared by the commands of this folder: checks of their input, and errors of one line instead of a traceback."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from runtime.errors import FacemillError

T = TypeVar("T")


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Make a main function exit with 1 and "error: ..." if the user can fix the problem.

    HYDRA_FULL_ERROR=1 shows the traceback.

    Args:
        main: takes the settings, all of which must be given, or nothing.
    """

    @functools.wraps(main)
    def guarded(*settings: Any) -> None:
        try:
            for config in settings:
                _require_all(config)
            main(*settings)
        except (FacemillError, OSError, ValueError) as err:
            if os.environ.get("HYDRA_FULL_ERROR"):
                raise
            raise SystemExit(f"error: {err.message if isinstance(err, FacemillError) else err}") from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    return guarded


def _require_all(config: Any) -> None:
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{', '.join(missing)} not given; expected: {' '.join(f'{name}=...' for name in missing)}")


def require_file(path: Path, name: str, expected: str) -> Path:
    """Check that a file exists, and return its path.

    Args:
        path: path that the user gave.
        name: name of the setting or argument, for the message.
        expected: description of the expected file, for the message.
    Raises:
        ValueError: the file does not exist.
    """
    if not path.is_file():
        raise ValueError(f"{name} is {path}, which is not a file; expected: {expected}")
    return path


def require_folder(target: Path) -> Path:
    """Check that the folder of a file to write exists, and return the file's path.

    Raises:
        ValueError: the folder does not exist.
    """
    if not target.parent.is_dir():
        raise ValueError(f"{target} cannot be written: {target.parent} is not a folder. Run mkdir -p {target.parent}")
    return target


def parse_settings(kind: type[T], values: Mapping[str, Any], name: str) -> T:
    """Make a dataclass from settings.

    Raises:
        ValueError: a setting has an unknown name, or is missing.
    """
    try:
        return kind(**values)
    except TypeError as err:
        names = ", ".join(field.name for field in fields(kind))  # type: ignore[arg-type]
        raise ValueError(f"{name} is {values}; expected settings: {names}") from err
