"""A comparison of two photographs as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from ..files import write_durable
from ..images.decode import Limits
from ..search.compare import Comparison
from ..storage.derived import recording
from .html import STYLE, Thumbnails, page_head, safe, warning_note
from .search_page import check_page_path

_VERDICTS = {"same": "One person", "different": "Two people", "unknown": "No verdict: no threshold is known"}
_STYLE = (
    STYLE
    + """
body { max-width: 44rem }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin: 1.25rem 0 }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden }
figcaption { padding: .5rem .6rem .6rem; font-size: .85rem; overflow-wrap: anywhere }
.scale { position: relative; height: 10px; border-radius: 5px; background: var(--line); margin: .5rem 0 1.25rem }
.scale i { position: absolute; inset: 0 auto 0 0; border-radius: 5px; background: var(--bar) }
.scale b { position: absolute; top: -4px; bottom: -4px; width: 2px; background: var(--ink) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-top: 1px solid var(--line) }
th { font-weight: 600; white-space: nowrap } td span { display: block; color: var(--soft); font-size: .85rem }
td { overflow-wrap: anywhere }
@media print { body { padding: 0; --paper: #fff; --card: #fff; --ink: #000; --soft: #444 }
  .scale, .scale i, .scale b, .warning { -webkit-print-color-adjust: exact; print-color-adjust: exact } }
"""
)


def write_comparison(path: Path, found: Comparison, limits: Limits, file: Path | None, *, force: bool = False) -> None:
    """Write the page, whole or not at all.

    Args:
        path: ends in .html.
        found: both photographs embedded.
        limits: for the photographs.
        file: the embedding file that they were compared for: whoever removes a person from it must find the page.
        force: replace an existing file.
    Raises:
        ConfigError, OutputExistsError, StorageError: as their messages say; an existing file stays.
    """
    check_page_path(path, force=force)
    with nullcontext() if file is None else recording(file, path):
        write_durable(path, "".join(_page(found, limits)).encode("utf-8", "backslashreplace"), "the page")


def _page(found: Comparison, limits: Limits) -> Iterator[str]:
    assert found.score is not None
    photograph = Thumbnails(limits)
    yield page_head("Comparison of two photographs", _STYLE)
    yield f"<header>\n<h1>{_VERDICTS[found.verdict]}</h1>\n<p>Comparison of two photographs</p>\n"
    yield warning_note(found.warning)
    yield '</header>\n<main>\n<div class="pair">\n'
    for name, one in zip("AB", found.photographs, strict=True):
        picture = photograph.of(os.fsencode(one.query), one.face, f"Photograph {name}", one.query)
        choice = f"<br>{safe(one.choice)}" if one.choice else ""
        yield f"<figure>{picture}<figcaption>{safe(one.query)}{choice}</figcaption></figure>\n"
    yield "</div>\n"
    mark = "" if found.threshold.value is None else f'<b style="left:{_percent(found.threshold.value):.1f}%"></b>'
    yield f'<div class="scale" aria-hidden="true"><i style="width:{_percent(found.score):.1f}%"></i>{mark}</div>\n'
    rate, threshold = found.false_match_rate, found.threshold.value
    yield "<table>\n"
    yield _row("Score", f"{found.score:.4f}", "cosine of the two embeddings, from -1 to 1")
    yield _row("Threshold", "unknown" if threshold is None else f"{threshold:.4f}", found.threshold.origin)
    yield _row("False match rate", "unknown" if rate is None else str(rate), found.explain_rate() or "no calibration")
    yield _row("Model", found.model, f"sha256 {found.model_sha256}")
    yield "</table>\n</main>\n</body>\n</html>\n"


def _row(name: str, value: str, words: str) -> str:
    return f'<tr><th scope="row">{name}</th><td>{safe(value)}<span>{safe(words)}</span></td></tr>\n'


def _percent(score: float) -> float:
    """Where a score lies between 0 and 1."""
    return 100 * min(max(score, 0.0), 1.0)
