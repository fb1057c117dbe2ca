"""INT8 after training: method of calibration and layers left in float, chosen by what they do to the answers.

The graph may be any that takes uint8 and whose first output answers for a picture: nothing here knows of embeddings.
What of an answer counts, the caller says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..graphs.qdq import Scheme, find_layers, insert_qdq, ready_for_qdq, tensors_to_observe
from .calibrate import METHODS, observe, value_range
from .onnxruntime.runner import open_session

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

Reading = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # (N, ...) answers to (N, values) that count

_RANKING = 16  # pictures that a layer's harm alone is measured on: it is large where it matters
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Quantised:
    """A graph with Q/DQ.

    Attributes:
        model: the graph.
        method: one of METHODS.
        left_float: names of the layers without Q/DQ, most sensitive first.
        agreement: mean cosine of its answers to the float graph's, on the pictures that all this was chosen by.
    """

    model: onnx.ModelProto
    method: str
    left_float: tuple[str, ...]
    agreement: float


def quantise(
    model: onnx.ModelProto,
    scheme: Scheme,
    calibration: NDArray[np.uint8],
    choice: NDArray[np.uint8],
    target: float,
    reading: Reading | None = None,
) -> Quantised:
    """Quantise a graph by the best method, with as few layers left in float as the target allows.

    Args:
        model: the graph, float32 or float16.
        scheme: of the backend.
        calibration: (N, ...) uint8 pictures: what the ranges are taken from.
        choice: (M, ...) uint8 others: what method and layers are chosen by.
        target: mean cosine to the float graph's answers.
        reading: what of an answer is compared; None: all of it.
    Raises:
        EngineError: ONNX Runtime cannot quantise the graph, or half of the layers would have to stay in float.
    """
    work = _Work(model, scheme, calibration, choice, reading or _whole)
    found = {method: work.agreement(method) for method in METHODS}
    logger.info("calibration: cosine by %s", ", ".join(f"{method} {value:.5f}" for method, value in found.items()))
    method = max(found, key=found.__getitem__)
    left, agreement = work.leave(method, found[method], target)
    logger.info("in float: %s; cosine %.5f", ", ".join(left) or "no layer", agreement)
    return Quantised(work.quantised(method, left), method, tuple(left), agreement)


class _Work:
    """One graph, what was seen in it, and what its quantised forms answer."""

    def __init__(
        self,
        model: onnx.ModelProto,
        scheme: Scheme,
        calibration: NDArray[np.uint8],
        choice: NDArray[np.uint8],
        reading: Reading,
    ) -> None:
        self._model = ready_for_qdq(model)
        self._scheme = scheme
        self._layers = {layer.name: layer for layer in find_layers(self._model)}
        self._nodes = {node.name for node in self._model.graph.node if node.op_type in scheme.operators}
        seen = observe(self._model, tensors_to_observe(self._model, scheme), calibration)
        self._ranges = {
            method: {name: value_range(values, method) for name, values in seen.items()} for method in METHODS
        }
        self._choice, self._reading = choice, reading
        self._expected = reading(_answers(self._model, choice))  # (M, values)

    def quantised(self, method: str, left: Collection[str] = (), only: str | None = None) -> onnx.ModelProto:
        """The graph with Q/DQ, but for the layers that are left in float; or with Q/DQ around one layer only."""
        if only is None:
            nodes = self._nodes.difference(*(self._layers[name].nodes for name in left))
        else:
            nodes = self._nodes.intersection(self._layers[only].nodes)
        return insert_qdq(self._model, self._scheme, nodes, self._ranges[method])

    def agreement(self, method: str, left: Collection[str] = (), only: str | None = None) -> float:
        """Mean cosine of a quantised form's answers to those of the float graph."""
        choice = self._choice if only is None else self._choice[:_RANKING]
        found = self._reading(_answers(self.quantised(method, left, only), choice))
        expected = self._expected[: len(choice)]
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)  # (M,)
        return float(np.mean(np.einsum("nd,nd->n", found, expected) / np.maximum(lengths, 1e-30)))

    def leave(self, method: str, agreement: float, target: float) -> tuple[list[str], float]:
        """The layers to leave in float, and the agreement with them.

        Layers are ranked by the harm that each does alone. Leaving one out of the quantised whole would not show it:
        the tensor between two sensitive layers stays quantised until both are left.
        """
        left: list[str] = []
        if agreement >= target:
            return left, agreement
        ranked = sorted(self._layers, key=lambda name: self.agreement(method, only=name))
        while agreement < target:
            if 2 * len(left) >= len(ranked):
                raise EngineError(
                    f"INT8 loses too much: with {len(left)} of {len(ranked)} layers in float the mean cosine is "
                    f"{agreement:.5f}, expected {target}. Use --precision fp16 or fp32"
                )
            left.append(ranked[len(left)])
            agreement = self.agreement(method, left)
        for name in left[:-1]:  # the last one was needed; one before it may no longer be
            fewer = [other for other in left if other != name]
            if (without := self.agreement(method, fewer)) >= target:
                left, agreement = fewer, without
        return left, agreement


def _answers(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, ...) of the first output."""
    session = open_session(model.SerializeToString())
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name
    parts = [
        session.run([target], {source: images[start : start + _BATCH]})[0] for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


def _whole(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    return answers.reshape(len(answers), -1)
