"""Write contact sheets: pages with the photos of each cluster, and an index of all clusters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..clusters.clusters import Clusters
from ..errors import FacemillError
from ..files import storage_error
from ..pairs.outputs import Ready
from ..pipeline.contract import limits_of
from ..progress import Listener, Reporter
from ..receipts.clear import check_receipt_folder, receipt_folder
from ..receipts.fill import write_page
from ..receipts.kinds import SHEETS
from ..receipts.receipt import NewReceipt, header_of, new_receipt
from ..search.model_label import file_model_label, model_warning
from ..storage.derived import record_page, record_start
from ..storage.file import EmbeddingFile
from .page import count, encode, picture, render
from .thumbnails import thumbnails

_SIDE = 112  # pixels of a picture; it takes 3 to 5 kB
_MAX_CLUSTERS, _MAX_PICTURES = 100, 1000  # per sheet, which keeps it below about 6 MB
_MAX_CLUSTER_PICTURES = 100
_INDEX_CLUSTERS = 1000  # per page of the index


@dataclass(frozen=True, slots=True)
class _Card:
    """A cluster in the index: its number, the file name of its sheet, and its best picture."""

    number: int
    page: str
    picture: bytes | None


def check_sheets(path: Path, *, force: bool) -> None:
    """Check, before the work, that the folder can be filled; see `clear.check_receipt_folder`."""
    check_receipt_folder(path, SHEETS, force=force)


def write_sheets(
    path: Path,
    embeddings: EmbeddingFile,
    clusters: Clusters,
    *,
    min_rows: int = 2,
    force: bool = False,
    listener: Listener | None = None,
    ready: Ready = lambda status: None,
) -> int:
    """Write `index.html` and the sheets, largest cluster first, and in a cluster the most typical photo first.

    Args:
        path: the folder; see `clear.receipt_folder`. Its `receipt.jsonl` names the pages.
        embeddings: the file that was clustered.
        clusters: clusters of its rows.
        min_rows: skip clusters with fewer rows.
        force: replace the content of the folder, if facemill wrote all of it and nobody changed it.
        listener: shows the progress; None logs a line every five seconds.
        ready: called with the status of the folder before it is filled.
    Returns:
        Number of sheets.
    Raises:
        OutputExistsError: the folder holds something else, or `force` is false.
        StorageError, DiskFullError: the folder cannot be written.
    """
    shown = clusters.count_at_least(min_rows)
    sheets = list(_plan_sheets(clusters.sizes[:shown].tolist()))
    with (
        receipt_folder(path, SHEETS, force=force, like=embeddings.path) as folder,
        Reporter("sheets", len(sheets), unit="pages", listener=listener) as reporter,
    ):
        ready(os.lstat(path))
        record_start(embeddings, path)
        try:
            with new_receipt(folder, header_of(SHEETS, embeddings), like=embeddings.path) as receipt:
                _fill(receipt, embeddings, clusters, sheets, shown, reporter)
        except OSError as err:
            if isinstance(err, FacemillError):
                raise
            raise storage_error(err, f"the folder for {SHEETS.name}", path) from err
    record_page(embeddings, path)
    return len(sheets)


def _fill(
    receipt: NewReceipt,
    embeddings: EmbeddingFile,
    clusters: Clusters,
    sheets: Sequence[range],
    shown: int,
    reporter: Reporter,
) -> None:
    """Write the sheets, and each page of the index when its sheets are written."""
    indexes = max(1, -(-shown // _INDEX_CLUSTERS))
    cards: list[_Card] = []
    written = 0
    for number, members in enumerate(sheets):
        previous = _sheet_name(number - 1) if number else ""
        following = _sheet_name(number + 1) if number + 1 < len(sheets) else ""
        index = _index_name((members.start - 1) // _INDEX_CLUSTERS)
        name = _sheet_name(number)
        text, new_cards = _page(embeddings, clusters, members, name, (previous, index, following))
        write_page(name, encode(text), "the sheet", receipt, like=embeddings.path)
        cards += new_cards
        while len(cards) >= _INDEX_CLUSTERS:
            _write_index(receipt, embeddings, clusters, cards[:_INDEX_CLUSTERS], written, indexes, shown)
            cards, written = cards[_INDEX_CLUSTERS:], written + 1
        reporter.advance(1)
    if cards or not written:
        _write_index(receipt, embeddings, clusters, cards, written, indexes, shown)


def _plan_sheets(sizes: Sequence[int]) -> Iterator[range]:
    """Yield the numbers of the clusters of each sheet."""
    start = pictures = 0
    for i, size in enumerate(sizes):
        size = min(size, _MAX_CLUSTER_PICTURES)
        if i > start and (i - start >= _MAX_CLUSTERS or pictures + size > _MAX_PICTURES):
            yield range(start + 1, i + 1)
            start, pictures = i, 0
        pictures += size
    if len(sizes):
        yield range(start + 1, len(sizes) + 1)


def _sheet_name(number: int) -> str:
    return f"sheet-{number + 1:04d}.html"


def _index_name(number: int) -> str:
    return f"index-{number + 1:04d}.html" if number else "index.html"


def _page(
    embeddings: EmbeddingFile, clusters: Clusters, numbers: range, page: str, links: tuple[str, str, str]
) -> tuple[str, list[_Card]]:
    """Render a sheet. Returns its text, and the index cards of its clusters.

    Args:
        embeddings, clusters: see `write_sheets`.
        numbers: numbers of the clusters on this sheet.
        page: file name of the sheet.
        links: file names of the previous sheet, the index, and the next sheet; empty for none.
    """
    rows: list[int] = []
    stops = []
    for number in numbers:
        members = clusters.rows(number)
        rows += members[(-clusters.scores[members]).argsort(kind="stable")][:_MAX_CLUSTER_PICTURES].tolist()
        stops.append(len(rows))
    faces, paths = embeddings.face_places(rows), embeddings.names(rows)
    pictures = thumbnails(
        embeddings.photo_paths(rows),
        faces,
        limits_of(embeddings.contract),
        side=_SIDE,
    )
    photos = [
        {
            "picture": picture(pictures[i]),
            "path": paths[i],
            "fact": f"{clusters.scores[row]:.3f}" + (f" \u00b7 {face}" if face and (face.index or face.page) else ""),
        }
        for i, (row, face) in enumerate(zip(rows, faces, strict=True))
    ]
    starts = [0, *stops[:-1]]
    text = render(
        "sheet",
        styles=["sheets"],
        title=f"Clusters {numbers.start:,} to {numbers.stop - 1:,} of {embeddings.path.name}",
        warning=model_warning(embeddings),
        summary=[f"model {file_model_label(embeddings)}"],
        links=_links(("Previous", "All clusters", "Next"), links),
        clusters=[
            {"number": number, "facts": _facts(clusters, number, stop - start), "photos": photos[start:stop]}
            for number, start, stop in zip(numbers, starts, stops, strict=True)
        ],
    )
    return text, [_Card(number, page, pictures[start]) for number, start in zip(numbers, starts, strict=True)]


def _facts(clusters: Clusters, number: int, shown: int) -> str:
    """Return the line below the heading of a cluster."""
    size = int(clusters.sizes[number - 1])
    mean = float(clusters.scores[clusters.rows(number)].mean())
    hidden = [f"{size - shown:,} more are not shown"] if size > shown else []
    return " \u00b7 ".join((count(size, "photo", "photos"), f"mean score {mean:.3f}", *hidden))


def _write_index(
    receipt: NewReceipt,
    embeddings: EmbeddingFile,
    clusters: Clusters,
    cards: Sequence[_Card],
    number: int,
    pages: int,
    shown: int,
) -> None:
    embedding_count = count(len(clusters.labels), "embedding", "embeddings")
    previous = _index_name(number - 1) if number else ""
    following = _index_name(number + 1) if number + 1 < pages else ""
    text = render(
        "sheets_index",
        styles=["sheets"],
        title=f"Clusters of {embeddings.path.name}",
        warning=model_warning(embeddings),
        summary=[
            f"{embedding_count} in {count(clusters.count, 'cluster', 'clusters')}, {shown:,} of them on the sheets",
            f"k-means, k = {clusters.k:,}" if clusters.k else f"threshold {clusters.threshold:g}",
            f"model {file_model_label(embeddings)}",
        ],
        links=_links(("Previous", "Next"), (previous, following)),
        cards=[
            {
                "number": card.number,
                "page": card.page,
                "picture": picture(card.picture),
                "size": count(int(clusters.sizes[card.number - 1]), "photo", "photos"),
            }
            for card in cards
        ],
    )
    write_page(_index_name(number), encode(text), "the index of the sheets", receipt, like=embeddings.path)


def _links(labels: Sequence[str], targets: Sequence[str]) -> list[tuple[str, str]]:
    """Pair labels with targets; skip empty targets."""
    return [(label, target) for label, target in zip(labels, targets, strict=True) if target]
