"""How the commands of this folder end: what their user can mend is one line, without a traceback."""

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
    """A main that ends with "error: ..." and 1 where its user can mend it; HYDRA_FULL_ERROR=1 shows the traceback.

    Args:
        main: takes the settings, of which none may be missing, or nothing.
    """

    @functools.wraps(main)
    def guarded(*settings: Any) -> None:
        try:
            for one in settings:
                _want_all(one)
            main(*settings)
        except (FacemillError, OSError, ValueError) as err:
            if os.environ.get("HYDRA_FULL_ERROR"):
                raise
            raise SystemExit(f"error: {err.message if isinstance(err, FacemillError) else err}") from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    return guarded


def _want_all(config: Any) -> None:
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{', '.join(missing)} not given; wanted: {' '.join(f'{name}=...' for name in missing)}")


def want_file(path: Path, name: str, wanted: str) -> Path:
    """The path, if a file is there.

    Args:
        path: as the user gave it.
        name: of the setting or argument.
        wanted: what it should be.
    Raises:
        ValueError: there is none.
    """
    if not path.is_file():
        raise ValueError(f"{name} is {path}, where there is no file; wanted: {wanted}")
    return path


def want_folder(target: Path) -> Path:
    """The path of a file to write, if its folder is there.

    Raises:
        ValueError: it is not.
    """
    if not target.parent.is_dir():
        raise ValueError(f"{target} cannot be written, as {target.parent} is no folder; mkdir -p {target.parent}")
    return target


def settings_as(kind: type[T], values: Mapping[str, Any], name: str) -> T:
    """Settings as the dataclass that they are for.

    Raises:
        ValueError: one has a name that it does not know, or is missing.
    """
    try:
        return kind(**values)
    except TypeError as err:
        known = ", ".join(field.name for field in fields(kind))  # type: ignore[arg-type]
        raise ValueError(f"{name} is {values}; wanted: settings of {known}") from err
