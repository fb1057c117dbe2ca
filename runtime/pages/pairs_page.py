"""A page for a reviewer: pairs side by side, and yes or no to each, kept by the browser and saved as CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..pairs.table import Pair, PairTable
from ..pipeline.contract import limits_of
from ..search.model_label import file_model_label, model_warning
from ..storage.file import EmbeddingFile
from .page import asset, count, digest, render, save_page
from .thumbnails import Thumbnails


def review_page(gallery: EmbeddingFile, table: PairTable, method: str, threshold: float, most: int) -> str:
    """The page as text. Photos are read to make it.

    Args:
        gallery: the file that was searched.
        table: its pairs.
        method: how it was searched.
        threshold: the lowest score.
        most: pairs on the page at most: the best.
    """
    pairs = list(table.rows(0, most))
    expected = table.expected(threshold)
    pictures = Thumbnails(limits_of(gallery.contract))
    return render(
        "pairs",
        styles=["pairs"],
        scripts=[asset("pairs.js")],
        title=f"Pairs in {gallery.path.name}",
        warning=model_warning(gallery),
        summary=[
            f"{_how_many(len(pairs), len(table.pairs))} at {threshold:.6g} or above",
            f"{gallery.rows:,} embeddings",
            "" if expected is None else f"{expected} false pairs expected at the threshold",
            f"model {file_model_label(gallery)}",
        ],
        method=method,
        pairs=[_card(gallery, pair, pictures) for pair in pairs],
        data=_data(gallery, pairs),
    )


def write_review(path: Path, gallery: EmbeddingFile, text: str) -> None:
    """Write the page, whole or not at all.

    Args:
        path: replaced.
        gallery: the file that was searched.
        text: of `review_page`.
    Raises:
        StorageError: an existing file stays.
    """
    save_page(path, text, gallery.path)


def _how_many(shown: int, found: int) -> str:
    if shown < found:
        return f"The best {shown:,} of {found:,} pairs"
    return count(found, "pair", "pairs") if found else "No pair"


def _card(gallery: EmbeddingFile, pair: Pair, pictures: Thumbnails) -> dict[str, Any]:
    """A pair, for the template."""
    faces = gallery.face_places(pair.rows)
    return {
        "score": pair.score,
        "expected": "" if pair.expected is None else str(pair.expected),
        "sides": [
            {
                "path": path,
                "picture": pictures.of(gallery.photo_path(row), face),
                "face": f" (face_index {face.index})" if face is not None and face.index else "",
            }
            for row, path, face in zip(pair.rows, pair.paths, faces, strict=True)
        ],
    }


def _data(gallery: EmbeddingFile, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What the script needs. The browser keeps the answers under a digest of the pairs and of the run."""
    content = [[*pair.paths, f"{pair.score:.6f}", *pair.rows] for pair in pairs]
    key = f"facemill-pairs-{digest(json.dumps([gallery.source['run_id'], content]))}"
    return {"key": key, "file": f"{gallery.path.stem}-decisions.csv", "pairs": content}
