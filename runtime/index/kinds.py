"""The kinds of index: their size and build time, and the training and search parameters of approximate ones.

Approximate indexes keep codes of the leading directions only: those directions of the embeddings that carry all but a
thousandth of their squared length (a network of 512 outputs often uses fewer). A random rotation makes all directions
equally important. It preserves inner products, so nothing is centred.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..extras import require

if TYPE_CHECKING:  # NumPy is imported by the functions that need it: a command's --help lists KINDS
    import numpy as np
    from numpy.typing import NDArray

# In ascending order of bytes per row, for d directions: d / 2 + 8, and d. sq8 is for embeddings that 4 bits cannot
# tell apart: of 20,000 rows with cosines about 0.99, ivf found 79 to 87 % of the 50 best, sq8 99.9 % and more.
APPROXIMATE = ("ivf", "sq8")
KINDS = ("flat", *APPROXIMATE)  # the approximate ones need flat, which has the exact rows
# Below, exact search takes a few milliseconds and training rows are few: `auto` builds no approximate index.
MIN_APPROXIMATE_ROWS = 50_000
# Training needs at least so many rows.
MIN_ROWS = 256

_MAX_LISTS = 4096
_LIST_BLOCK_ROWS = 32  # FAISS pads the last block of each list: half a block is empty on average
_KMEANS_ITERATIONS = 10
_ROW_NUMBER_BYTES = 8

_KEPT_SHARE = 0.999  # of the squared length
_DIRECTIONS_STEP = 8  # decoders process so many dimensions at a time
_TRAINING_ROWS_PER_LIST = 64
_MIN_TRAINING_ROWS, _MAX_TRAINING_ROWS = 32_768, 131_072
_IVF_BITS = 4  # per dimension: FAISS looks up 16 values for 32 rows at once (fast scan)
_ROTATION_SEED = 1


def index_bytes(kind: str, rows: int, dimension: int) -> int:
    """Size of an index in bytes if all D dimensions are kept; an index that keeps fewer is smaller.

    flat: the exact rows, 4 N D. ivf: half a byte per dimension and the number of each row, in L lists, with the centre
    of each list: N (D / 2 + 8) + 4 L D, and padding of blocks. sq8: one byte per dimension, N D.

    Args:
        kind: one of KINDS.
        rows: N.
        dimension: D.
    Raises:
        ConfigError: the kind is unknown.
    """
    codes = rows * dimension
    if kind == "flat":
        return 4 * codes
    if kind == "sq8":
        return codes + 8 * dimension
    if kind == "ivf":
        lists = list_count(rows)
        blocks = (rows + lists * _LIST_BLOCK_ROWS // 2) * dimension // 2
        return blocks + _ROW_NUMBER_BYTES * rows + 4 * lists * dimension + 4 * 16 * dimension
    raise ConfigError(f"unknown kind of index: {kind!r}; expected: one of {', '.join(KINDS)}")


def build_s(kind: str, rows: int, dimension: int, *, flops: float, write_bytes_s: float) -> float:
    """Estimated seconds to build an index; for an approximate one, building flat is not included.

    flat is only written. The others rotate all rows, and ivf also compares them with the centres of its lists.
    Measured by benchmarks/search_index.py on two cores that also did other work: ivf took 12 s for 1,000,000 x 512 and
    317 s for 5,000,000 x 512; sq8 took 3.4 s and 26 s. The estimates are within a factor of three of these.

    Args:
        kind: one of KINDS.
        rows: N.
        dimension: D.
        flops: single-precision matrix products, operations per second.
        write_bytes_s: write rate of the disk, bytes per second.
    """
    if kind == "flat":
        return index_bytes(kind, rows, dimension) / write_bytes_s
    lists = list_count(rows) if kind == "ivf" else 0
    compared = rows * (dimension + lists) + min(rows, _MAX_TRAINING_ROWS) * lists * _KMEANS_ITERATIONS
    return 2.0 * compared * dimension / flops


def list_count(rows: int) -> int:
    """Number of lists of an IVF index: about the square root of the rows, a power of two."""
    return int(min(_MAX_LISTS, 2 ** round(math.log2(max(1, rows)) / 2)))


def sample_size(rows: int) -> int:
    """Number of rows to train on."""
    return min(rows, _MAX_TRAINING_ROWS, max(_MIN_TRAINING_ROWS, _TRAINING_ROWS_PER_LIST * list_count(rows)))


def train(kind: str, sample: NDArray[np.float32], rows: int) -> tuple[Any, dict[str, int]]:
    """Make an empty, trained index.

    Args:
        kind: one of APPROXIMATE.
        sample: (s, D) float32, at least MIN_ROWS rows of the file.
        rows: number of rows that it will hold.
    Returns:
        FAISS's index, and its parameters by name.
    Source: product quantisation, Jegou et al. (2011); fast scan, Andre et al. (2015), as implemented in FAISS.
    """
    import numpy as np

    faiss = require("faiss", extra="cpu", purpose="searching")
    axes = _leading_directions(sample)  # (d, D)
    directions, dimension = axes.shape
    parameters = {"dimensions": directions}
    if kind == "ivf":
        lists = list_count(rows)
        centres = faiss.IndexFlatIP(directions)
        codes = faiss.IndexIVFPQFastScan(centres, directions, lists, directions, _IVF_BITS, faiss.METRIC_INNER_PRODUCT)
        codes.pq.cp.niter = _KMEANS_ITERATIONS  # 16 values on a line converge soon
        codes.cp.min_points_per_centroid = codes.pq.cp.min_points_per_centroid = 1  # silences a warning about few rows
        parameters |= {"lists": lists, "bits": _IVF_BITS}
    else:
        codes = faiss.IndexScalarQuantizer(directions, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        parameters |= {"bits": 8}
    rotation = faiss.LinearTransform(dimension, directions, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(axes, np.float32).ravel(), rotation.A)
    rotation.is_trained = True
    index = faiss.IndexPreTransform(rotation, codes)
    index.train(sample)
    return index, parameters


def efforts(kind: str, parameters: dict[str, int]) -> list[int]:
    """Efforts to try, fastest first: lists to probe for ivf, 0 for sq8.

    Args:
        kind: one of APPROXIMATE.
        parameters: the parameters that `train` returned.
    """
    if kind == "ivf":
        return sorted({max(1, parameters["lists"] * sixteenths // 16) for sixteenths in (1, 2, 4, 8, 12, 16)})
    return [0]


def search_parameters(kind: str, effort: int) -> Any:
    """Parameters for one FAISS search, which leave the index itself unchanged; None for the default."""
    if kind != "ivf":
        return None
    faiss = require("faiss", extra="cpu", purpose="searching")
    return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=effort))


def _leading_directions(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """(d, D) orthonormal rows: the directions worth keeping, rotated at random."""
    import numpy as np

    rows = sample[:_MIN_TRAINING_ROWS]
    weights, directions = np.linalg.eigh((rows.T @ rows).astype(np.float64))  # ascending
    shares = np.cumsum(weights[::-1].clip(min=0))
    count = int(np.searchsorted(shares, _KEPT_SHARE * shares[-1])) + 1
    count = min(sample.shape[1], -(-count // _DIRECTIONS_STEP) * _DIRECTIONS_STEP)
    rotation = np.linalg.qr(np.random.default_rng(_ROTATION_SEED).standard_normal((count, count)))[0]
    axes: NDArray[np.float32] = (rotation @ directions[:, ::-1][:, :count].T).astype(np.float32)
    return axes
