"""The approximate indexes: what each keeps of a row, how it is trained, and how hard it can be made to look.

All of them keep codes of the leading directions only: those of the embeddings at hand that carry all but a thousandth
of their squared length (a network of 512 outputs often uses fewer), turned at random so that each direction matters as
much as the next. The inner product survives, so nothing is centred.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from .sizes import LINKS, list_count

# Fewer rows train nothing.
FEWEST_ROWS = 256

_KEPT = 0.999  # of the squared length
_STEP = 8  # dimensions are a multiple of it: decoders take so many at a time
_PER_LIST = 64  # rows of the training sample
_MOST_SAMPLE, _LEAST_SAMPLE = 131_072, 32_768
_BITS = 4  # a dimension, for ivf: FAISS looks 16 values up for 32 rows at once (fast scan)
_BUILD_QUEUE = 64
_SEED = 1


def sample_size(rows: int) -> int:
    """Rows that are worth training on."""
    return min(rows, _MOST_SAMPLE, max(_LEAST_SAMPLE, _PER_LIST * list_count(rows)))


def train(kind: str, sample: NDArray[np.float32], rows: int) -> tuple[Any, dict[str, int]]:
    """An empty index, ready for rows to be added.

    Args:
        kind: one of `sizes.APPROXIMATE`.
        sample: (s, D) float32, at least FEWEST_ROWS rows of the file.
        rows: that it will hold.
    Returns:
        FAISS's index, and its parameters by name.
    Source: product quantisation, Jegou et al. (2011); fast scan, Andre et al. (2015), as FAISS has it; HNSW, Malkov and
        Yashunin (2018).
    """
    faiss = require("faiss", extra="cpu", purpose="searching")
    axes = _leading(sample)  # (d, D)
    kept, dimension = axes.shape
    parameters = {"dimensions": kept}
    metric, codec = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_8bit
    if kind == "ivf":
        lists = list_count(rows)
        inner = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(kept), kept, lists, kept, _BITS, metric)
        inner.pq.cp.niter = 10  # 16 values on a line are settled soon
        inner.cp.min_points_per_centroid = inner.pq.cp.min_points_per_centroid = 1  # or it complains of few rows
        parameters |= {"lists": lists, "bits": _BITS}
    elif kind == "sq8":
        inner = faiss.IndexScalarQuantizer(kept, codec, metric)
        parameters |= {"bits": 8}
    else:
        inner = faiss.IndexHNSWSQ(kept, codec, LINKS, metric)
        inner.hnsw.efConstruction = _BUILD_QUEUE
        parameters |= {"bits": 8, "links": LINKS}
    turn = faiss.LinearTransform(dimension, kept, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(axes, np.float32).ravel(), turn.A)
    turn.is_trained = True
    index = faiss.IndexPreTransform(turn, inner)
    index.train(sample)
    return index, parameters


def efforts(kind: str, parameters: dict[str, int], candidates: int) -> list[int]:
    """What may be tried, from the quickest to the most thorough; see `facts.Measured.effort`.

    Args:
        kind: one of `sizes.APPROXIMATE`.
        parameters: of `train`.
        candidates: the most that will be asked for.
    """
    if kind == "ivf":
        lists = parameters["lists"]
        return sorted({max(1, lists * eighths // 16) for eighths in (1, 2, 4, 8, 12, 16)})
    if kind == "hnsw":
        return [candidates >> shift for shift in range(5, -1, -1) if candidates >> shift]
    return [0]


def set_effort(index: Any, kind: str, effort: int) -> None:
    """How hard the next searches look."""
    inner = require("faiss", extra="cpu", purpose="searching").downcast_index(index.index)
    if kind == "ivf":
        inner.nprobe = effort
    elif kind == "hnsw":
        inner.hnsw.efSearch = effort


def _leading(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """(d, D) orthonormal rows: the directions worth keeping, turned at random."""
    some = sample[:_LEAST_SAMPLE]
    weights, directions = np.linalg.eigh((some.T @ some).astype(np.float64))  # ascending
    shares = np.cumsum(weights[::-1].clip(min=0))
    kept = int(np.searchsorted(shares, _KEPT * shares[-1])) + 1
    kept = min(sample.shape[1], -(-kept // _STEP) * _STEP)
    turn = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((kept, kept)))[0]
    axes: NDArray[np.float32] = (turn @ directions[:, ::-1][:, :kept].T).astype(np.float32)
    return axes
