"""A page for a reviewer: pairs side by side, and yes or no to each, kept by the browser and saved as CSV."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..files import write_durable
from ..pairs.table import PairRow, PairTable
from ..search.embedder import query_limits
from ..search.model_label import made_by, warning_of
from ..storage.derived import recording
from ..storage.file import EmbeddingFile
from .html import STYLE, Thumbnails, count, page_head, safe, warning_note

_STYLE = (
    STYLE
    + """
.bench { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
  margin: 1rem -1.25rem; padding: .6rem 1.25rem; background: var(--paper); border-bottom: 1px solid var(--line) }
.bench output { font-weight: 600; font-variant-numeric: tabular-nums; margin-right: auto }
.bench label { display: inline-flex; gap: .4rem; align-items: center }
button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .3rem .8rem; cursor: pointer }
button:hover { border-color: var(--bar) }
button:focus-visible { outline: 2px solid var(--bar); outline-offset: 1px }
kbd { font: inherit; font-size: .8rem; padding: 0 .35rem; border: 1px solid var(--line); border-radius: 4px }
.pairs { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)) }
.pair { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  scroll-margin: 5rem 0 1rem; break-inside: avoid; display: flex; flex-direction: column }
.pair[hidden] { display: none }
.pair.here { outline: 3px solid var(--bar) }
.two { flex: 1; display: grid; grid-template-columns: 1fr 1fr; gap: 1px; background: var(--line) }
.two > div { background: var(--card); min-width: 0 }
.two .name { margin: .4rem .6rem }
.photo { aspect-ratio: 1 }
.say { display: flex; gap: .5rem; align-items: center; padding: .5rem .6rem; border-top: 1px solid var(--line) }
.say div { margin-right: auto }
.pair[data-same=yes] .yes { background: #18794e; border-color: #18794e; color: #fff }
.pair[data-same=no] .no { background: #c62a2f; border-color: #c62a2f; color: #fff }
@media print { .bench { position: static }
  .say button { -webkit-print-color-adjust: exact; print-color-adjust: exact } }
"""
)

# No name is ever markup: the pairs are in the page already, and the saved text is data.
_SCRIPT = """
"use strict";
const { key, file, pairs } = JSON.parse(document.getElementById("data").textContent);
const cards = [...document.querySelectorAll(".pair")];
const [counter, undecided, save, none] =
  ["counter", "undecided", "save", "none"].map((id) => document.getElementById(id));
let same = load();
let here = Math.max(0, same.indexOf(""));
let kept = true;
let unsaved = false;

function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(key));
    if (Array.isArray(stored) && stored.length === pairs.length) {
      return stored.map((answer) => (answer === "yes" || answer === "no" ? answer : ""));
    }
  } catch {}
  return pairs.map(() => "");
}

function keep() {
  try {
    localStorage.setItem(key, JSON.stringify(same));
  } catch {
    kept = false;
  }
}

function show() {
  cards.forEach((card, i) => {
    card.dataset.same = same[i];
    card.classList.toggle("here", i === here);
    card.hidden = undecided.checked && same[i] !== "" && i !== here;
    card.querySelector(".yes").setAttribute("aria-pressed", same[i] === "yes");
    card.querySelector(".no").setAttribute("aria-pressed", same[i] === "no");
  });
  const [yes, no] = ["yes", "no"].map((answer) => same.filter((one) => one === answer).length);
  counter.textContent = `${yes + no} of ${pairs.length} decided: ${yes} yes, ${no} no`;
  none.hidden = !(undecided.checked && yes + no === pairs.length);
}

function go(to) {
  if (!cards.length) return;
  here = Math.min(Math.max(to, 0), cards.length - 1);
  show();
  cards[here].scrollIntoView({ block: "nearest" });
}

function step(by) {
  let to = here + by;
  while (undecided.checked && same[to]) to += by;
  if (to >= 0 && to < cards.length) go(to);
}

function decide(place, answer) {
  if (!cards.length) return;
  same[place] = answer;
  unsaved = true;
  keep();
  here = place;
  show();
  if (answer) step(1);
}

function csv() {
  const quoted = (value) => '"' + String(value).replaceAll('"', '""') + '"';
  const lines = pairs.flatMap(([a, b, score, rowA, rowB], i) =>
    same[i] ? [[quoted(a), quoted(b), score, same[i], rowA, rowB].join(",")] : []);
  return ["path_a,path_b,score,same,row_a,row_b", ...lines, ""].join("\\n");
}

cards.forEach((card, i) => {
  card.querySelector(".yes").addEventListener("click", () => decide(i, same[i] === "yes" ? "" : "yes"));
  card.querySelector(".no").addEventListener("click", () => decide(i, same[i] === "no" ? "" : "no"));
  card.addEventListener("pointerdown", () => { here = i; show(); });
});
undecided.addEventListener("change", () => { show(); if (same[here]) step(1); });
save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  unsaved = false;
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {
    y: () => decide(here, "yes"), n: () => decide(here, "no"), u: () => decide(here, ""),
    ArrowRight: () => step(1), ArrowDown: () => step(1), ArrowLeft: () => step(-1), ArrowUp: () => step(-1),
  }[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
addEventListener("beforeunload", (event) => { if (unsaved && !kept) event.preventDefault(); });
show();
"""


def review_page(gallery: EmbeddingFile, table: PairTable, method: str, threshold: float, most: int) -> str:
    """The page; it needs no network and no other file. To make it, photographs are read.

    Args:
        gallery: the file that was searched.
        table: its pairs.
        method: how it was searched.
        threshold: the lowest score.
        most: pairs on the page at most: the best.
    """
    return "".join(_page(gallery, table, method, threshold, list(table.rows(0, most))))


def write_review(path: Path, gallery: EmbeddingFile, text: str) -> None:
    """Write the page, whole or not at all.

    Args:
        path: replaced.
        gallery: the file that was searched.
        text: of `review_page`.
    Raises:
        StorageError: an existing file stays.
    """
    with recording(gallery.path, path):
        write_durable(path, text.encode("utf-8", "backslashreplace"), "the page")


def _page(
    gallery: EmbeddingFile, table: PairTable, method: str, threshold: float, pairs: Sequence[PairRow]
) -> Iterator[str]:
    title = f"Pairs in {safe(gallery.path.name)}"
    expected = table.expected(threshold)
    chance = "" if expected is None else f" &middot; {safe(str(expected))} false pairs expected at the threshold"
    yield page_head(title, _STYLE, f"'sha256-{_digest(_SCRIPT)}'")
    yield (
        f"<header>\n<h1>{title}</h1>\n"
        f"<p>{_how_many(len(pairs), len(table.found))} at {threshold:.6g} or above &middot; "
        f"{gallery.rows:,} embeddings{chance} &middot; model {safe(made_by(gallery))}</p>\n<p>{safe(method)}</p>\n"
        f"{warning_note(warning_of(gallery))}"
        "<p>Is it one person? <kbd>y</kbd> yes, <kbd>n</kbd> no, <kbd>u</kbd> take back, arrow keys: another pair. The "
        "browser keeps the answers; save them to a file when you are done.</p>\n</header>\n"
        '<div class="bench"><output id="counter"></output>'
        '<label><input type="checkbox" id="undecided">only undecided</label>'
        '<button id="save">Save decisions (CSV)</button></div>\n'
        '<p id="none" hidden>All pairs on this page are decided.</p>\n<main class="pairs">\n'
    )
    photograph = Thumbnails(query_limits(gallery))
    for pair in pairs:
        yield from _card(gallery, pair, photograph)
    yield f'</main>\n<script type="application/json" id="data">{_data(gallery, pairs)}</script>\n'
    yield f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _how_many(shown: int, found: int) -> str:
    if shown < found:
        return f"The best {shown:,} of {found:,} pairs"
    return count(found, "pair", "pairs") if found else "No pair"


def _card(gallery: EmbeddingFile, pair: PairRow, photograph: Thumbnails) -> Iterator[str]:
    yield '<article class="pair">\n<div class="two">\n'
    for row, path, face in zip(pair.rows, pair.paths, gallery.face_places(pair.rows), strict=True):
        picture = photograph.of(gallery.photo_path(row), face, "Photograph", path)
        which = f" (face_index {face.index})" if face is not None and face.index else ""
        yield f'<div>{picture}<div class="name" title="{safe(path)}">{safe(path)}{which}</div></div>\n'
    chance = "" if pair.expected is None else f'<div class="fact">{safe(str(pair.expected))} false pairs expected</div>'
    yield (
        f'</div>\n<div class="say"><div><b>{pair.score:.4f}</b>{chance}</div>'
        '<button class="yes">Yes</button><button class="no">No</button></div>\n</article>\n'
    )


def _data(gallery: EmbeddingFile, pairs: Sequence[PairRow]) -> str:
    """JSON that ends no script element: ASCII, and nothing in it opens a tag. Answers are kept under its digest."""
    content = [[*pair.paths, f"{pair.score:.6f}", *pair.rows] for pair in pairs]
    key = f"facemill-pairs-{_digest(json.dumps([gallery.source['run_id'], content]))}"
    data = {"key": key, "file": f"{gallery.path.stem}-decisions.csv", "pairs": content}
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
