"""Join the crops of the pages of a photo, and make one outcome of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..records import FACE, Crops, Outcome, PagedFile, Status


def no_crops(size: int, outcome: Outcome) -> Crops:
    """A batch of one photo, or page, that has no crop."""
    images = np.empty((0, size, size, 3), np.uint8)
    return Crops(np.empty(0, np.int64), (outcome,), images=images, faces=np.empty(0, FACE))


def join_crops(batches: Sequence[Crops]) -> Crops:
    """One batch of several, with the photos in scan order."""
    rows = np.concatenate([batch.rows for batch in batches])
    order = np.argsort(rows, kind="stable")
    return Crops(
        rows[order],
        tuple(outcome for batch in batches for outcome in batch.outcomes),
        {row: digest for batch in batches for row, digest in batch.digests.items()},
        {row: note for batch in batches for row, note in batch.notes.items()},
        images=np.concatenate([batch.images for batch in batches])[order],
        faces=np.concatenate([batch.faces for batch in batches if batch.faces is not None])[order],
        face_counts={row: count for batch in batches for row, count in batch.face_counts.items()},
    )


def crops_of_photo(photo: PagedFile, pages: Crops) -> Crops:
    """The crops of a photo from the crops of its pages, whose rows are the numbers of the pages.

    The photo is embedded if a page is, and its note names the other pages. Else its status is that of the first page
    that failed otherwise than by having no face.
    """
    assert pages.faces is not None
    faces, counts = pages.faces, {photo.row: sum(pages.face_counts.values())}
    faces["page"] = pages.rows
    start = 0
    for page in np.unique(pages.rows):  # ranks go on from page to page, so that each face of a photo has its own
        on_page = pages.rows == page
        faces["face_index"][on_page] += start
        start = int(faces["face_index"][on_page].max()) + 1
    texts = {outcome.row: f"{outcome.status.label}: {outcome.detail}" for outcome in pages.outcomes}
    numbers: dict[str, list[int]] = {}
    for page, text in sorted({**pages.notes, **texts}.items()):
        numbers.setdefault(text, []).append(page)
    detail = "; ".join(f"{_name_pages(named)} of {photo.pages}: {text}" for text, named in numbers.items())
    if not len(faces):
        failed = [outcome.status for outcome in sorted(pages.outcomes, key=lambda outcome: outcome.row)]
        status = next((status for status in failed if status is not Status.NO_FACE), Status.NO_FACE)
        return replace(pages, outcomes=(Outcome(photo.row, status, detail),), notes={}, face_counts=counts)
    return replace(
        pages,
        rows=np.full(len(faces), photo.row, np.int64),
        outcomes=(),
        notes={photo.row: detail} if detail else {},
        face_counts=counts,
    )


def _name_pages(numbers: Sequence[int]) -> str:
    """Ascending numbers in words: `page 2`, or `pages 1, 3 to 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = (f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"page{'s' if len(numbers) > 1 else ''} {', '.join(texts)}"
