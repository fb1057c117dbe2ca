"""What a search is asked: photographs, and all photographs of folders and lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..errors import SourceError
from .scan import read_list, scan


def expand_queries(arguments: Iterable[str]) -> list[str]:
    """Photographs in the order asked; a folder's in the order in which `process` scans them.

    Args:
        arguments: photographs (which need not exist: that is found out when they are read), folders with all below
            them, and `@list.txt`, one path a line, relative to the list's folder.
    Returns:
        Paths: below a folder as the folder was named, of a list absolute.
    Raises:
        SourceError: a folder or list cannot be read, or holds no photograph.
    """
    return [query for argument in arguments for query in _expand(argument)]


def _expand(argument: str) -> Iterator[str]:
    if argument.startswith("@"):
        listed = read_list(os.fsencode(argument[1:]))
        if not listed:
            raise SourceError(f"the list file {argument[1:]} names no photograph; wanted: one path a line")
        yield from map(os.fsdecode, listed)
    elif os.path.isdir(argument):
        folder = os.fsencode(argument)
        for path in scan([argument]).names:
            yield os.fsdecode(os.path.join(folder, path))
    else:
        yield argument
