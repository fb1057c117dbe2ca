"""Select photos of a file by the names of photos and folders."""

from __future__ import annotations

import codecs
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, SourceError
from ..records import SAME_FILE, Status
from ..sources.reader import ReadError, read_file
from ..storage.file import EmbeddingFile
from ..storage.format import stored_text
from ..storage.segments import DETAIL_BYTES, clip_detail

_BLOCK_ROWS = 65_536
_NO_DIGEST = bytes(16)


@dataclass(frozen=True, slots=True)
class Selection:
    """The photos that a list of names selects in a file.

    Attributes:
        rows: (n,) int64, ascending rows of `/outcomes`.
        missing: names that select no photo.
    """

    rows: NDArray[np.int64]
    missing: tuple[bytes, ...]


def read_names(path: Path) -> list[bytes]:
    """Read names from a file: one per line, or, for names with line breaks, each ended by a NUL byte.

    Args:
        path: `-` for the standard input. Blank lines are ignored.
    Raises:
        SourceError: the file cannot be read.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else read_file(os.fspath(path), sys.maxsize)
    except ReadError as err:
        raise SourceError(
            f"the list {path} cannot be read: {err.detail}; expected: a text file, one path or folder per line"
        ) from err
    data = data.removeprefix(codecs.BOM_UTF8)
    lines = data.split(b"\0") if b"\0" in data else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [line for line in lines if line.strip()]


def paths_below(root: bytes, names: Iterable[bytes]) -> list[bytes]:
    """Turn names into paths below a root; absolute names lose the root.

    Raises:
        ConfigError: a name selects all photos.
    """
    top = root.rstrip(b"/") + b"/"
    paths = []
    for name in names:
        short = (name + b"/").removeprefix(top) if name.startswith(b"/") else name + b"/"
        short = short[:-1].removeprefix(b"./")
        if not short.strip(b"/") or short == b".":
            raise ConfigError(
                f"{os.fsdecode(name)!r} is the folder of all photos; expected: photos or folders in it. To remove all "
                f"photos, delete the embedding file, and the files beside it that begin with its name"
            )
        paths.append(short)
    return paths


def below(root: bytes, path: bytes) -> bytes:
    """An absolute path without the root; one elsewhere as it is."""
    return path.removeprefix(os.path.join(root, b""))


def select_photos(paths: Iterable[bytes], names: Sequence[bytes]) -> Selection:
    """Select photos, and all photos below folders.

    A name is compared byte by byte. A name that matches no path is compared with the text of paths that are not UTF-8,
    which has `\\xNN` for some bytes.

    Args:
        paths: exact paths, in scan order.
        names: names below the root; a name that ends in a slash means a folder.
    Raises:
        ConfigError: a name is that of one photo, and the text of another, which is not named by its bytes.
    """
    folders = {name.rstrip(b"/") + b"/" for name in names}
    files = {name for name in names if not name.endswith(b"/")}
    rows: list[int] = []
    matched: set[bytes] = set()  # names, folders with a slash
    as_text: defaultdict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
    folder, above = b"", set[bytes]()
    for row, path in enumerate(paths):
        parent = path[: path.rfind(b"/") + 1]
        if parent != folder:  # consecutive photos mostly share their folder
            folder, above = parent, folders.intersection(_folders_of(parent))
        if above or path in files:
            rows.append(row)
            matched |= above
            matched.add(path)
        if not path.isascii():
            text = stored_text(path)
            if text != path:
                for name in files.intersection((text,)) | folders.intersection(_folders_of(text)):
                    as_text[name].append((row, path))
    chosen = set(rows)
    for name, alike in as_text.items():
        depth = name.rstrip(b"/").count(b"/") + 1
        others = {b"/".join(path.split(b"/")[:depth]) for row, path in alike if row not in chosen}
        if len(others) + (name in matched) > 1:
            raise ConfigError(
                f"{name.decode()} may be any of these, which look alike: "
                f"{', '.join(map(repr, sorted({*others, *([name] if name in matched else [])})))}. Nothing is removed. "
                f"Name what is not UTF-8 by its bytes, in a list of --paths-from; the other can only be removed with it"
            )
        rows += [row for row, _ in alike]
    matched |= as_text.keys()
    missing = tuple(name for name in names if name not in matched and name.rstrip(b"/") + b"/" not in matched)
    return Selection(np.unique(np.array(rows, np.int64)), missing)


def names_of(path: bytes) -> Iterator[bytes]:
    """Every name that selects a photo: its path, and each folder above it with and without a final slash."""
    yield path
    for folder in _folders_of(path):
        yield from (folder, folder[:-1])


def _folders_of(path: bytes) -> Iterator[bytes]:
    """Every folder above a path, each with a final slash."""
    at = path.find(b"/")
    while at >= 0:
        yield path[: at + 1]
        at = path.find(b"/", at + 1)


def find_duplicates(source: EmbeddingFile, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the photos that were skipped as duplicates of given photos: byte for byte the same.

    Digests decide, where the file has them. Otherwise the details do, which name the original. A detail that was cut
    may name several photos. It counts as a duplicate of each, so that a removal leaves no copy; what it may take too
    much has no embedding.

    Args:
        source: a finished file.
        rows: (n,) int64, rows of the given photos in `/outcomes`.
    Returns:
        Rows of the duplicates in `/outcomes`, int64.
    """
    status = source.status
    originals = np.zeros(len(status), bool)
    originals[rows] = status[rows] != Status.DUPLICATE
    duplicates = status == Status.DUPLICATE
    if not originals.any() or not duplicates.any():
        return np.empty(0, np.int64)
    if _has_digests(source):
        column, names = "digest", {digest for _, digest in _values(source, "digest", originals)}
    else:
        column, names = "detail", {detail for detail, _ in _details(source, originals)}
    return np.array([row for row, name in _values(source, column, duplicates) if name in names], np.int64)


def count_shared(source: EmbeddingFile, rows: NDArray[np.int64]) -> int:
    """Count the given photos that are duplicates of other photos.

    Digests decide, where the file has them. Otherwise the details do; one that was cut counts, because it may name a
    photo that stays.

    Args:
        source: a finished file.
        rows: (n,) int64, ascending rows of the given photos in `/outcomes`.
    """
    selected = np.zeros(len(source.status), bool)
    selected[rows] = True
    duplicates = selected & (source.status == Status.DUPLICATE)
    if not duplicates.any():
        return 0
    if _has_digests(source):
        digests = [digest for _, digest in _values(source, "digest", duplicates)]
        shared, stay = set(digests), ~selected & (source.status != Status.DUPLICATE)
        staying = {digest for _, digest in _values(source, "digest", stay) if digest in shared}
        return sum(digest in staying for digest in digests)
    removed = {detail for detail, is_cut in _details(source, selected) if not is_cut}
    return sum(detail not in removed for _, detail in _values(source, "detail", duplicates))


def _has_digests(source: EmbeddingFile) -> bool:
    return "digest" in source.hdf5["outcomes"]


def _details(source: EmbeddingFile, photos: NDArray[np.bool_]) -> Iterator[tuple[bytes, bool]]:
    """The detail of a duplicate of each photo, as it is stored, and whether it is cut."""
    for path in compress(source.scanned_paths(), photos.tolist()):
        detail = SAME_FILE + stored_text(path).decode()
        yield clip_detail(detail), len(detail.encode()) > DETAIL_BYTES


def _values(source: EmbeddingFile, column: str, photos: NDArray[np.bool_]) -> Iterator[tuple[int, bytes]]:
    """Row and value of each photo in a column of `/outcomes`; without the digests of photos that cannot be read."""
    dataset = source.hdf5["outcomes"][column]
    for start in range(0, len(dataset), _BLOCK_ROWS):
        chosen = np.flatnonzero(photos[start : start + _BLOCK_ROWS])
        if not len(chosen):
            continue
        block = dataset[start : start + _BLOCK_ROWS][chosen]
        values = block.tolist() if column == "detail" else [value.tobytes() for value in block]
        yield from ((start + int(at), value) for at, value in zip(chosen, values, strict=True) if value != _NO_DIGEST)
