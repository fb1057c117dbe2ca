"""The answers as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..files import check_output, write_durable
from ..search.embedder import query_limits
from ..search.search import Answer, Answers
from ..storage.derived import recording
from ..storage.file import EmbeddingFile
from .html import STYLE, Thumbnails, count, page_head, safe, warning_note

_QUERIES, _PICTURES = 200, 5000  # of a page at most: it is one file of some ten megabytes
_CONTENTS_FROM, _OPEN_TO = 4, 30  # queries: fewer need no contents, more would fill the screen with them
_STYLE = (
    STYLE
    + """
nav { margin: 1.25rem 0 0 } nav summary { cursor: pointer; font-weight: 600 }
nav ol { margin-top: .6rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 0 1.5rem }
nav li { background: none; border: 0; border-bottom: 1px solid var(--line); border-radius: 0; display: grid;
  grid-template-columns: minmax(0, 1fr) auto; gap: .75rem; padding: .3rem 0; font-size: .85rem }
nav a { color: inherit; overflow-wrap: anywhere } nav span { color: var(--soft); font-variant-numeric: tabular-nums }
.query a { font-size: .78rem; color: var(--soft) }
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


def check_page_path(path: Path, *, force: bool, option: str = "--html") -> None:
    """Say so before the search, not after it, when the page could not be written.

    Args:
        path: where.
        force: it may replace an existing one.
        option: by which it was named.
    Raises:
        ConfigError: the name ends in neither .html nor .htm, or the folder is missing.
        OutputExistsError: the file exists and is not to be replaced.
    """
    check_output(path, "the page", (".html", ".htm"), force=force, other=f"another file with {option}")


class PageAnswers:
    """The first answers of a search, as many as a page shows.

    Attributes:
        asked: queries in all.
        found: the answers kept, as one batch; None before the first.
    """

    def __init__(self, asked: int, k: int) -> None:
        """Keep none yet.

        Args:
            asked: queries in all.
            k: hits of each at most.
        """
        self.asked = asked
        self.found: Answers | None = None
        self._room = min(_QUERIES, max(1, _PICTURES // (1 + k)))

    def add(self, found: Answers) -> None:
        """The next batch."""
        before = self.found
        answers = found.answers[: self._room]
        self._room -= len(answers)
        if before is None:
            self.found = replace(found, answers=answers)
        else:
            answers, search_ms = before.answers + answers, before.search_ms + found.search_ms
            self.found = replace(before, answers=answers, search_ms=search_ms)


def write_page(path: Path, gallery: EmbeddingFile, shown: PageAnswers, *, force: bool = False) -> None:
    """Write the page, whole or not at all.

    Args:
        path: ends in .html.
        gallery: the file that was searched.
        shown: answers, one batch at least.
        force: replace an existing file.
    Raises:
        ConfigError, OutputExistsError, StorageError: as their messages say; an existing file stays.
    """
    check_page_path(path, force=force)
    assert shown.found is not None
    text = "".join(_page(gallery, shown.found, shown.asked))
    with recording(gallery.path, path):
        write_durable(path, text.encode("utf-8", "backslashreplace"), "the page")


def _page(gallery: EmbeddingFile, found: Answers, asked: int) -> Iterator[str]:
    title = f"Search in {safe(gallery.path.name)}"
    photograph = Thumbnails(query_limits(gallery))
    yield page_head(title, _STYLE)
    yield (
        f"<header>\n<h1>{title}</h1>\n"
        f"<p>{count(asked, 'query', 'queries')} &middot; {found.rows:,} embeddings &middot; model "
        f"{safe(found.made_by())} &middot; search {found.search_ms:,.1f} ms</p>\n"
        f"<p>index {safe(str(found.index))}</p>\n"
    )
    yield warning_note(found.warning)
    if found.calibration is not None:
        yield f"<p>{safe(found.calibration.explain())}</p>\n"
    if len(found.answers) < asked:
        yield f'<p class="error">This page shows the first {len(found.answers):,} queries; the output has all.</p>\n'
    yield "</header>\n"
    contents = len(found.answers) >= _CONTENTS_FROM
    if contents:
        yield from _contents(found)
    yield "<main>\n"
    for number, answer in enumerate(found.answers, 1):
        yield from _section(gallery, found, answer, photograph, number, contents)
    yield "</main>\n</body>\n</html>\n"


def _contents(found: Answers) -> Iterator[str]:
    """Where each query is, and its best hit."""
    opened = " open" if len(found.answers) <= _OPEN_TO else ""
    yield f'<nav id="contents" aria-label="Queries">\n<details{opened}>\n<summary>Contents</summary>\n<ol>\n'
    for number, answer in enumerate(found.answers, 1):
        best = answer.error.partition(":")[0] or (f"{answer.hits[0].score:.4f}" if answer.hits else "no hit")
        yield f'<li><a href="#q{number}">{safe(answer.query)}</a><span>{safe(best)}</span></li>\n'
    yield "</ol>\n</details>\n</nav>\n"


def _section(
    gallery: EmbeddingFile, found: Answers, answer: Answer, photograph: Thumbnails, number: int, contents: bool
) -> Iterator[str]:
    picture = photograph.of(os.fsencode(answer.query), answer.face, "Query", answer.query)
    yield f'<section id="q{number}">\n<div class="query">\n{picture}<h2>{safe(answer.query)}</h2>\n'
    if contents:
        yield '<a href="#contents">all queries</a>\n'
    if answer.error:
        yield f'<p class="error">{safe(answer.error)}</p>\n</div>\n</section>\n'
        return
    choice = f"<p>{safe(answer.choice)}</p>\n" if answer.choice else ""
    hits = ("folder", "folders") if found.by_folder else ("hit", "hits")
    cut = "<p>there may be more: only the best rows were looked at</p>\n" if answer.cut else ""
    yield f"{choice}<p>{count(len(answer.hits), *hits)}</p>\n{cut}</div>\n<ol>\n"
    for hit in answer.hits:
        expected = found.expected(hit.score)
        chance = "" if expected is None else f'<div class="fact">{safe(str(expected))} false hits expected</div>'
        which = "" if hit.face is None else f'<div class="fact">face_index {hit.face.index}</div>'
        group = ""
        if hit.folder is not None:
            group = (
                f'<div class="fact">{count(hit.photographs, "photograph", "photographs")} of {safe(hit.folder)}</div>'
            )
        width = 100 * min(max(hit.score, 0.0), 1.0)
        yield (
            f"<li>{photograph.of(gallery.photo_path(hit.row), hit.face, f'Hit {hit.rank}', hit.path)}"
            f'<div class="hit"><div class="score">{hit.score:.4f}<span>#{hit.rank}</span></div>'
            f'<div class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i></div>{chance}{which}{group}'
            f'<div class="name" title="{safe(hit.path)}">{safe(hit.path)}</div></div></li>\n'
        )
    yield "</ol>\n</section>\n"
