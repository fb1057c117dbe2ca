"""Contact sheets: pages with the photographs of each cluster, and an index of all clusters to begin at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..clusters.clusters import Clusters
from ..files import write_durable
from ..folders import check_folder, fill_folder
from ..pipeline.contract import limits_of
from ..progress import Listener, Reporter
from ..search.model_label import file_model_label, model_warning
from ..storage.derived import record_page, record_start
from ..storage.file import EmbeddingFile
from .page import count, encode, picture, render
from .thumbnails import thumbnails

KIND = "contact sheets"
_ENTRIES = r"(index|sheet)(-\d{4,})?\.html"
_SIDE = 112  # pixels of a picture, 3 to 5 kB
_CLUSTERS, _PICTURES = 100, 1000  # of a sheet at most, so that a page stays below some 6 MB
_SHOWN = 100  # pictures of one cluster at most
_CARDS = 1000  # clusters on a page of the index


@dataclass(frozen=True, slots=True)
class _Card:
    """A cluster in the index: its number, where its sheet is, and its best picture."""

    number: int
    page: str
    picture: bytes | None


def check_sheets(path: Path, *, force: bool) -> None:
    """Check, before the work, that the folder can be filled; see `folders.check_folder`."""
    check_folder(path, KIND, _ENTRIES, force=force)


def write_sheets(
    path: Path,
    gallery: EmbeddingFile,
    clusters: Clusters,
    *,
    least: int = 2,
    force: bool = False,
    listener: Listener | None = None,
) -> int:
    """Write `index.html` and the sheets, largest clusters first; in a cluster those most like the others come first.

    Args:
        path: the folder; see `folders.fill_folder`.
        gallery: the file that was clustered.
        clusters: of its rows.
        least: clusters with fewer rows are left out.
        force: replace what the folder holds, if it is facemill's.
        listener: shows the progress; None logs a line every five seconds.
    Returns:
        Pages with clusters.
    Raises:
        OutputExistsError, StorageError, DiskFullError: as their messages say.
    """
    shown = clusters.with_at_least(least)
    sheets = list(_share_out(clusters.sizes[:shown].tolist()))
    indexes = max(1, -(-shown // _CARDS))
    cards, written = [], 0
    reporter = Reporter("sheets", len(sheets), unit="pages", listener=listener)
    with fill_folder(path, KIND, _ENTRIES, force=force, like=gallery.path), reporter:
        record_start(gallery.path, path)
        for at, numbers in enumerate(sheets):
            names = [_sheet(other) if 0 <= other < len(sheets) else "" for other in (at - 1, at + 1)]
            home = _index((numbers.start - 1) // _CARDS)
            text, new = _page(gallery, clusters, numbers, _sheet(at), (names[0], home, names[1]))
            write_durable(path / _sheet(at), encode(text), "the sheet", like=gallery.path)
            cards += new
            while len(cards) >= _CARDS:
                _write_index(path, gallery, clusters, cards[:_CARDS], written, indexes, shown)
                cards, written = cards[_CARDS:], written + 1
            reporter.advance(1)
        if cards or not written:
            _write_index(path, gallery, clusters, cards, written, indexes, shown)
    record_page(gallery.path, path)
    return len(sheets)


def _share_out(sizes: Sequence[int]) -> Iterator[range]:
    """The numbers of the clusters of each sheet."""
    start = pictures = 0
    for at, size in enumerate(sizes):
        if at > start and (at - start >= _CLUSTERS or pictures + min(size, _SHOWN) > _PICTURES):
            yield range(start + 1, at + 1)
            start, pictures = at, 0
        pictures += min(size, _SHOWN)
    if len(sizes):
        yield range(start + 1, len(sizes) + 1)


def _sheet(at: int) -> str:
    return f"sheet-{at + 1:04d}.html"


def _index(at: int) -> str:
    return f"index-{at + 1:04d}.html" if at else "index.html"


def _page(
    gallery: EmbeddingFile, clusters: Clusters, numbers: range, page: str, links: tuple[str, str, str]
) -> tuple[str, list[_Card]]:
    """A sheet, and the cards of its clusters.

    Args:
        gallery, clusters: see `write_sheets`.
        numbers: of the clusters of this sheet.
        page: file name of the sheet.
        links: file names of the previous sheet, the index, and the next sheet; empty for none.
    """
    rows: list[int] = []
    stops = []
    for number in numbers:
        members = clusters.rows(number)
        rows += members[(-clusters.scores[members]).argsort(kind="stable")][:_SHOWN].tolist()
        stops.append(len(rows))
    faces, paths = gallery.face_places(rows), gallery.names(rows)
    pictures = thumbnails(
        gallery.photo_paths(rows),
        [None if face is None else face.box for face in faces],
        limits_of(gallery.contract),
        side=_SIDE,
    )
    photos = [
        {
            "picture": picture(pictures[at]),
            "path": paths[at],
            "fact": f"{clusters.scores[row]:.3f}" + (f" \u00b7 face_index {face.index}" if face and face.index else ""),
        }
        for at, (row, face) in enumerate(zip(rows, faces, strict=True))
    ]
    starts = [0, *stops[:-1]]
    text = render(
        "sheet",
        styles=["sheets"],
        title=f"Clusters {numbers.start:,} to {numbers.stop - 1:,} of {gallery.path.name}",
        warning=model_warning(gallery),
        summary=[f"model {file_model_label(gallery)}"],
        links=_links(("Previous", "All clusters", "Next"), links),
        clusters=[
            {"number": number, "facts": _facts(clusters, number, stop - start), "photos": photos[start:stop]}
            for number, start, stop in zip(numbers, starts, stops, strict=True)
        ],
    )
    return text, [_Card(number, page, pictures[start]) for number, start in zip(numbers, starts, strict=True)]


def _facts(clusters: Clusters, number: int, shown: int) -> str:
    """The line below the heading of a cluster."""
    size = int(clusters.sizes[number - 1])
    mean = float(clusters.scores[clusters.rows(number)].mean())
    more = [f"{size - shown:,} more are not shown"] if size > shown else []
    return " \u00b7 ".join((count(size, "photo", "photos"), f"mean score {mean:.3f}", *more))


def _write_index(
    path: Path, gallery: EmbeddingFile, clusters: Clusters, cards: Sequence[_Card], at: int, pages: int, shown: int
) -> None:
    text = render(
        "sheets_index",
        styles=["sheets"],
        title=f"Clusters of {gallery.path.name}",
        warning=model_warning(gallery),
        summary=[
            f"{count(len(clusters.of), 'embedding', 'embeddings')} in {count(clusters.count, 'cluster', 'clusters')}, "
            f"{shown:,} of them on the sheets",
            f"k-means, k = {clusters.k:,}" if clusters.k else f"threshold {clusters.threshold:g}",
            f"model {file_model_label(gallery)}",
        ],
        links=_links(("Previous", "Next"), (_index(at - 1) if at else "", _index(at + 1) if at + 1 < pages else "")),
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
    write_durable(path / _index(at), encode(text), "the index of the sheets", like=gallery.path)


def _links(words: Sequence[str], targets: Sequence[str]) -> list[tuple[str, str]]:
    """Words and targets of the links to other pages; those without a target are left out."""
    return [(word, target) for word, target in zip(words, targets, strict=True) if target]
