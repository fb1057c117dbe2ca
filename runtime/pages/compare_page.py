"""A comparison of two photos as one HTML page, without a script."""

from __future__ import annotations

import os
from pathlib import Path

from ..images.decode import Limits
from ..search.compare import Comparison
from .page import check_page_path, render, save_page
from .thumbnails import Thumbnails

_VERDICTS = {"same": "One person", "different": "Two people", "unknown": "No verdict: no threshold is known"}


def write_comparison(path: Path, found: Comparison, limits: Limits, file: Path | None, *, force: bool = False) -> None:
    """Write the page, whole or not at all.

    Args:
        path: ends in .html.
        found: both photos embedded.
        limits: for the photos.
        file: the embedding file whose model and rules were used; None for none.
        force: replace an existing file.
    Raises:
        ConfigError: `path` is no place for a page.
        OutputExistsError: the page exists, and `force` is not given.
        StorageError: the page cannot be written; an existing file stays.
    """
    check_page_path(path, force=force)
    save_page(path, _page(found, limits), file)


def _page(found: Comparison, limits: Limits) -> str:
    assert found.score is not None
    pictures = Thumbnails(limits)
    rate, threshold = found.false_match_rate, found.threshold.value
    return render(
        "compare",
        styles=["compare"],
        title="Comparison of two photos",
        heading=_VERDICTS[found.verdict],
        verdict=found.verdict,
        warning=found.warning,
        sides=[
            {
                "letter": letter,
                "path": photo.photo,
                "picture": pictures.of(os.fsencode(photo.photo), photo.face),
                "choice": photo.choice,
            }
            for letter, photo in zip("AB", found.photographs, strict=True)
        ],
        score_percent=_percent(found.score),
        threshold_percent=None if threshold is None else _percent(threshold),
        rows=[
            ("Score", f"{found.score:.4f}", "cosine of the two embeddings, from -1 to 1"),
            ("Threshold", "unknown" if threshold is None else f"{threshold:.4f}", found.threshold.origin),
            ("False match rate", "unknown" if rate is None else str(rate), found.explain_rate() or "no calibration"),
            ("Model", found.model, f"sha256 {found.model_sha256}"),
        ],
    )


def _percent(score: float) -> float:
    """Where a score lies between 0 and 1."""
    return 100 * min(max(score, 0.0), 1.0)
