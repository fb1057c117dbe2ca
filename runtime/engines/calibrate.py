"""What passes through a graph: the range of each tensor on real pictures, as three methods of calibration see it.

ONNX Runtime's own calibrators are not used: they keep every activation of the crops that they are given in memory, take
ten times as long, and report to stdout.
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
FEWEST = 64  # crops that say enough: 32 to calibrate on, 16 to choose by, 16 to judge by

_BATCH = 4  # crops at once: every observed tensor of a batch is in memory together
_SAMPLE = 2048  # values of each crop and tensor that the methods other than minmax look at
_PERCENT = 0.001  # of the values that percentile gives up at either end
_BINS, _LEVELS = 2048, 128  # of the histogram of magnitudes, and of what entropy quantises it to


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """Real crops for an INT8 engine: half to calibrate on, a quarter to choose by, and a quarter that judges it.

    Attributes:
        crops: (N, S, S, 3) uint8 in the model's channel order, in random order; N of at least FEWEST, S by `side_of`.
        seed: of the draw.
    """

    crops: NDArray[np.uint8]
    seed: int

    def __post_init__(self) -> None:
        if len(self.crops) < FEWEST:
            raise ConfigError(
                f"{len(self.crops)} crops are too few to calibrate an INT8 engine on; expected: at least {FEWEST}, and "
                f"better 512. Give more photographs with --calibration"
            )

    def parts(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Crops to take ranges from, to choose method and layers by, and to judge the engine by: none is in two."""
        half, rest = len(self.crops) // 2, len(self.crops) * 3 // 4
        return self.crops[:half], self.crops[half:rest], self.crops[rest:]

    def __str__(self) -> str:
        digest = hashlib.sha256(self.crops.tobytes()).hexdigest()
        return f"{len(self.crops)} crops, seed {self.seed}, sha256 {digest}"


def side_of(spec: ModelSpec) -> int:
    """The side of the pictures that a model mostly sees, pixels: its crops, or the views of a detector."""
    return FindRules().views[0].long_side if spec.detects else spec.size


@dataclass(frozen=True, slots=True)
class Observed:
    """The values of one tensor.

    Attributes:
        low, high: of all of them.
        sample: (n,) of the tensor's own type: values drawn evenly from the pictures.
    """

    low: float
    high: float
    sample: NDArray[Any]


def observe(model: onnx.ModelProto, tensors: Iterable[str], images: NDArray[np.uint8]) -> dict[str, Observed]:
    """Run a graph and look at some of its tensors.

    Args:
        model: a graph with one input.
        tensors: names of float tensors that its nodes make or that it takes.
        images: (N, ...) what the input takes, N of at least 1.
    Raises:
        EngineError: a value is not finite.
    """
    import onnx

    names = sorted(set(tensors))
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    have = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    session = open_session(watched.SerializeToString())
    source = session.get_inputs()[0].name
    random = np.random.RandomState(0)
    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    samples: list[list[NDArray[Any]]] = [[] for _ in names]
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        for i, values in enumerate(session.run(names, {source: part})):
            flat = values.reshape(-1)
            lows[i], highs[i] = np.minimum(lows[i], flat.min()), np.maximum(highs[i], flat.max())
            samples[i].append(flat[random.randint(0, len(flat), _SAMPLE * len(part))])
    if not np.isfinite([lows, highs]).all():
        wrong = names[int(np.argmin(np.isfinite(lows) & np.isfinite(highs)))]
        raise EngineError(
            f"the float graph itself does not stay within numbers: {wrong} holds infinities or NaN on the calibration "
            f"crops; expected: finite values. Use --precision fp32"
        )
    return {
        name: Observed(float(low), float(high), np.concatenate(sample))
        for name, low, high, sample in zip(names, lows, highs, samples, strict=True)
    }


def value_range(seen: Observed, method: str) -> NDArray[Any]:
    """The range that eight bits are spent on: values beyond it are clipped to it.

    Args:
        seen: a tensor's values.
        method: "minmax" clips nothing; "percentile" clips the outermost 0.001 % at either end; "entropy" clips where
            the histogram of what is left, in few levels, diverges least from that of all values.
    Returns:
        (2,) of the tensor's own type: low and high, within those seen.
    Source: entropy: Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    values = seen.sample.astype(np.float32)
    if method == "percentile":
        ends = np.percentile(values, (_PERCENT, 100 - _PERCENT))
    elif method == "entropy":
        limit = _entropy_limit(np.abs(values))
        ends = np.clip([-limit, limit], seen.low, seen.high)
    else:
        assert method == "minmax", method
        ends = np.array([seen.low, seen.high])
    return ends.astype(seen.sample.dtype)


def _entropy_limit(magnitudes: NDArray[np.float32]) -> float:
    """The magnitude to clip at."""
    magnitudes = magnitudes[magnitudes > 0]  # zero is exact whatever the scale: it must not decide
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
    mass, places = np.add.reduceat(kept, bounds[:-1]), np.add.reduceat(filled.astype(np.int64), bounds[:-1])
    few = np.repeat(mass / np.maximum(places, 1), np.diff(bounds)) * filled  # (width,)
    if not few.any():  # everything lies beyond the first `width` bins
        return np.inf
    all_of_them = kept.copy()
    all_of_them[-1] += counts[width:].sum()
    p, q = all_of_them / all_of_them.sum(), few / few.sum()
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / np.maximum(q[there], 1e-12))))
