"""What was made from an embedding file and shows its rows: whoever removes a person from the file must find it."""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from .diskfile import write_durable

logger = logging.getLogger(__name__)

# Beside the file: the indexes, what an unfinished job keeps. All of it can be made again from the file.
_BESIDE = (".faiss*", ".pairs*", ".clusters*")


def derived_beside(file: Path) -> list[Path]:
    """Files and folders of facemill's own that lie beside a file and hold something of its rows."""
    return sorted(found for end in _BESIDE for found in file.parent.glob(_literal(file.name) + end))


def record_page(file: Path, page: Path) -> None:
    """Remember that a page, a list or a folder shows photographs of a file; that it cannot be noted is no error.

    Args:
        file: the embedding file; the list is kept beside it, as `<file>.pages`, one JSON string a line.
        page: what was written.
    """
    path = _list(file)
    line = json.dumps(os.path.abspath(page)) + "\n"
    try:
        with path.open("a+", encoding="ascii") as known:
            known.seek(0)
            if line not in known.readlines():
                known.write(line)
    except OSError as err:
        logger.warning(
            "%s is not noted beside %s (%s): facemill remove will not find it", page, file, err.strerror or err
        )


def recorded_pages(file: Path) -> list[Path]:
    """What `record_page` remembered, whether it still exists or not; lines that make no sense are passed over."""
    try:
        lines = _list(file).read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            name = json.loads(line)
        except ValueError:
            continue
        if isinstance(name, str):
            found.append(Path(name))
    return found


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
    return file.with_name(file.name + ".pages")


def _literal(name: str) -> str:
    """A name as a pattern that means itself."""
    return glob.escape(name)
