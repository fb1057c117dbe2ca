"""The map as one HTML page: the figure, Plotly's script, and a box with the photograph that is pointed at."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..text import printable
from .map_figure import figure_of
from .map_groups import Groups

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fcfcfd; --card: #fff; --line: #e0e1e6;
  --warn: #fff3d6; --warn-ink: #6b4a00 }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #b0b4ba; --paper: #111113; --card: #18191b;
  --line: #363a3f; --warn: #3a2a00; --warn-ink: #ffd98a } }
* { box-sizing: border-box }
body { margin: 0; height: 100vh; padding: 1rem 1.25rem .75rem; display: flex; flex-direction: column;
  background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, "Segoe UI", "Noto Sans", sans-serif }
h1 { font-size: 1.35rem; margin: 0 0 .15rem; overflow-wrap: anywhere }
p { margin: 0; color: var(--soft) }
footer { font-size: .8rem; color: var(--soft) }
.warning { margin: .5rem 0 0; padding: .5rem .75rem; border-radius: 8px; background: var(--warn);
  color: var(--warn-ink); font-weight: 600 }
#map { flex: 1; min-height: 24rem; margin: .5rem 0 }
#box { position: fixed; z-index: 9; max-width: 17rem; padding: .6rem; border: 1px solid var(--line);
  border-radius: 10px; background: var(--card); box-shadow: 0 4px 18px rgb(0 0 0 / .18); font-size: .82rem;
  line-height: 1.35; pointer-events: none }
#box[hidden] { display: none }
#box.held { pointer-events: auto; border-color: var(--ink) }
#box img { display: block; min-height: 88px; border-radius: 6px; margin-bottom: .4rem }
#path { overflow-wrap: anywhere }
#more { color: var(--soft) }
"""

# Text goes in by textContent only, so that no name is ever markup.
_SCRIPT = """
"use strict";
const { figure, points } = JSON.parse(document.getElementById("data").textContent);
const [map, box, picture, path, more] =
  ["map", "box", "picture", "path", "more"].map((id) => document.getElementById(id));
const ink = getComputedStyle(document.body).color;
const marks = figure.data.length - 1;
const members = new Map();  // of each group: the places of its points
for (const trace of figure.data.slice(0, marks)) {
  trace.customdata.forEach((point, i) => {
    const group = points.group[point];
    if (!members.has(group)) members.set(group, { x: [], y: [] });
    members.get(group).x.push(trace.x[i]);
    members.get(group).y.push(trace.y[i]);
  });
}
let held = false;

function show({ event, points: [{ x, y, customdata: point }] }) {
  const data = points.picture[point];
  const group = points.group[point];
  picture.hidden = !data;
  picture.src = data ? "data:image/jpeg;base64," + data : "";
  path.textContent = points.path[point];
  more.textContent = [points.groups[group] ?? points.none, points.note[point]].filter(Boolean).join(", ");
  box.hidden = false;
  const right = event.clientX + 16 + box.offsetWidth < innerWidth;
  box.style.left = Math.max(4, right ? event.clientX + 16 : event.clientX - 16 - box.offsetWidth) + "px";
  box.style.top = Math.max(4, Math.min(event.clientY - 20, innerHeight - box.offsetHeight - 8)) + "px";
  mark(group >= 0 ? members.get(group) : { x: [x], y: [y] });
}

function hide() {
  held = false;
  box.hidden = true;
  box.classList.remove("held");
  mark({ x: [], y: [] });
}

function mark({ x, y }) {
  Plotly.restyle(map, { x: [x], y: [y] }, [marks]);
}

figure.layout.font = { color: ink, family: getComputedStyle(document.body).fontFamily };
figure.data[marks].marker.color = ink;
if (innerWidth < 700) Object.assign(figure.layout.legend, { orientation: "h", y: 0 });
Plotly.newPlot(map, figure.data, figure.layout, figure.config).then(() => {
  map.on("plotly_hover", (pointed) => held || show(pointed));
  map.on("plotly_unhover", () => held || hide());
  map.on("plotly_click", (pointed) => {
    show(pointed);
    held = true;
    box.classList.add("held");
  });
  addEventListener("keydown", ({ key }) => key === "Escape" && hide());
  addEventListener("pointerdown", ({ target }) => held && !box.contains(target) && hide());
});
"""
_NOTE = (
    "Faces that lie close together are alike. How far apart groups are, how large and how dense, means nothing: a map "
    "keeps neighbours, not distances. Scroll to zoom, drag to move, click a point to hold its box, a name to hide it."
)


@dataclass(frozen=True, slots=True)
class Map:
    """n points and what is said of them.

    Attributes:
        title: of the page.
        facts: what it shows, in a line.
        warning: of the embeddings; empty for none.
        places: (n, 2) float32.
        groups: of the points.
        paths: n, as they are.
        notes: n, more on a point; empty for none.
        pictures: n JPEGs; None where there is none.
    """

    title: str
    facts: str
    warning: str
    places: NDArray[np.float32]
    groups: Groups
    paths: Sequence[str]
    notes: Sequence[str]
    pictures: Sequence[bytes | None]


def page_of(found: Map) -> str:
    """The page; it needs no network and no other file, and may reach none.

    Raises:
        MissingDependencyError: Plotly is not installed.
    """
    plotly: str = require("plotly.offline", extra="map", purpose="the page").get_plotlyjs()
    warning = f'<div class="warning" role="note">Warning: {_safe(found.warning)}</div>\n' if found.warning else ""
    # Only these two scripts run, whatever else might be in the page. 'unsafe-eval': Plotly writes code for its shaders.
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src 'unsafe-eval' {_digest(plotly)} {_digest(_SCRIPT)}"
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_safe(found.title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<header>\n<h1>{_safe(found.title)}</h1>\n<p>{_safe(found.facts)}</p>\n{warning}</header>\n"
        '<main id="map"></main>\n<div id="box" hidden><img id="picture" alt=""><div id="path"></div>'
        f'<div id="more"></div></div>\n<footer>{_NOTE}</footer>\n'
        f'<script type="application/json" id="data">{_data(found)}</script>\n'
        f"<script>{plotly}</script>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _data(found: Map) -> str:
    """JSON that ends no script element: ASCII, and nothing in it opens a tag."""
    points: dict[str, Any] = {
        "path": [printable(path) for path in found.paths],
        "note": list(found.notes),
        "picture": ["" if jpeg is None else base64.b64encode(jpeg).decode("ascii") for jpeg in found.pictures],
        "group": found.groups.of.tolist(),
        "groups": [
            f"{printable(name)} ({size:,})"
            for name, size in zip(found.groups.names, found.groups.sizes.tolist(), strict=True)
        ],
        "none": f"in no {found.groups.kind}",
    }
    text = json.dumps({"figure": figure_of(found.places, found.groups), "points": points}, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _digest(script: str) -> str:
    """What a Content-Security-Policy calls a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"


def _safe(text: str) -> str:
    """Outside text for HTML: nothing in it is markup, nothing in it is hidden."""
    return html.escape(printable(text))
