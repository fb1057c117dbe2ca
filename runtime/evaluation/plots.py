"""Draw the curves as PNG. The colours are Okabe and Ito's (2008), which colour-blind readers can tell apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..metrics.curve import Curve
from .evaluate import Evaluation
from .tables import FOLDER_FARS

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK, _SOFT, _LINE = "#1c2024", "#60646c", "#e0e1e6"
_BINS_PER_UNIT = 50  # histogram bins from score 0 to 1
_LEGEND = {"borderaxespad": 0.0, "columnspacing": 1.4, "fontsize": 9, "handlelength": 1.8}
_STYLE = {
    "font.size": 10,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.color": _INK,
    "legend.frameon": False,
}


def draw_roc(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> bytes:
    """Draw the true accept rate over the false accept rate (logarithmic axis) as a PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="report", purpose="drawing")
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _figure(1, 7.2, 4.6)
        for i, (evaluation, label) in enumerate(zip(evaluations, labels, strict=True)):
            prefix = f"{label}: " if len(labels) > 1 else ""
            pairs_colour = _COLOURS[i % len(_COLOURS)]
            folder_colour = pairs_colour if len(labels) > 1 else _COLOURS[1]
            if evaluation.pairs is not None:
                _draw_curve(axes, evaluation.pairs.curve, pairs_colour, "-", f"{prefix}pairs of the pairs file")
            line = "--" if evaluation.pairs else "-"
            _draw_curve(axes, evaluation.curve, folder_colour, line, f"{prefix}all photos against each other")
        axes.set_xscale("log")
        axes.set_xlim(right=1)
        axes.set_ylim(top=1.005)
        axes.set_xlabel("false accept rate (impostor pairs accepted)")
        axes.set_ylabel("true accept rate (genuine pairs accepted)")
        axes.grid(color=_LINE, linewidth=0.8)
        if axes.lines:
            axes.legend(loc="best")
        else:
            axes.text(0.5, 0.5, "no genuine pair, or no impostor pair", transform=axes.transAxes, ha="center")
        return _png(figure)


def draw_scores(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> bytes:
    """Draw the distribution of genuine and impostor scores with the threshold, one panel per evaluation, as a PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="report", purpose="drawing")
    with matplotlib.rc_context(_STYLE):
        figure, panels = _figure(len(labels), 7.2, 3.4)
        spans = []
        for axes, evaluation, label in zip(panels, evaluations, labels, strict=True):
            curve = evaluation.curve if evaluation.pairs is None else evaluation.pairs.curve
            edges = np.arange(-_BINS_PER_UNIT, _BINS_PER_UNIT + 1) / _BINS_PER_UNIT
            for counts, total, colour, name in (
                (curve.false_accepts, curve.impostors, _COLOURS[1], "impostor pairs"),
                (curve.accepted, curve.genuine, _COLOURS[0], "genuine pairs"),
            ):
                if total:
                    shares = 100 * _histogram(curve, counts, edges) / total
                    axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35)
                    axes.stairs(shares, edges, color=colour, linewidth=1.4, label=f"{name} ({total:,})")
            threshold, threshold_label = _threshold(evaluation)
            axes.axvline(threshold, ymax=0.86, color=_INK, linewidth=1.2, linestyle=(0, (4, 2)), label=threshold_label)
            axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # room for the legend above the curves
            axes.set_xlabel("score (cosine of two embeddings)")
            axes.set_ylabel(f"% of pairs in {1 / _BINS_PER_UNIT:g}")
            axes.legend(loc="upper left", ncols=3, **_LEGEND).set_in_layout(False)
            spans.append(_span(curve))
            axes.set_title(label if len(labels) > 1 else "", loc="left", weight="bold")
        lows, highs = zip(*spans, strict=True)
        for axes in panels:  # one scale, so that panels can be compared
            axes.set_xlim(min(lows), max(highs))
        return _png(figure)


def _figure(panels: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """Create a figure without the global state of pyplot, and its axes, one below the other."""
    figure = require("matplotlib.figure", extra="report").Figure((width, height * panels), layout="constrained")
    return figure, list(figure.subplots(panels, squeeze=False)[:, 0])


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def _draw_curve(axes: Any, curve: Curve, colour: str, line: str, label: str) -> None:
    """Draw a ROC, with those points of the report that the number of pairs can show."""
    roc = curve.roc(400)
    if not roc["far"]:
        return
    # In steps: between two achievable false accept rates, the lower one applies.
    axes.plot(roc["far"], roc["tar"], color=colour, linestyle=line, linewidth=1.8, drawstyle="steps-post", label=label)
    points = [point for point in map(curve.at_far, FOLDER_FARS) if point is not None]
    axes.plot([p.far for p in points], [p.tar for p in points], "o", color=colour, markersize=4.5)


def _histogram(curve: Curve, at_least: NDArray[np.int64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count pairs from each edge to the next; a score of 1 falls into the last bin."""
    above = np.append(at_least, 0)[np.searchsorted(curve.thresholds, edges)]
    above[-1] = 0
    return np.asarray(above[:-1] - above[1:], np.int64)


def _threshold(evaluation: Evaluation) -> tuple[float, str]:
    """Return the threshold to draw, and its label."""
    if evaluation.pairs is not None:
        threshold = float(evaluation.pairs.folds.thresholds.mean())
        return threshold, f"threshold {threshold:.4f} (mean of folds)"
    for far in (1e-4, 1e-3, 1e-2):
        point = evaluation.curve.at_far(far)
        if point is not None:
            return point.threshold, f"threshold {point.threshold:.4f} (FAR {far:.0e})"
    threshold = evaluation.curve.above_all().threshold
    return threshold, f"threshold {threshold:.4f} (above all impostors)"


def _span(curve: Curve) -> tuple[float, float]:
    """Return the lowest and highest score, rounded outwards to tenths."""
    accepted, thresholds = curve.accepted + curve.false_accepts, curve.thresholds
    low, high = thresholds[accepted < accepted[0]][0], thresholds[accepted > 0][-1]
    return max(-1.0, float(np.floor(10 * low) / 10)), min(1.0, float(np.ceil(10 * high) / 10))
