"""Render the map as one HTML page: a figure, Plotly's script, and a box for the face under the mouse."""

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

# Okabe and Ito (2008): colour-blind readers can tell them apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_SHAPES = ("circle", "diamond", "cross")
_MAX_COLOURED = len(_COLOURS) * len(_SHAPES)  # groups
_GREY = "#8b8d98"
_MAX_NAME_LENGTH = 30  # characters in the legend
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "scrollZoom": True,
    "typesetMath": False,  # a name may contain dollar signs
    "modeBarButtons": [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
}


@dataclass(frozen=True, slots=True)
class Groups:
    """n points in G groups, the largest first. Each of the first 18 has its own colour and shape.

    Attributes:
        kind: "folder" or "cluster".
        origin: source of the groups, for people.
        labels: (n,) int64, the group of each point; -1 for none.
        names: G names, unescaped.
    """

    kind: str
    origin: str
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of points of each group, (G,) int64."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))


@dataclass(frozen=True, slots=True)
class MapPage:
    """n points and the text around them.

    Attributes:
        title: title of the page.
        facts: facts about the map.
        warning: warning about the embeddings; empty for none.
        positions: (n, 2) float32.
        groups: groups of the points.
        paths: n paths, unescaped.
        notes: n notes; empty for none.
        pictures: n JPEGs; None for a point without a picture.
    """

    title: str
    facts: Sequence[str]
    warning: str
    positions: NDArray[np.float32]
    groups: Groups
    paths: Sequence[str]
    notes: Sequence[str]
    pictures: Sequence[bytes | None]


def render_map(page: MapPage) -> str:
    """Render the page.

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
        data={"figure": figure_of(page.positions, page.groups), "points": _points(page)},
    )


def _points(page: MapPage) -> dict[str, Any]:
    """Return the content of each point's box."""
    groups = page.groups
    return {
        "path": [printable(path) for path in page.paths],
        "note": list(page.notes),
        "picture": ["" if jpeg is None else base64.b64encode(jpeg).decode("ascii") for jpeg in page.pictures],
        "group": groups.labels.tolist(),
        "groups": [
            f"{printable(name)} ({size:,})" for name, size in zip(groups.names, groups.sizes.tolist(), strict=True)
        ],
        "none": f"in no {groups.kind}",
    }


def figure_of(positions: NDArray[np.float32], groups: Groups) -> dict[str, Any]:
    """Return the argument of Plotly.newPlot.

    Args:
        positions: (n, 2) float32.
        groups: groups of the n points.
    Returns:
        Plain data. `customdata` of a point is its number, 0 to n - 1.
    """
    ring = {"size": _size(len(positions)) + 7, "symbol": "circle-open", "line": {"width": 2}}
    traces = [*_traces(positions, groups), _trace(positions, np.empty(0, np.int64), "", ring, showlegend=False)]
    return {"data": traces, "layout": _layout(), "config": CONFIG}


def _traces(positions: NDArray[np.float32], groups: Groups) -> Iterator[dict[str, Any]]:
    """Yield the grey traces first, so that they are drawn beneath the others. In the legend they come last."""
    size = _size(len(positions))
    rest = len(groups.names) - _MAX_COLOURED
    grey = {"size": size, "color": _GREY, "opacity": 0.45}
    ungrouped = np.flatnonzero(groups.labels < 0)
    if len(ungrouped):
        name = f"in no {groups.kind} ({len(ungrouped):,})"
        yield _trace(positions, ungrouped, name, {**grey, "symbol": "circle-open"}, legendrank=2002)
    uncoloured = np.flatnonzero(groups.labels >= _MAX_COLOURED)
    if len(uncoloured):
        name = f"{rest:,} other {groups.kind}{'' if rest == 1 else 's'} ({len(uncoloured):,})"
        yield _trace(positions, uncoloured, name, {**grey, "symbol": "circle"}, legendrank=2001)
    for number, (name, count) in enumerate(zip(groups.names[:_MAX_COLOURED], groups.sizes.tolist(), strict=False)):
        marker = {
            "size": size + 1.5,  # so that a few coloured points are visible among thousands of grey ones
            "color": _COLOURS[number % len(_COLOURS)],
            "symbol": _SHAPES[number // len(_COLOURS)],
            "opacity": 0.85,
        }
        yield _trace(positions, np.flatnonzero(groups.labels == number), f"{_label(name)} ({count:,})", marker)


def _trace(
    positions: NDArray[np.float32], points: NDArray[np.int64], name: str, marker: dict[str, Any], **more: Any
) -> dict[str, Any]:
    # Plotly's own hover box cannot show pictures, so it is off, and the page shows its box on the hover event.
    x, y = (np.round(positions[points, axis].astype(np.float64), 3).tolist() for axis in (0, 1))
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
    # Only neighbourhood has a meaning: no axes, and one scale for both.
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
    """Return the size of a point in pixels: 8 for a few hundred points, 4 for a few thousand."""
    return round(min(max(24.0 * math.pow(points, -0.2), 3.0), 10.0), 1)


def _label(name: str) -> str:
    """Return a name for the legend, escaped because Plotly renders some HTML there."""
    text = printable(name)
    short = text if len(text) <= _MAX_NAME_LENGTH else text[: _MAX_NAME_LENGTH - 1] + "\u2026"
    return html.escape(short, quote=False)
