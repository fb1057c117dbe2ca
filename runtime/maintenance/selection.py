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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, SourceError
from ..records import SAME_FILE, Status
from ..sources.reader import ReadError, read_file
from ..storage.file import EmbeddingFile
from ..storage.format import stored_text
from ..storage.segments import clip_detail

_BLOCK_ROWS = 65_536


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


def select_photos(paths: Iterable[bytes], names: Sequence[bytes]) -> Selection:
    """Select photos, and all photos below folders.

    A name is compared byte by byte. A name that matches no path is compared with the text of paths that are not UTF-8,
    which has `\\xNN` for some bytes.

    Args:
        paths: exact paths, in scan order.
        names: names below the root; a name that ends in a slash means a folder.
    """
    folders = {name.rstrip(b"/") + b"/" for name in names}
    files = {name for name in names if not name.endswith(b"/")}
    rows: list[int] = []
    matched: set[bytes] = set()  # names, folders with a slash
    as_text: defaultdict[bytes, list[int]] = defaultdict(list)
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
                    as_text[name].append(row)
    for name, as_text_rows in as_text.items():
        if name not in matched:
            rows += as_text_rows
    matched |= as_text.keys()
    missing = tuple(name for name in names if name not in matched and name.rstrip(b"/") + b"/" not in matched)
    return Selection(np.unique(np.array(rows, np.int64)), missing)


def _folders_of(path: bytes) -> Iterator[bytes]:
    """Every folder above a path, each with a final slash."""
    at = path.find(b"/")
    while at >= 0:
        yield path[: at + 1]
        at = path.find(b"/", at + 1)


def find_duplicates(source: EmbeddingFile, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the photos that were skipped as duplicates of given photos: byte for byte the same.

    Args:
        source: a finished file.
        rows: (n,) int64, rows of the given photos in `/outcomes`.
    Returns:
        Rows of the duplicates in `/outcomes`, int64.
    """
    status, outcomes = source.status, source.hdf5["outcomes"]
    first = np.zeros(len(status), bool)
    first[rows] = status[rows] != Status.DUPLICATE
    candidates = np.flatnonzero(status == Status.DUPLICATE)
    if not first.any() or not len(candidates):
        return candidates[:0]
    originals = compress(source.scanned_paths(), first.tolist())
    details = {clip_detail(SAME_FILE + stored_text(path).decode()) for path in originals}
    digests: set[bytes] = set()
    if "digest" in outcomes:
        digests = {
            digest_row
            for start, block in _blocks(outcomes["digest"])
            for digest_row in _rows(block[first[start:][: len(block)]])
        }
        digests.discard(bytes(16))  # stored for photos that could not be read
    duplicates = []
    for start, block in _blocks(outcomes["detail"]):
        in_block = candidates[(candidates >= start) & (candidates < start + len(block))]
        candidate_digests = (
            _rows(outcomes["digest"][start : start + len(block)][in_block - start])
            if digests
            else [b""] * len(in_block)
        )
        pairs = zip(in_block.tolist(), block[in_block - start].tolist(), candidate_digests, strict=True)
        duplicates += [row for row, detail, digest in pairs if detail in details or digest in digests]
    return np.array(duplicates, np.int64)


def count_shared(source: EmbeddingFile, rows: NDArray[np.int64]) -> int:
    """Count the given photos that are duplicates of other photos.

    Args:
        source: a finished file.
        rows: (n,) int64, ascending rows of the given photos in `/outcomes`.
    """
    selected = np.zeros(len(source.status), bool)
    selected[rows] = True
    duplicates = selected & (source.status == Status.DUPLICATE)
    if not duplicates.any():
        return 0
    paths = compress(source.scanned_paths(), selected.tolist())
    details = {clip_detail(SAME_FILE + stored_text(path).decode()) for path in paths}
    blocks = _blocks(source.hdf5["outcomes/detail"])
    return sum(
        detail not in details
        for start, block in blocks
        for detail in block[duplicates[start : start + len(block)]].tolist()
    )


def _blocks(dataset: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, len(dataset), _BLOCK_ROWS):
        yield start, dataset[start : start + _BLOCK_ROWS]


def _rows(digests: NDArray[np.uint8]) -> list[bytes]:
    return [digest.tobytes() for digest in digests]
