"""`<file>.faiss-<kind>`: the codes of an approximate index, with a sidecar that holds its recall and latency.

The file is derived data: if anything is wrong with it, it is rebuilt. FAISS reads it only after its size, origin and
content were checked.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FacemillError, StorageError
from ..extras import require
from ..fetch import sha256_of
from ..files import NewFile
from ..progress import track
from ..storage.file import EmbeddingFile
from ..storage.nearby import IDENTITY
from .indexfile import index_path
from .kinds import sample_size, train
from .measure import Measured, tune
from .rerank import ExactRows, Reranked, faiss_threads
from .sidecar import amend_card, is_unchanged, read_card, read_own_card, remove_foreign, write_card

# Increase this when the way to make the codes changes: older codes are then rebuilt.
RECIPE = 1
# A measurement for this many hits also serves fewer hits.
_MIN_MEASURED_HITS = 50
# Below, one thread builds the index.
_MIN_THREADED_ROWS = 20_000
_SEED = 3

logger = logging.getLogger(__name__)


def codes_path(gallery: Path, kind: str) -> Path:
    """`people.h5` -> `people.h5.faiss-ivf`."""
    path = index_path(gallery)
    return path.with_name(f"{path.name}-{kind}")


def ensure_codes(gallery: EmbeddingFile, kind: str, k: int, exact: ExactRows) -> tuple[Any, dict[str, int], Measured]:
    """Open the index of a kind. Build it if no valid one exists; measure it if it was not for k hits.

    Args:
        gallery: an open embedding file with at least `kinds.MIN_ROWS` rows.
        kind: one of `kinds.APPROXIMATE`.
        k: hits for each query.
        exact: the rows of the gallery.
    Returns:
        FAISS's index, mapped as far as FAISS can; its parameters; its measurement.
    Raises:
        StorageError: the gallery is damaged, or the index cannot be saved beside it.
    """
    path = codes_path(gallery.path, kind)
    if _find_flaw(path, gallery, kind) or _find_measurement(path, k) is None:
        try:
            remove_foreign(path, gallery.path)
            with NewFile(path, like=gallery.path, wait=True) as new:
                flaw = _find_flaw(path, gallery, kind)  # again: another search may have built it meanwhile
                if flaw:
                    logger.info("building the index %s: %s", path, flaw)
                    with faiss_threads(1 if gallery.rows < _MIN_THREADED_ROWS else None):
                        _build(new, gallery, kind, max(k, _MIN_MEASURED_HITS), exact)
                elif _find_measurement(path, k) is None:
                    logger.info("measuring the index %s for %d hits", path, k)
                    index = Reranked(_load(path), kind, exact)
                    measured = tune(gallery, index, _parameters(read_card(path)), k)
                    earlier = [asdict(measurement) for measurement in _measurements(read_card(path))]
                    amend_card(path, measured=[*earlier, asdict(measured)])
        except FacemillError:
            raise
        except OSError as err:
            raise StorageError(
                f"the index {path} cannot be saved beside the file ({err.strerror or err}); expected: a writable "
                f"folder with enough space. Free disk space, or search with: --index flat"
            ) from err
    measured_for_k = _find_measurement(path, k)
    assert measured_for_k is not None
    return _load(path), _parameters(read_card(path)), measured_for_k


def _find_flaw(path: Path, gallery: EmbeddingFile, kind: str) -> str:
    """Why an index file must not be used; empty if it is valid."""
    try:
        card = read_own_card(path, gallery.path)
        if card["source"] != gallery.source or card["kind"] != kind:
            return "it was built from a different embedding file"
        if card["recipe"] != RECIPE:
            return "a different version built it in a different way"
        _measurements(card), _parameters(card)
        return "" if is_unchanged(path, card) else "its content has changed"
    except FileNotFoundError:
        return "it does not exist yet"
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as err:
        return f"its sidecar cannot be used ({type(err).__name__}: {err})"


def _find_measurement(path: Path, k: int) -> Measured | None:
    """The measurement for the fewest hits, at least k."""
    fitting = [measurement for measurement in _measurements(read_card(path)) if measurement.k >= k]
    return min(fitting, key=lambda measurement: measurement.k, default=None)


def _measurements(card: dict[str, Any]) -> list[Measured]:
    return [Measured.of(facts) for facts in card["measured"]]


def _parameters(card: dict[str, Any]) -> dict[str, int]:
    return {str(name): int(value) for name, value in card["parameters"].items()}


def _load(path: Path) -> Any:
    # FAISS 1.10 added the flag. Older versions load the file, and all versions load the codes of ivf.
    faiss = require("faiss", extra="cpu", purpose="searching")
    return faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))


def _build(new: NewFile, gallery: EmbeddingFile, kind: str, k: int, exact: ExactRows) -> None:
    """Train, add, measure; then write the index durably, and its sidecar."""
    faiss = require("faiss", extra="cpu", purpose="searching")
    start = time.monotonic()
    chosen = np.random.default_rng(_SEED).choice(gallery.rows, sample_size(gallery.rows), replace=False)
    logger.info("training on %s of %s rows", f"{len(chosen):,}", f"{gallery.rows:,}")
    index, parameters = train(kind, exact.reconstruct_batch(np.sort(chosen)), gallery.rows)
    for block in track(gallery.blocks(), f"rows into the {kind} index", gallery.rows):
        index.add(block)
    build_s = time.monotonic() - start
    measured = tune(gallery, Reranked(index, kind, exact), parameters, k)
    try:
        faiss.write_index(index, str(new.temporary))  # FAISS truncates the locked file and does not replace it
    except RuntimeError as err:
        raise OSError(" ".join(str(err).split())) from err
    card = {
        "kind": kind,
        "recipe": RECIPE,
        "source": gallery.source,
        IDENTITY: gallery.metadata.get(IDENTITY, ""),
        "rows": gallery.rows,
        "dimension": gallery.dimension,
        "metric": "inner product",
        "faiss": faiss.__version__,
        "parameters": parameters,
        "build_s": round(build_s, 3),
        "measured": [asdict(measured)],
        "sha256": sha256_of(new.temporary),
    }
    new.commit()
    write_card(new.path, card)
