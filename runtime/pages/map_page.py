"""The map as one HTML page: a figure for Plotly, Plotly's script, and a box for the face that the mouse is on."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..text import printable
from .page import asset, render

# Okabe and Ito (2008), which colour-blind readers tell apart, and with the shapes there are enough of them.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_SHAPES = ("circle", "diamond", "cross")
_SHOWN = len(_COLOURS) * len(_SHAPES)
_GREY = "#8b8d98"
_NAME_LENGTH = 30  # letters in the legend
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "scrollZoom": True,
    "typesetMath": False,  # a name may hold dollars
    "modeBarButtons": [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
}


@dataclass(frozen=True, slots=True)
class Groups:
    """n points in G groups, the largest first; each of the first 18 has a colour of its own.

    Attributes:
        kind: "folder" or "cluster".
        origin: where the groups come from, for a person.
        of: (n,) int64, the group of each point; -1 for none.
        names: G names, as they are.
    """

    kind: str
    origin: str
    of: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(G,) int64, points of each group."""
        return np.bincount(self.of[self.of >= 0], minlength=len(self.names))


@dataclass(frozen=True, slots=True)
class MapPage:
    """n points and the text around them.

    Attributes:
        title: of the page.
        facts: what it shows, one fact each.
        warning: of the embeddings; empty for none.
        places: (n, 2) float32.
        groups: of the points.
        paths: n, as they are.
        notes: n, more on a point; empty for none.
        pictures: n JPEGs; None where there is none.
    """

    title: str
    facts: Sequence[str]
    warning: str
    places: NDArray[np.float32]
    groups: Groups
    paths: Sequence[str]
    notes: Sequence[str]
    pictures: Sequence[bytes | None]


def render_map(page: MapPage) -> str:
    """The page as text.

    Raises:
        MissingDependencyError: Plotly is not installed.
    """
    plotly: str = require("plotly.offline", extra="map", purpose="the page").get_plotlyjs()
    return render(
        "map",
        styles=["map"],
        scripts=[plotly, asset("map.js")],
        script_sources="'unsafe-eval'",  # Plotly writes code for its shaders
        image_sources="data: blob:",
        title=page.title,
        summary=page.facts,
        warning=page.warning,
        data={"figure": figure_of(page.places, page.groups), "points": _points(page)},
    )


def _points(page: MapPage) -> dict[str, Any]:
    """What the box shows of each point."""
    groups = page.groups
    return {
        "path": [printable(path) for path in page.paths],
        "note": list(page.notes),
        "picture": ["" if jpeg is None else base64.b64encode(jpeg).decode("ascii") for jpeg in page.pictures],
        "group": groups.of.tolist(),
        "groups": [
            f"{printable(name)} ({size:,})" for name, size in zip(groups.names, groups.sizes.tolist(), strict=True)
        ],
        "none": f"in no {groups.kind}",
    }


def figure_of(places: NDArray[np.float32], groups: Groups) -> dict[str, Any]:
    """What Plotly.newPlot takes.

    Args:
        places: (n, 2) float32.
        groups: of the n points.
    Returns:
        Plain data. `customdata` of a point is its number from 0 to n - 1.
    """
    marks = {"size": _size(len(places)) + 7, "symbol": "circle-open", "line": {"width": 2}}
    traces = [*_traces(places, groups), _trace(places, np.empty(0, np.int64), "", marks, showlegend=False)]
    return {"data": traces, "layout": _layout(), "config": CONFIG}


def _traces(places: NDArray[np.float32], groups: Groups) -> Iterator[dict[str, Any]]:
    """The grey ones first, beneath the others; in the legend they come last."""
    size = _size(len(places))
    rest = len(groups.names) - _SHOWN
    grey = {"size": size, "color": _GREY, "opacity": 0.45}
    none = np.flatnonzero(groups.of < 0)
    if len(none):
        name = f"in no {groups.kind} ({len(none):,})"
        yield _trace(places, none, name, {**grey, "symbol": "circle-open"}, legendrank=2002)
    other = np.flatnonzero(groups.of >= _SHOWN)
    if len(other):
        name = f"{rest:,} other {groups.kind}{'' if rest == 1 else 's'} ({len(other):,})"
        yield _trace(places, other, name, {**grey, "symbol": "circle"}, legendrank=2001)
    for number, (name, count) in enumerate(zip(groups.names[:_SHOWN], groups.sizes.tolist(), strict=False)):
        marker = {
            "size": size + 1.5,  # a few coloured points must show among thousands of grey ones
            "color": _COLOURS[number % len(_COLOURS)],
            "symbol": _SHAPES[number // len(_COLOURS)],
            "opacity": 0.85,
        }
        yield _trace(places, np.flatnonzero(groups.of == number), f"{_label(name)} ({count:,})", marker)


def _trace(
    places: NDArray[np.float32], points: NDArray[np.int64], name: str, marker: dict[str, Any], **more: Any
) -> dict[str, Any]:
    # What Plotly shows on hover has no picture: it shows nothing, and tells the page.
    x, y = (np.round(places[points, axis].astype(np.float64), 3).tolist() for axis in (0, 1))
    return {
        "type": "scattergl",
        "mode": "markers",
        "hoverinfo": "none",
        "x": x,
        "y": y,
        "customdata": points.tolist(),
        "name": name,
        "marker": marker,
        **more,
    }


def _layout() -> dict[str, Any]:
    # Only who is near whom means anything: no axes, and one scale for both.
    axis = {"visible": False, "zeroline": False, "showgrid": False}
    return {
        "xaxis": axis,
        "yaxis": {**axis, "scaleanchor": "x"},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "dragmode": "pan",
        "hovermode": "closest",
        "hoverdistance": 12,
        "showlegend": True,
        "legend": {"itemsizing": "constant", "y": 0.95},  # below the buttons
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": _GREY, "activecolor": _GREY},
    }


def _size(points: int) -> float:
    """Pixels of a point: 8 of a few hundred, 4 of a few thousand."""
    return round(min(max(24.0 * math.pow(points, -0.2), 3.0), 10.0), 1)


def _label(name: str) -> str:
    """A name for the legend, where Plotly takes some of HTML for markup."""
    text = printable(name)
    short = text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "\u2026"
    return html.escape(short, quote=False)
