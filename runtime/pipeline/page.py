"""The answers as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

from ..errors import ConfigError, OutputExistsError
from ..images.decode import Limits
from ..index.gallery import Gallery
from ..records import FacePlace
from ..storage.diskfile import write_durable
from ..text import printable
from .query import Answer, Answers
from .query_work import query_limits
from .thumbnails import thumbnail

_PICTURE_SIDE = 192  # pixels

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fcfcfd; --card: #fff; --line: #e0e1e6;
  --bar: #3e63dd; --warn: #fff3d6; --warn-ink: #6b4a00; --bad: #c62a2f }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #b0b4ba; --paper: #111113; --card: #18191b;
  --line: #363a3f; --bar: #849dff; --warn: #3a2a00; --warn-ink: #ffd98a; --bad: #ff9592 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", "Noto Sans", sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere }
p { margin: 0 0 .25rem; color: var(--soft) }
.warning { margin: 1rem 0; padding: .75rem 1rem; border-radius: 8px; background: var(--warn); color: var(--warn-ink);
  font-weight: 600 }
.error { color: var(--bad); overflow-wrap: anywhere }
section { margin-top: 1.5rem; padding-top: 1.5rem; border-top: 1px solid var(--line); display: grid; gap: 1.25rem;
  grid-template-columns: 11rem minmax(0, 1fr) }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(8.25rem, 1fr)); align-content: start }
li { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  break-inside: avoid }
.photo { display: grid; place-items: center; aspect-ratio: 4 / 5; overflow: hidden; color: var(--soft);
  background: color-mix(in srgb, var(--line) 45%, transparent); font-size: .8rem; text-align: center }
.photo img { width: 100%; height: 100%; object-fit: contain; display: block; position: absolute; inset: 0 }
.photo:has(img) { position: relative }
.query { align-self: start; position: sticky; top: 1rem }
.query .photo { border-radius: 10px; margin-bottom: .6rem }
.hit { padding: .5rem .6rem .6rem }
.score { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; font-weight: 600 }
.score span { color: var(--soft); font-weight: 400 }
.bar { height: 4px; border-radius: 2px; background: var(--line); margin: .3rem 0 .4rem; overflow: hidden }
.bar i { display: block; height: 100%; background: var(--bar) }
.fact { font-size: .78rem; color: var(--soft); font-variant-numeric: tabular-nums }
.name { font-size: .78rem; line-height: 1.3; color: var(--soft); overflow-wrap: anywhere; display: -webkit-box;
  -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden }
@media (max-width: 40rem) { section { grid-template-columns: 1fr } .query { position: static }
  .query .photo { width: 11rem } }
@media print { .query { position: static }
  body { max-width: none; padding: 0; --paper: #fff; --card: #fff; --ink: #000; --soft: #444 }
  .name { -webkit-line-clamp: unset } .bar i, .warning { -webkit-print-color-adjust: exact; print-color-adjust: exact }
}
"""


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


def _page(gallery: Gallery, found: Answers) -> Iterator[str]:
    title = f"Search in {_safe(gallery.path.name)}"
    photograph = _Thumbnails(query_limits(gallery))
    yield (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'\">\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
        f"<p>{_count(len(found.answers), 'query', 'queries')} &middot; {found.rows:,} embeddings &middot; model "
        f"{_safe(found.made_by())} &middot; search {found.search_ms:,.1f} ms</p>\n"
    )
    if found.warning:
        yield f'<div class="warning" role="note">Warning: {_safe(found.warning)}</div>\n'
    if found.calibration is not None:
        yield f"<p>{_safe(found.calibration.explain())}</p>\n"
    yield "</header>\n<main>\n"
    for answer in found.answers:
        yield from _section(gallery, found, answer, photograph)
    yield "</main>\n</body>\n</html>\n"


def _section(gallery: Gallery, found: Answers, answer: Answer, photograph: _Thumbnails) -> Iterator[str]:
    picture = photograph.of(os.fsencode(answer.query), answer.face, "Query", answer.query)
    yield f'<section>\n<div class="query">\n{picture}<h2>{_safe(answer.query)}</h2>\n'
    if answer.error:
        yield f'<p class="error">{_safe(answer.error)}</p>\n</div>\n</section>\n'
        return
    choice = f"<p>{_safe(answer.choice)}</p>\n" if answer.choice else ""
    yield f"{choice}<p>{_count(len(answer.hits), 'hit', 'hits')}</p>\n</div>\n<ol>\n"
    for hit in answer.hits:
        expected = found.expected(hit.score)
        chance = "" if expected is None else f'<div class="fact">{_safe(str(expected))} false hits expected</div>'
        which = "" if hit.face is None else f'<div class="fact">face_index {hit.face.index}</div>'
        width = 100 * min(max(hit.score, 0.0), 1.0)
        yield (
            f"<li>{photograph.of(gallery.photograph(hit.row), hit.face, f'Hit {hit.rank}', hit.path)}"
            f'<div class="hit"><div class="score">{hit.score:.4f}<span>#{hit.rank}</span></div>'
            f'<div class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i></div>{chance}{which}'
            f'<div class="name" title="{_safe(hit.path)}">{_safe(hit.path)}</div></div></li>\n'
        )
    yield "</ol>\n</section>\n"


class _Thumbnails:
    """Pictures small enough to be carried in the page: of the face where it is known, else of the whole photograph."""

    def __init__(self, limits: Limits) -> None:
        self._cached = lru_cache(maxsize=256)(partial(thumbnail, limits=limits, side=_PICTURE_SIDE))

    def of(self, path: bytes, face: FacePlace | None, role: str, name: str) -> str:
        """The element of a photograph, or of a note that it cannot be shown."""
        data = self._cached(path, None if face is None else face.box)
        if data is None:
            return '<div class="photo">cannot be shown</div>\n'
        picture = f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
        return f'<div class="photo"><img src="{picture}" alt="{role}: {_safe(name)}"></div>\n'


def _safe(text: str) -> str:
    """Outside text for HTML: nothing in it is markup, nothing in it is hidden."""
    return html.escape(printable(text))


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
