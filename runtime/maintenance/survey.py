"""Find the intact parts of a damaged embedding file, and the photo of each row."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import FACE_DATASETS, PAGE_DATASET, Status
from ..storage.format import NEAR_ONE, read_raw_paths, stored_text
from ..storage.layout import is_relative
from ..storage.ledger import PhotoColumns
from ..storage.opening import DAMAGE
from ..storage.salvage import find_readable, open_item, read_chunks, read_column, read_texts

_KNOWN = [int(status) for status in Status if status is not Status.PENDING]


@dataclass(frozen=True, slots=True)
class Survey:
    """P photos of a damaged file, in scan order, and the readable data of each.

    Attributes:
        paths: exact paths, as far as their bytes are known.
        photos: their outcomes, and their rows if these are intact. The position is -1 if only the path can be read
            from `/outcomes`.
        lost: (P,) bool, photos whose rows or outcomes are lost.
        unexplained: (P,) bool, other photos whose details cannot be read.
        nameless: number of photos whose names, and so all data, are lost.
    """

    paths: list[bytes]
    photos: PhotoColumns
    lost: NDArray[np.bool_]
    unexplained: NDArray[np.bool_]
    nameless: int


def survey(file: Any, *, pages: bool) -> Survey:
    """Read an open damaged file, chunk by chunk where needed.

    Args:
        file: an open h5py file whose `/embeddings` can be opened.
        pages: whether each face has to name its page.
    """
    outcomes = Outcomes(file)
    rows = len(file["embeddings"])
    names = [_relative(name) for name in read_texts(open_item(file, "image_paths"))[:rows]]
    owner = outcomes.owners_by_counts(names, rows)
    if owner is None:
        owner = outcomes.owners_by_names(names, one_each=open_item(file, "face_index") is None)
    start, counts, broken = _runs(owner, whole_vectors(file, pages), len(outcomes.texts))
    held = counts > 0
    status = np.where(held, Status.EMBEDDED, outcomes.status).astype(np.uint8)
    right = outcomes.usable & np.isin(status, _KNOWN) & (held | (status != Status.EMBEDDED)) & ~broken
    named = np.array([text is not None for text in outcomes.texts], bool)
    paths = [outcomes.raw.get(row, text) or b"" for row, text in enumerate(outcomes.texts)]
    order = np.array(sorted(np.flatnonzero(named).tolist(), key=paths.__getitem__), np.int64)
    return Survey(
        [paths[row] for row in order],
        PhotoColumns(
            status,
            np.where(right & outcomes.listed, np.arange(len(paths)), -1),
            np.where(right & held, start, -1),
            np.where(right, counts, 0).astype(np.uint16),
        ).take(order),
        ~right[order],
        (right & outcomes.listed & ~outcomes.explained)[order],
        int((~named).sum()),
    )


class Outcomes:
    """The readable part of `/outcomes`, followed by photos that only `/image_paths` names.

    Attributes:
        texts: the stored path of each photo; None if it cannot be read.
        raw: exact paths of those that are not UTF-8, by row.
        status: the status of each photo; PENDING if it cannot be read.
        counts: stored number of rows of `/embeddings` for each photo; -1 if it cannot be read.
        usable: whether the irreplaceable columns can be read.
        explained: whether the detail can be read.
        listed: whether the photo is a row of `/outcomes`.
    """

    def __init__(self, file: Any) -> None:
        group = open_item(file, "outcomes")
        self.texts = [_relative(text) for text in read_texts(open_item(group, "path"))]
        rows = len(self.texts)
        self.status, known = read_column(open_item(group, "status"), rows, np.uint8)
        self.status[~known] = Status.PENDING
        held = open_item(group, "embeddings")
        if held is None:
            self.counts = np.where(known, (self.status == Status.EMBEDDED).astype(np.int64), -1)
        else:
            counts, known = read_column(held, rows, np.int64)
            self.counts = np.where(known, counts, -1)
        self.usable = np.ones(rows, bool)
        face_counts = open_item(group, "faces")
        if face_counts is not None:
            self.usable &= find_readable(face_counts, rows)
        self.explained = find_readable(open_item(group, "detail"), rows)
        # In a file with faces but without the column of their counts, only paths and status are usable.
        countless = open_item(file, "face_index") is not None and open_item(group, "faces") is None
        self.listed = np.full(rows, not countless)
        raw: dict[int, bytes] = {}
        with suppress(*DAMAGE):
            raw = read_raw_paths(group)
        self.raw = {row: path for row, path in raw.items() if row < rows and stored_text(path) == self.texts[row]}

    def owners_by_counts(self, names: list[bytes | None], rows: int) -> NDArray[np.int64] | None:
        """The photo of each row of `/embeddings`, by the number of rows of each photo, if these are consistent.

        A name that can be read on one side only is taken from that side. If both can be read and differ, the photo of
        the row is unknown.

        Args:
            names: names of the rows; those at the end may be missing.
            rows: number of rows of `/embeddings`.
        Returns:
            (R,) photos, -1 for unknown ones; None if the counts are unusable.
        """
        agree = (self.counts > 0) == (self.status == Status.EMBEDDED)
        if (self.counts < 0).any() or not agree.all() or not len(self.texts):
            return None
        owner = np.repeat(np.arange(len(self.texts)), self.counts)
        if len(owner) < len(names):
            return None
        for row, name in zip(owner.tolist(), names):  # noqa: B905 - names at the end may be missing
            if self.texts[row] is None:
                self.texts[row] = name
        wrong = [i for i, name in enumerate(names) if name is not None and self.texts[owner[i]] != name]
        if wrong and len(owner) != rows:
            return None
        owner[wrong] = -1
        return owner

    def owners_by_names(self, names: list[bytes | None], *, one_each: bool) -> NDArray[np.int64]:
        """The photo of each row of `/embeddings`, by name, if counts are unusable. Photos missing here are appended.

        Args:
            names: names of the rows of `/embeddings`.
            one_each: whether each photo has one row; else neighbours with one name are faces of one photo.
        """
        first: dict[bytes, int] = {}
        for row, text in enumerate(self.texts):
            if text is not None:
                first.setdefault(text, row)
        owner = np.full(len(names), -1, np.int64)
        before: bytes | None = None
        row = -1
        for i, name in enumerate(names):
            if name is None:
                before = None
                continue
            if name != before:
                row = first[name] if name in first else self._append(name)
                first[name] = row
            elif one_each:  # an input list named the photo twice
                row = row + 1 if row + 1 < len(self.texts) and self.texts[row + 1] == name else self._append(name)
            owner[i], before = row, name
        self._grow()
        if not one_each:  # next to a lost name, a photo may have had one face more
            lost = np.flatnonzero([name is None for name in names])
            neighbours = np.intersect1d(np.concatenate([lost - 1, lost + 1]), np.arange(len(names)))
            owner[np.isin(owner, owner[neighbours])] = -1
        return owner

    def _append(self, name: bytes) -> int:
        self.texts.append(name)
        return len(self.texts) - 1

    def _grow(self) -> None:
        """Extend the columns for the appended photos: embedded, and not listed in `/outcomes`."""
        more = len(self.texts) - len(self.status)
        self.status = np.append(self.status, np.full(more, Status.EMBEDDED, np.uint8))
        self.counts = np.append(self.counts, np.full(more, -1))
        self.usable, self.explained = (
            np.append(self.usable, np.ones(more, bool)),
            np.append(self.explained, np.zeros(more, bool)),
        )
        self.listed = np.append(self.listed, np.zeros(more, bool))


def _relative(name: bytes | None) -> bytes | None:
    """A stored path; None if it does not lead below the root, and so is none that facemill wrote."""
    return name if name is not None and is_relative(name) else None


def _runs(
    owner: NDArray[np.int64], whole: NDArray[np.bool_], photographs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """For each photo: its first row, its number of rows, and whether a row is damaged or apart from the others."""
    owned_rows = np.flatnonzero(owner >= 0)
    owners = owner[owned_rows]
    counts = np.bincount(owners, minlength=photographs)
    start, stop = np.full(photographs, len(owner), np.int64), np.full(photographs, -1, np.int64)
    np.minimum.at(start, owners, owned_rows)
    np.maximum.at(stop, owners, owned_rows + 1)
    is_whole = np.zeros(len(owner), bool)
    is_whole[: len(whole)] = whole[: len(owner)]
    good = np.bincount(owners, weights=is_whole[owned_rows], minlength=photographs)
    return start, counts, (counts > 0) & ((good < counts) | (stop - start != counts))


def whole_vectors(file: Any, pages: bool) -> NDArray[np.bool_]:
    """(N,) bool, whether a row of `/embeddings` can be read, has length 1 or 0, and has a readable face, and page."""
    vectors = file["embeddings"]
    whole = np.zeros(len(vectors), bool)
    near = NEAR_ONE[str(vectors.dtype)]
    for start, block in read_chunks(vectors):
        if block is not None:
            lengths = np.linalg.norm(block.astype(np.float32), axis=1)
            whole[start : start + len(block)] = (lengths == 0) | (np.abs(lengths - 1) <= near)
    if open_item(file, "face_index") is not None or open_item(file, "faces") is not None:
        for name in FACE_DATASETS.values():
            whole &= find_readable(open_item(file, name), len(whole))
        if pages:
            numbers, readable = read_column(open_item(file, PAGE_DATASET), len(whole), np.uint16)
            whole &= readable & (numbers > 0)
    return whole
