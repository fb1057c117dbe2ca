"""Calibrate: the range of each tensor of a graph on real images, by three methods.

ONNX Runtime's own calibrators are not used: they keep every activation of all crops in memory, take ten times as long,
and print to stdout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, EngineError
from ..faces.finder import FindRules
from ..modelspec import ModelSpec
from .onnxruntime.runner import open_session

if TYPE_CHECKING:
    import onnx

METHODS = ("minmax", "percentile", "entropy")
FEWEST = 64  # crops: 32 for calibration, 16 for the choice, 16 for the parity check

_BATCH_CROPS = 4  # all observed tensors of a batch are in memory at once
_SAMPLE_VALUES = 2048  # per crop and tensor, for the methods other than minmax
_CLIPPED_PERCENT = 0.001  # of the values, clipped by percentile at either end
_BINS, _LEVELS = 2048, 128  # of the histogram of magnitudes, and of its quantised form for entropy


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """Real crops for an INT8 engine: half for calibration, a quarter for the choice, a quarter for the parity check.

    Attributes:
        crops: (N, S, S, 3) uint8 in the model's channel order, shuffled; N >= FEWEST, S from `side_of`.
        seed: random seed of the draw.
    """

    crops: NDArray[np.uint8]
    seed: int

    def __post_init__(self) -> None:
        if len(self.crops) < FEWEST:
            raise ConfigError(
                f"{len(self.crops)} crops are too few to calibrate an INT8 engine; expected: at least {FEWEST}, "
                f"better 512. Name more photos with --calibration"
            )

    def parts(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Disjoint crops for the ranges, for the choice of method and layers, and for the parity check."""
        half, rest = len(self.crops) // 2, len(self.crops) * 3 // 4
        return self.crops[:half], self.crops[half:rest], self.crops[rest:]

    def __str__(self) -> str:
        digest = hashlib.sha256(self.crops.tobytes()).hexdigest()
        return f"{len(self.crops)} crops, seed {self.seed}, sha256 {digest}"


def side_of(spec: ModelSpec) -> int:
    """The usual side of a model's images, pixels: of its crops, or of the views of a detector."""
    return FindRules().views[0].long_side if spec.detects else spec.size


@dataclass(frozen=True, slots=True)
class Observed:
    """The values of one tensor.

    Attributes:
        low, high: minimum and maximum of all values.
        sample: (n,) in the tensor's own dtype: values drawn evenly from the images.
    """

    low: float
    high: float
    sample: NDArray[Any]


def observe(model: onnx.ModelProto, tensors: Iterable[str], images: NDArray[np.uint8]) -> dict[str, Observed]:
    """Run a graph and observe the values of some tensors.

    Args:
        model: a graph with one input.
        tensors: names of tensors of the graph.
        images: (N, ...) input, N >= 1.
    Returns:
        The values of the float tensors, by name; whole numbers, such as shapes, are not quantised and left out.
    Raises:
        EngineError: a value is not finite.
    """
    import onnx

    names = sorted(set(tensors))
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    outputs = {value.name for value in observed.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    session = open_session(observed.SerializeToString())
    source = session.get_inputs()[0].name
    random = np.random.RandomState(0)
    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    samples: list[list[NDArray[Any]]] = [[] for _ in names]
    for start in range(0, len(images), _BATCH_CROPS):
        part = images[start : start + _BATCH_CROPS]
        for i, values in enumerate(session.run(names, {source: part})):
            flat = values.reshape(-1)
            if not np.issubdtype(flat.dtype, np.floating):
                lows[i] = highs[i] = 0
                continue
            lows[i], highs[i] = np.minimum(lows[i], flat.min()), np.maximum(highs[i], flat.max())
            samples[i].append(flat[random.randint(0, len(flat), _SAMPLE_VALUES * len(part))])
    if not np.isfinite([lows, highs]).all():
        name = names[int(np.argmin(np.isfinite(lows) & np.isfinite(highs)))]
        raise EngineError(
            f"the float graph overflows: {name} contains infinities or NaN on the calibration crops; expected: finite "
            f"values. Use --precision fp32"
        )
    return {
        name: Observed(float(low), float(high), np.concatenate(sample))
        for name, low, high, sample in zip(names, lows, highs, samples, strict=True)
        if sample
    }


def value_range(observed: Observed, method: str) -> NDArray[Any]:
    """The range of a tensor that is quantised to eight bits. Values outside are clipped.

    Args:
        observed: the values of the tensor.
        method: "minmax" clips nothing; "percentile" clips the outermost 0.001 % at either end; "entropy" clips where
            the quantised histogram of the clipped values diverges least from that of all values.
    Returns:
        (2,) in the tensor's own dtype: low and high, within the observed range.
    Source: entropy: Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    values = observed.sample.astype(np.float32)
    if method == "percentile":
        ends = np.percentile(values, (_CLIPPED_PERCENT, 100 - _CLIPPED_PERCENT))
    elif method == "entropy":
        limit = _entropy_limit(np.abs(values))
        ends = np.clip([-limit, limit], observed.low, observed.high)
    else:
        assert method == "minmax", method
        ends = np.array([observed.low, observed.high])
    return ends.astype(observed.sample.dtype)


def _entropy_limit(magnitudes: NDArray[np.float32]) -> float:
    """The magnitude to clip at."""
    magnitudes = magnitudes[magnitudes > 0]  # zero is exact at any scale, so it must not influence the limit
    if not magnitudes.size:
        return 0.0
    counts, edges = np.histogram(magnitudes, _BINS, (0.0, float(magnitudes.max())))
    widths = range(_LEVELS, _BINS + 1, _LEVELS // 8)
    divergences = [_divergence(counts, width) for width in widths]
    return float(edges[widths[int(np.argmin(divergences))]])


def _divergence(counts: NDArray[np.int64], width: int) -> float:
    """Kullback-Leibler divergence of the first `width` bins in `_LEVELS` levels from all bins clipped to `width`."""
    kept = counts[:width].astype(np.float64)
    bounds = np.linspace(0, width, _LEVELS + 1).astype(np.int64)
    filled = kept > 0
    mass, bins = np.add.reduceat(kept, bounds[:-1]), np.add.reduceat(filled.astype(np.int64), bounds[:-1])
    quantised = np.repeat(mass / np.maximum(bins, 1), np.diff(bounds)) * filled  # (width,)
    if not quantised.any():  # all values are beyond the first `width` bins
        return np.inf
    clipped = kept.copy()
    clipped[-1] += counts[width:].sum()
    p, q = clipped / clipped.sum(), quantised / quantised.sum()
    positive = p > 0
    return float(np.sum(p[positive] * np.log(p[positive] / np.maximum(q[positive], 1e-12))))
