#!/usr/bin/env python3
"""Draw the pictures of the documents: the five stages of a run, and the rooms of the code with their layers.

    python docs/draw.py          # write docs/assets/*.svg
    python docs/draw.py --check  # exit 1 if a picture is out of date

The rooms and their layers are read from the imports of the code, so that the picture cannot drift from it.
"""

from __future__ import annotations

import ast
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "runtime"
ASSETS = ROOT / "docs" / "assets"

STAGES = (
    ("scan", "folders and lists", "to an ordered list of paths"),
    ("decode", "JPEG, PNG, TIFF, WebP ...", "to upright pixels"),
    ("detect and align", "five landmarks", "to a 112 x 112 crop"),
    ("embed", "ONNX Runtime or TensorRT", "to a unit vector"),
    ("file and index", "HDF5 segments, FAISS", "to answers"),
)
# Rooms that a photo passes through, in order. The others serve them or ask questions.
JOURNEY = ("sources", "images", "faces", "engines", "storage", "index")

STYLE = """<style>
  .box { fill: #f4f7fb; stroke: #3b6ea5; stroke-width: 1.5 }
  .path { fill: #dcebdd; stroke: #3f7d48; stroke-width: 1.5 }
  .title { font: 600 16px system-ui, sans-serif; fill: #16324f }
  .text { font: 13px system-ui, sans-serif; fill: #37474f }
  .small { font: 12px system-ui, sans-serif; fill: #607080 }
  .arrow { stroke: #3b6ea5; stroke-width: 2; fill: none; marker-end: url(#head) }
  .back { fill: #ffffff }
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L10 5 L0 10 z" fill="#3b6ea5"/></marker></defs>"""


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n{STYLE}\n'
        f'<rect class="back" width="{width}" height="{height}" rx="8"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'


def _text(x: float, y: float, words: str, kind: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def stages() -> str:
    """The five stages of a run, left to right."""
    width, gap, top, height = 186, 34, 20, 96
    parts = []
    for number, (name, source, result) in enumerate(STAGES):
        x = 20 + number * (width + gap)
        middle = x + width / 2
        parts += [
            _box(x, top, width, height),
            _text(middle, top + 32, name, "title"),
            _text(middle, top + 58, source, "text"),
            _text(middle, top + 78, result, "text"),
        ]
        if number:
            parts.append(f'<path class="arrow" d="M{x - gap + 3} {top + height / 2} H{x - 3}"/>')
    note = (
        "Threads run all stages at once. Each stage hands over batches in the order of the scan. "
        "Segments make results durable."
    )
    total = 40 + len(STAGES) * width + (len(STAGES) - 1) * gap
    parts.append(_text(total / 2, top + height + 30, note, "small"))
    return _svg(total, top + height + 48, "The five stages of facemill process", parts)


def _room(path: Path) -> str:
    return path.relative_to(RUNTIME).with_suffix("").parts[0]


def imports() -> dict[str, set[str]]:
    """The rooms, and the rooms that each one imports."""
    rooms: dict[str, set[str]] = {}
    for path in sorted(RUNTIME.rglob("*.py")):
        parts = path.relative_to(RUNTIME).with_suffix("").parts
        here = rooms.setdefault(_room(path), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = parts[: len(parts) - node.level]
                target = [*base, *(node.module.split(".") if node.module else [])]
                here.update([target[0]] if target else [alias.name for alias in node.names])
    rooms.pop("__init__", None)
    return {room: {name for name in names if name in rooms and name != room} for room, names in rooms.items()}


def levels(rooms: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by level, the lowest first: a room lies one level above the highest room that it imports."""
    level: dict[str, int] = {}

    def of(room: str) -> int:
        if room not in level:
            level[room] = 1 + max((of(name) for name in rooms[room]), default=-1)
        return level[room]

    for room in rooms:
        of(room)
    return [sorted(room for room in rooms if level[room] == n) for n in range(max(level.values()) + 1)]


def house() -> str:
    """The rooms by level. A room imports rooms of lower levels only."""
    floors = levels(imports())
    floors.reverse()
    width, height, gap = 116, 40, 12
    widest = max(len(floor) for floor in floors)
    total = 40 + widest * (width + gap) - gap
    parts = [_text(total / 2, 30, "Imports point down. Green: the path of a photo.", "small")]
    for number, floor in enumerate(floors):
        y = 48 + number * (height + 18)
        left = (total - len(floor) * (width + gap) + gap) / 2
        for place, room in enumerate(floor):
            x = left + place * (width + gap)
            parts.append(_box(x, y, width, height, "path" if room in JOURNEY else "box"))
            parts.append(_text(x + width / 2, y + 25, room, "text"))
    return _svg(total, 48 + len(floors) * (height + 18), "The rooms of facemill and their layers", parts)


PICTURES = {"stages.svg": stages, "rooms.svg": house}


def main() -> None:
    stale = []
    for name, draw in PICTURES.items():
        path, picture = ASSETS / name, draw()
        if not path.exists() or path.read_text(encoding="utf-8") != picture:
            stale.append(name)
            if "--check" not in sys.argv:
                ASSETS.mkdir(exist_ok=True)
                path.write_text(picture, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"out of date: {', '.join(stale)}. Run: python docs/draw.py")


if __name__ == "__main__":
    main()
