"""Contact sheets: pages with the photographs of each cluster, and an index of all clusters to begin at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..clusters.clusters import Clusters
from ..clusters.ownfolder import check_folder, own_folder
from ..files import write_durable
from ..progress import Reporter
from ..search.embedder import query_limits
from ..search.model_label import made_by, warning_of
from ..storage.derived import record_begun, record_page
from ..storage.file import EmbeddingFile
from .html import STYLE, count, page_head, picture_of, safe, warning_note
from .thumbnails import thumbnails

KIND = "contact sheets"
_ENTRIES = r"(index|sheet)(-\d{4,})?\.html(\.partial)?"
_SIDE = 112  # pixels of a picture, 3 to 5 kB
_CLUSTERS, _PICTURES = 100, 1000  # of a sheet at most, so that a page stays below some 6 MB
_SHOWN = 100  # pictures of one cluster at most
_CARDS = 1000  # clusters on a page of the index

_STYLE = (
    STYLE
    + """
header { margin-bottom: 1rem }
nav { margin: 1rem 0; display: flex; gap: 1rem; flex-wrap: wrap }
a { color: var(--bar) }
ol { gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(6.25rem, 1fr)) }
section { margin-top: 1.25rem; padding-top: 1.25rem; border-top: 1px solid var(--line); scroll-margin-top: 1rem }
section:target h2 { text-decoration: underline 2px var(--bar) }
section > p { margin-bottom: .6rem }
li a { color: inherit; text-decoration: none; display: block }
li a:hover { outline: 2px solid var(--bar); outline-offset: -2px; border-radius: 10px }
.hit { padding: .3rem .45rem .4rem }
.fact, .name { font-size: .7rem }
.name { -webkit-line-clamp: 2 }
"""
)


@dataclass(frozen=True, slots=True)
class _Card:
    """A cluster in the index: its number, where its sheet is, and its best picture."""

    number: int
    page: str
    picture: bytes | None


def check_sheets(path: Path, *, force: bool) -> None:
    """See `ownfolder.check_folder`."""
    check_folder(path, KIND, _ENTRIES, force=force)


def write_sheets(path: Path, gallery: EmbeddingFile, clusters: Clusters, *, least: int = 2, force: bool = False) -> int:
    """Write `index.html` and the sheets, largest clusters first; in a cluster those most like the others come first.

    Args:
        path: the folder; see `ownfolder.own_folder`.
        gallery: the file that was clustered.
        clusters: of its rows.
        least: clusters with fewer rows are left out.
        force: replace what the folder holds, if it is facemill's.
    Returns:
        Pages with clusters.
    Raises:
        OutputExistsError, StorageError, DiskFullError: as their messages say.
    """
    shown = clusters.with_at_least(least)
    sheets = list(_share_out(clusters.sizes[:shown].tolist()))
    indexes = max(1, -(-shown // _CARDS))
    cards, written = [], 0
    reporter = Reporter("sheets", len(sheets), unit="pages")
    with own_folder(path, KIND, _ENTRIES, force=force), reporter:
        record_begun(gallery.path, path)
        for at, numbers in enumerate(sheets):
            names = [_sheet(other) if 0 <= other < len(sheets) else "" for other in (at - 1, at + 1)]
            home = _index((numbers.start - 1) // _CARDS)
            text, new = _page(gallery, clusters, numbers, _sheet(at), (names[0], home, names[1]))
            write_durable(path / _sheet(at), text.encode("utf-8", "backslashreplace"), "the sheet")
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
        links: the sheet before, the index, and the sheet after; empty where there is none.
    """
    rows: list[int] = []
    stops = []
    for number in numbers:
        mine = clusters.rows(number)
        rows += mine[(-clusters.scores[mine]).argsort(kind="stable")][:_SHOWN].tolist()
        stops.append(len(rows))
    places, names = gallery.face_places(rows), gallery.names(rows)
    pictures = thumbnails(
        gallery.photo_paths(rows),
        [None if place is None else place.box for place in places],
        query_limits(gallery),
        side=_SIDE,
    )
    title = f"Clusters {numbers.start:,} to {numbers.stop - 1:,} of {safe(gallery.path.name)}"
    nav = _nav(list(zip(("Previous", "All clusters", "Next"), links, strict=True)))
    parts = [
        page_head(title, _STYLE),
        f"<header>\n<h1>{title}</h1>\n<p>model {safe(made_by(gallery))}</p>\n{warning_note(warning_of(gallery))}{nav}"
        "</header>\n<main>\n",
    ]
    cards, start = [], 0
    for number, stop in zip(numbers, stops, strict=True):
        cards.append(_Card(number, page, pictures[start]))
        parts.append(_heading(clusters, number, stop - start))
        for at in range(start, stop):
            place = places[at]
            which = "" if place is None or not place.index else f" &middot; face_index {place.index}"
            parts.append(
                f"<li>{picture_of(pictures[at], names[at])}"
                f'<div class="hit"><div class="fact">{clusters.scores[rows[at]]:.3f}{which}</div>'
                f'<div class="name" title="{safe(names[at])}">{safe(names[at])}</div></div></li>\n'
            )
        parts.append("</ol>\n</section>\n")
        start = stop
    parts.append(f"</main>\n{nav}</body>\n</html>\n")
    return "".join(parts), cards


def _heading(clusters: Clusters, number: int, shown: int) -> str:
    size = int(clusters.sizes[number - 1])
    mean = float(clusters.scores[clusters.rows(number)].mean())
    more = f" &middot; {size - shown:,} more are not shown" if size > shown else ""
    return (
        f'<section id="c{number}">\n<h2>Cluster {number:,}</h2>\n'
        f"<p>{count(size, 'photograph', 'photographs')} &middot; mean score {mean:.3f}{more}</p>\n<ol>\n"
    )


def _write_index(
    path: Path, gallery: EmbeddingFile, clusters: Clusters, cards: Sequence[_Card], at: int, pages: int, shown: int
) -> None:
    title = f"Clusters of {safe(gallery.path.name)}"
    how = f"k-means, k = {clusters.k:,}" if clusters.k else f"threshold {clusters.threshold:g}"
    near = [("Previous", _index(at - 1) if at else ""), ("Next", _index(at + 1) if at + 1 < pages else "")]
    nav = _nav(near)
    parts = [
        page_head(title, _STYLE),
        f"<header>\n<h1>{title}</h1>\n<p>{count(len(clusters.of), 'embedding', 'embeddings')} in "
        f"{count(clusters.count, 'cluster', 'clusters')}, {shown:,} of them on the sheets &middot; {how} "
        f"&middot; model {safe(made_by(gallery))}</p>\n{warning_note(warning_of(gallery))}{nav}"
        "</header>\n<main>\n<ol>\n",
    ]
    for card in cards:
        size = int(clusters.sizes[card.number - 1])
        parts.append(
            f'<li><a href="{card.page}#c{card.number}">{picture_of(card.picture, f"cluster {card.number}")}'
            f'<div class="hit"><div class="score">{card.number:,}</div>'
            f'<div class="fact">{count(size, "photograph", "photographs")}</div></div></a></li>\n'
        )
    parts.append(f"</ol>\n</main>\n{nav}</body>\n</html>\n")
    write_durable(path / _index(at), "".join(parts).encode("utf-8", "backslashreplace"), "the index of the sheets")


def _nav(links: Sequence[tuple[str, str]]) -> str:
    """Links to other pages; those without a target are left out."""
    shown = [f'<a href="{target}">{words}</a>' for words, target in links if target]
    return f"<nav>{' '.join(shown)}</nav>\n" if shown else ""
