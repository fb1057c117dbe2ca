"""`<file>.faiss-<kind>`: the codes of an approximate index, with a sidecar that says what they find and how fast.

Derived data, as the flat index file is: whatever is wrong with it, it is made again, and FAISS reads it only after
size, origin and content are known to be right.
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
from .beside import amend_card, is_unchanged, read_card, write_card
from .indexfile import index_path
from .kinds import sample_size, train
from .measure import Measured, tune
from .rerank import ExactRows, Reranked, faiss_threads

# Another number for another way to make the codes: those made in the old way are made again.
RECIPE = 1
# Fewer hits than this are found by what was measured for this many.
_LEAST_K = 50
# Fewer rows are dealt with by one thread.
_FEW_ROWS = 20_000
_SEED = 3

logger = logging.getLogger(__name__)


def codes_path(gallery: Path, kind: str) -> Path:
    """`people.h5` -> `people.h5.faiss-ivf`."""
    return gallery.with_name(f"{index_path(gallery).name}-{kind}")


def ensure_codes(gallery: EmbeddingFile, kind: str, k: int, exact: ExactRows) -> tuple[Any, dict[str, int], Measured]:
    """The index of a kind, made when there is none that is right, and measured when it was not for so many hits.

    Args:
        gallery: an open embedding file with at least `kinds.FEWEST_ROWS` rows.
        kind: one of `kinds.APPROXIMATE`.
        k: hits for each query.
        exact: the rows of the gallery.
    Returns:
        FAISS's index, mapped as far as FAISS can; its parameters; what it finds.
    Raises:
        StorageError: the gallery is damaged, or the index cannot be kept beside it.
    """
    path = codes_path(gallery.path, kind)
    if _flaw(path, gallery, kind) or _fitting(path, k) is None:
        try:
            with NewFile(path, like=gallery.path, wait=True) as new:
                flaw = _flaw(path, gallery, kind)  # again: another search may have made it while this one waited
                if flaw:
                    logger.info("making the index %s: %s", path, flaw)
                    with faiss_threads(1 if gallery.rows < _FEW_ROWS else None):
                        _make(new, gallery, kind, max(k, _LEAST_K), exact)
                elif _fitting(path, k) is None:
                    logger.info("measuring the index %s: it has not been for %d hits", path, k)
                    index = Reranked(_load(path), kind, exact)
                    measured = tune(gallery, index, _parameters(read_card(path)), k)
                    earlier = [asdict(measurement) for measurement in _measurements(read_card(path))]
                    amend_card(path, measured=[*earlier, asdict(measured)])
        except FacemillError:
            raise
        except OSError as err:
            raise StorageError(
                f"the index {path} cannot be kept beside the file ({err.strerror or err}); expected: a folder that can "
                f"be written to, with room for it. Make room, or search with: --index flat"
            ) from err
    measured_for_k = _fitting(path, k)
    assert measured_for_k is not None
    return _load(path), _parameters(read_card(path)), measured_for_k


def _flaw(path: Path, gallery: EmbeddingFile, kind: str) -> str:
    """Why an index file is not to be used; empty when it is right."""
    try:
        card = read_card(path)
        if card["source"] != gallery.source or card["kind"] != kind:
            return "the embedding file is another one than the index was made from"
        if card["recipe"] != RECIPE:
            return "it was made in another way than this version makes it"
        _measurements(card), _parameters(card)
        return "" if is_unchanged(path, card) else "its content has changed"
    except FileNotFoundError:
        return "there is none yet"
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as err:
        return f"its sidecar cannot be used ({type(err).__name__}: {err})"


def _fitting(path: Path, k: int) -> Measured | None:
    """What was measured for the fewest hits that are no fewer than k."""
    fitting = [measurement for measurement in _measurements(read_card(path)) if measurement.k >= k]
    return min(fitting, key=lambda measurement: measurement.k, default=None)


def _measurements(card: dict[str, Any]) -> list[Measured]:
    return [Measured.of(facts) for facts in card["measured"]]


def _parameters(card: dict[str, Any]) -> dict[str, int]:
    return {str(name): int(value) for name, value in card["parameters"].items()}


def _load(path: Path) -> Any:
    # The flag is of FAISS 1.10; before, and for the codes of ivf, the file is loaded.
    faiss = require("faiss", extra="cpu", purpose="searching")
    return faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))


def _make(new: NewFile, gallery: EmbeddingFile, kind: str, k: int, exact: ExactRows) -> None:
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
