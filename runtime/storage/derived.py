"""What was made from an embedding file and shows its rows: whoever removes a person from the file must find it."""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import StorageError
from .diskfile import write_durable

logger = logging.getLogger(__name__)

# Beside the file: the indexes, what an unfinished job keeps. All of it can be made again from the file.
_BESIDE = (".faiss*", ".pairs*", ".clusters*")


def derived_beside(file: Path) -> list[Path]:
    """Facemill's own files and folders beside a file, or a link that names it, that hold something of its rows."""
    names = {file, Path(os.path.realpath(file))}
    return sorted(
        {found for name in names for end in _BESIDE for found in name.parent.glob(glob.escape(name.name) + end)}
    )


def record_page(file: Path, page: Path) -> None:
    """Remember that a page, a list or a folder shows photographs of a file; that it cannot be noted is no error.

    Args:
        file: the embedding file; the list is kept beside it, as `<file>.pages`, one JSON string a line. A link is
            followed, so that a file has one list whatever name it is opened by.
        page: what was written, or is about to be.
    """
    path = _list(file)
    line = json.dumps(os.path.abspath(page)) + "\n"
    try:
        with path.open("a+", encoding="ascii", errors="replace") as known:
            known.seek(0)
            lines = known.readlines()
            if line not in lines:
                torn = lines and not lines[-1].endswith("\n")  # by a power cut; it must not spoil this one too
                known.write("\n" + line if torn else line)
    except OSError as err:
        logger.warning(
            "%s is not noted beside %s (%s): facemill remove will not find it", page, file, err.strerror or err
        )


def recorded_pages(file: Path) -> list[Path]:
    """What `record_page` remembered, whether it still exists or not, and what a killed writer left of it.

    Lines that make no sense are passed over.

    Raises:
        StorageError: the list is there and cannot be read.
    """
    path = _list(file)
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as err:
        raise StorageError(f"the list of pages {path} cannot be read: {err.strerror or err}") from err
    found = []
    for line in lines:
        try:
            name = json.loads(line)
        except ValueError:
            continue
        if isinstance(name, str):
            page = Path(name)
            found += [page, *_unfinished(page)]
    return found


def _unfinished(page: Path) -> list[Path]:
    """Where a page is written until it is whole, if that is there; some writers follow a link and some replace it."""
    partials = [Path(f"{name}.partial") for name in dict.fromkeys([page, Path(os.path.realpath(page))])]
    return [partial for partial in partials if os.path.lexists(partial)]


def forget_pages(file: Path, keep: Iterable[Path] = ()) -> None:
    """Drop the list, or all of it but some.

    Raises:
        StorageError: it is as it was.
    """
    lines = "".join(json.dumps(str(page)) + "\n" for page in recorded_pages(file) if page in set(keep))
    if lines:
        write_durable(_list(file), lines.encode("ascii"), "the list of pages")
    else:
        _list(file).unlink(missing_ok=True)


def _list(file: Path) -> Path:
    return Path(os.path.realpath(file) + ".pages")
