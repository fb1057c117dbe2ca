"""The query photos of a search: single photos, and all photos of folders and lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..errors import SourceError
from .lists import read_list
from .scan import scan


def expand_queries(arguments: Iterable[str]) -> list[str]:
    """List query photos in the order of the arguments, and those of a folder in the scan order of `process`.

    Args:
        arguments: photos (a missing one fails later, when it is read), folders (searched recursively), and `@list.txt`
            (one path per line, relative to the list's folder).
    Returns:
        Paths. Those of a folder begin with the folder as given; those of a list are absolute.
    Raises:
        SourceError: a folder or list cannot be read, or contains no photos.
    """
    return [query for argument in arguments for query in _expand(argument)]


def _expand(argument: str) -> Iterator[str]:
    if argument.startswith("@"):
        listed = read_list(os.fsencode(argument[1:]))
        if not listed:
            raise SourceError(f"the list file {argument[1:]} names no photo; expected: one path per line")
        yield from map(os.fsdecode, listed)
    elif os.path.isdir(argument):
        folder = os.fsencode(argument)
        for path in scan([argument]).names:
            yield os.fsdecode(os.path.join(folder, path))
    else:
        yield argument
