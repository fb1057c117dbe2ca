"""Write a review page: pairs side by side, with yes or no to each. The browser keeps the answers and saves a CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..pairs.outputs import Ready
from ..pairs.table import Pair, PairTable
from ..pipeline.contract import limits_of
from ..search.model_label import file_model_label, model_warning
from ..storage.derived import derived_file
from ..storage.file import EmbeddingFile
from .page import asset, count, digest, encode, render
from .thumbnails import Thumbnails


def review_page(
    embeddings: EmbeddingFile,
    table: PairTable,
    method: str,
    threshold: float,
    max_pairs: int,
    *,
    csv_safe: bool = False,
) -> str:
    """Render the page. Reads the photos.

    Args:
        embeddings: the file that was searched.
        table: its pairs.
        method: method of the search, for people.
        threshold: lowest score of a pair.
        max_pairs: most pairs on the page, the best ones.
        csv_safe: whether the CSV of the page holds no text that a spreadsheet takes for a formula.
    """
    pairs = list(table.rows(0, max_pairs))
    expected = table.expected(threshold)
    pictures = Thumbnails(limits_of(embeddings.contract))
    return render(
        "pairs",
        styles=["pairs"],
        scripts=[asset("pairs.js")],
        title=f"Pairs in {embeddings.path.name}",
        warning=model_warning(embeddings),
        summary=[
            f"{_count_text(len(pairs), len(table.pairs))} at {threshold:.6g} or above",
            f"{embeddings.rows:,} embeddings",
            "" if expected is None else f"{expected} false pairs expected at the threshold",
            f"model {file_model_label(embeddings)}",
        ],
        method=method,
        pairs=[_card(embeddings, pair, pictures) for pair in pairs],
        data={**_data(embeddings, pairs), "safe": csv_safe},
    )


def write_review(path: Path, embeddings: EmbeddingFile, text: str, *, ready: Ready = lambda status: None) -> None:
    """Write the page atomically.

    Args:
        path: replaced if it exists.
        embeddings: the file that was searched.
        text: the page, from `review_page`.
        ready: see `storage.derived.derived_file`.
    Raises:
        StorageError: the page cannot be written; an existing file is unchanged.
    """
    with derived_file(embeddings, path, "the page", ready=ready) as file:
        file.write(encode(text))


def _count_text(shown: int, total: int) -> str:
    if shown < total:
        return f"The best {shown:,} of {total:,} pairs"
    return count(total, "pair", "pairs") if total else "No pairs"


def _card(embeddings: EmbeddingFile, pair: Pair, pictures: Thumbnails) -> dict[str, Any]:
    """Return a pair for the template."""
    faces = embeddings.face_places(pair.rows)
    return {
        "score": pair.score,
        "expected": "" if pair.expected is None else str(pair.expected),
        "sides": [
            {
                "path": path,
                "picture": pictures.of(embeddings.photo_path(row), face),
                "face": f" ({face})" if face is not None and (face.index or face.page) else "",
            }
            for row, path, face in zip(pair.rows, pair.paths, faces, strict=True)
        ],
    }


def _data(embeddings: EmbeddingFile, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the data of the script. The browser stores the answers under a digest of the pairs and the run."""
    content = [[*pair.paths, f"{pair.score:.6f}", *pair.rows, *(pair.pages or ())] for pair in pairs]
    key = f"facemill-pairs-{digest(json.dumps([embeddings.source['run_id'], content]))}"
    return {"key": key, "file": f"{embeddings.path.stem}-decisions.csv", "pairs": content}
