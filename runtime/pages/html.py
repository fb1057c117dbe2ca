"""What facemill's pages have in common: their looks, their head, their pictures, and outside text made harmless.

A page needs no network and no other file: pictures are carried in it.
"""

from __future__ import annotations

import base64
import html
from functools import lru_cache, partial

from ..images.decode import Limits
from ..records import FacePlace
from ..text import printable
from .thumbnails import thumbnail

PICTURE_SIDE = 192  # pixels

STYLE = """
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
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(8.25rem, 1fr)); align-content: start }
li { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  break-inside: avoid }
.photo { display: grid; place-items: center; aspect-ratio: 4 / 5; overflow: hidden; color: var(--soft);
  background: color-mix(in srgb, var(--line) 45%, transparent); font-size: .8rem; text-align: center }
.photo img { width: 100%; height: 100%; object-fit: contain; display: block; position: absolute; inset: 0 }
.photo:has(img) { position: relative }
.hit { padding: .5rem .6rem .6rem }
.score { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; font-weight: 600 }
.score span { color: var(--soft); font-weight: 400 }
.bar { height: 4px; border-radius: 2px; background: var(--line); margin: .3rem 0 .4rem; overflow: hidden }
.bar i { display: block; height: 100%; background: var(--bar) }
.fact { font-size: .78rem; color: var(--soft); font-variant-numeric: tabular-nums }
.name { font-size: .78rem; line-height: 1.3; color: var(--soft); overflow-wrap: anywhere; display: -webkit-box;
  -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden }
"""


def page_head(title: str, style: str = STYLE, script: str = "") -> str:
    """From the doctype to `<body>`.

    Args:
        title: made harmless already.
        style: CSS.
        script: a source for the content security policy, such as `'sha256-...'`; empty where the page has no script.
    """
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'{f'; script-src {script}' if script else ''}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n</head>\n<body>\n'
    )


def warning_note(warning: str) -> str:
    """The element of a warning; nothing for none."""
    return f'<div class="warning" role="note">Warning: {safe(warning)}</div>\n' if warning else ""


def picture_of(data: bytes | None, name: str) -> str:
    """The element of a small JPEG, or of a note that there is none to be shown."""
    if data is None:
        return '<div class="photo">cannot be shown</div>\n'
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
    return f'<div class="photo"><img src="{source}" alt="{safe(name)}"></div>\n'


class Thumbnails:
    """Pictures small enough to be carried in the page: of the face where it is known, else of the whole photograph."""

    def __init__(self, limits: Limits) -> None:
        self._cached = lru_cache(maxsize=256)(partial(thumbnail, limits=limits, side=PICTURE_SIDE))

    def of(self, path: bytes, face: FacePlace | None, role: str, name: str) -> str:
        """The element of a photograph, or of a note that it cannot be shown."""
        return picture_of(self._cached(path, None if face is None else face.box), f"{role}: {name}")


def safe(text: str) -> str:
    """Outside text for HTML: nothing in it is markup, nothing in it is hidden."""
    return html.escape(printable(text))


def count(number: int, one: str, many: str) -> str:
    """`1 hit`, `2 hits`."""
    return f"{number:,} {one if number == 1 else many}"
