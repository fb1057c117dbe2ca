"""Write a comparison of two photos as one HTML page, without scripts."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ..images.decode import Limits
from ..search.compare import Comparison
from .page import check_page_path, render, save_page
from .thumbnails import Thumbnails

_VERDICTS = {"same": "One person", "different": "Two people", "unknown": "No verdict: no threshold is known"}

logger = logging.getLogger(__name__)


def write_comparison(
    path: Path, comparison: Comparison, limits: Limits, file: Path | None, *, force: bool = False
) -> None:
    """Write the page atomically.

    Args:
        path: ends in .html.
        comparison: a comparison with both photos embedded.
        limits: limits of the photos.
        file: the embedding file that gave the model and rules; None for none.
        force: replace an existing file.
    Raises:
        ConfigError: the name does not end in .html, or the folder does not exist.
        OutputExistsError: the page exists and `force` is false.
        StorageError: the page cannot be written; an existing file is unchanged.
    """
    check_page_path(path, force=force)
    save_page(path, _page(comparison, limits), file)
    logger.info("page: %s", path)


def _page(comparison: Comparison, limits: Limits) -> str:
    assert comparison.score is not None
    pictures = Thumbnails(limits)
    rate, threshold = comparison.false_match_rate, comparison.threshold.value
    return render(
        "compare",
        styles=["compare"],
        title="Comparison of two photos",
        heading=_VERDICTS[comparison.verdict],
        verdict=comparison.verdict,
        warning=comparison.warning,
        sides=[
            {
                "letter": letter,
                "path": photo.photo,
                "picture": pictures.of(os.fsencode(photo.photo), photo.face),
                "choice": photo.choice,
            }
            for letter, photo in zip("AB", comparison.photographs, strict=True)
        ],
        score_percent=_percent(comparison.score),
        threshold_percent=None if threshold is None else _percent(threshold),
        rows=[
            ("Score", f"{comparison.score:.4f}", "cosine of the two embeddings, from -1 to 1"),
            ("Threshold", "unknown" if threshold is None else f"{threshold:.4f}", comparison.threshold.origin),
            (
                "False match rate",
                "unknown" if rate is None else str(rate),
                comparison.explain_rate() or "no calibration",
            ),
            ("Model", comparison.model, f"sha256 {comparison.model_sha256}"),
        ],
    )


def _percent(score: float) -> float:
    """Return a score as per cent of 0 to 1, clipped."""
    return 100 * min(max(score, 0.0), 1.0)
