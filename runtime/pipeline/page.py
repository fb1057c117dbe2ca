"""The answers as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, OutputExistsError
from ..index.gallery import Gallery
from ..storage.derived import record_page
from ..storage.diskfile import write_durable
from .html import STYLE, Thumbnails, count, page_head, safe
from .query import Answer, Answers
from .query_work import query_limits

_STYLE = (
    STYLE
    + """
section { margin-top: 1.5rem; padding-top: 1.5rem; border-top: 1px solid var(--line); display: grid; gap: 1.25rem;
  grid-template-columns: 11rem minmax(0, 1fr) }
.query { align-self: start; position: sticky; top: 1rem }
.query .photo { border-radius: 10px; margin-bottom: .6rem }
@media (max-width: 40rem) { section { grid-template-columns: 1fr } .query { position: static }
  .query .photo { width: 11rem } }
@media print { .query { position: static }
  body { max-width: none; padding: 0; --paper: #fff; --card: #fff; --ink: #000; --soft: #444 }
  .name { -webkit-line-clamp: unset } .bar i, .warning { -webkit-print-color-adjust: exact; print-color-adjust: exact }
}
"""
)


def check_page_path(path: Path, *, force: bool) -> None:
    """Say so before the search, not after it, when the page could not be written.

    Raises:
        ConfigError: the name does not end in .html, or the folder is missing.
        OutputExistsError: the file exists and is not to be replaced.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"the page would be written to {path}; wanted: a name that ends in .html")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent} for the page {path.name}. Make it, or name another one")
    if os.path.lexists(path) and not force:
        raise OutputExistsError(f"{path} exists. Name another file with --html, or replace it with --force")


def write_page(path: Path, gallery: Gallery, found: Answers, *, force: bool = False) -> None:
    """Write the page, whole or not at all.

    Args:
        path: ends in .html.
        gallery: the file that was searched.
        found: what `search` returned.
        force: replace an existing file.
    Raises:
        ConfigError, OutputExistsError, StorageError: as their messages say; an existing file stays.
    """
    check_page_path(path, force=force)
    text = "".join(_page(gallery, found))
    write_durable(path, text.encode("utf-8", "backslashreplace"), "the page")
    record_page(gallery.path, path)


def _page(gallery: Gallery, found: Answers) -> Iterator[str]:
    title = f"Search in {safe(gallery.path.name)}"
    photograph = Thumbnails(query_limits(gallery))
    yield page_head(title, _STYLE)
    yield (
        f"<header>\n<h1>{title}</h1>\n"
        f"<p>{count(len(found.answers), 'query', 'queries')} &middot; {found.rows:,} embeddings &middot; model "
        f"{safe(found.made_by())} &middot; search {found.search_ms:,.1f} ms</p>\n"
    )
    if found.warning:
        yield f'<div class="warning" role="note">Warning: {safe(found.warning)}</div>\n'
    if found.calibration is not None:
        yield f"<p>{safe(found.calibration.explain())}</p>\n"
    yield "</header>\n<main>\n"
    for answer in found.answers:
        yield from _section(gallery, found, answer, photograph)
    yield "</main>\n</body>\n</html>\n"


def _section(gallery: Gallery, found: Answers, answer: Answer, photograph: Thumbnails) -> Iterator[str]:
    picture = photograph.of(os.fsencode(answer.query), answer.face, "Query", answer.query)
    yield f'<section>\n<div class="query">\n{picture}<h2>{safe(answer.query)}</h2>\n'
    if answer.error:
        yield f'<p class="error">{safe(answer.error)}</p>\n</div>\n</section>\n'
        return
    choice = f"<p>{safe(answer.choice)}</p>\n" if answer.choice else ""
    yield f"{choice}<p>{count(len(answer.hits), 'hit', 'hits')}</p>\n</div>\n<ol>\n"
    for hit in answer.hits:
        expected = found.expected(hit.score)
        chance = "" if expected is None else f'<div class="fact">{safe(str(expected))} false hits expected</div>'
        which = "" if hit.face is None else f'<div class="fact">face_index {hit.face.index}</div>'
        width = 100 * min(max(hit.score, 0.0), 1.0)
        yield (
            f"<li>{photograph.of(gallery.photograph(hit.row), hit.face, f'Hit {hit.rank}', hit.path)}"
            f'<div class="hit"><div class="score">{hit.score:.4f}<span>#{hit.rank}</span></div>'
            f'<div class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i></div>{chance}{which}'
            f'<div class="name" title="{safe(hit.path)}">{safe(hit.path)}</div></div></li>\n'
        )
    yield "</ol>\n</section>\n"
