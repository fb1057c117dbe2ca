"""Quantise to INT8 after training: choose the calibration method and the layers that stay in float.

The choice compares outputs. The graph may be any with uint8 input and one output row per image; the caller says which
part of an output is compared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..graphs.qdq import Scheme, find_layers, insert_qdq, prepare_for_qdq, tensors_to_observe
from .calibrate import METHODS, observe, value_range
from .onnxruntime.runner import open_session

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

Reading = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # (N, ...) outputs to (N, values) that are compared

_RANKING_IMAGES = 16  # few, because the error of a layer that matters is large
_BATCH_IMAGES = 32


@dataclass(frozen=True, slots=True)
class Quantised:
    """A graph with Q/DQ.

    Attributes:
        model: the graph.
        method: one of METHODS.
        left_float: names of the layers without Q/DQ, most sensitive first.
        agreement: mean cosine between its outputs and those of the float graph, on the images of the choice.
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
    """Quantise a graph with the best method, leaving as few layers in float as the target allows.

    Args:
        model: the graph, float32 or float16.
        scheme: scheme of the backend.
        calibration: (N, ...) uint8 images for the ranges.
        choice: (M, ...) uint8, other images for the choice of method and layers.
        target: required mean cosine to the outputs of the float graph.
        reading: selects the compared part of an output; None: all of it.
    Raises:
        EngineError: ONNX Runtime cannot quantise the graph, or half of the layers would stay in float.
    """
    quantiser = _Quantiser(model, scheme, calibration, choice, reading or _whole)
    cosines = {method: quantiser.agreement(method) for method in METHODS}
    logger.info("calibration: cosine by %s", ", ".join(f"{method} {value:.5f}" for method, value in cosines.items()))
    method = max(cosines, key=cosines.__getitem__)
    left, agreement = quantiser.leave_float(method, cosines[method], target)
    logger.info("in float: %s; cosine %.5f", ", ".join(left) or "no layer", agreement)
    return Quantised(quantiser.insert_qdq(method, left), method, tuple(left), agreement)


class _Quantiser:
    """A graph, the ranges of its tensors, and the outputs of its quantised forms."""

    def __init__(
        self,
        model: onnx.ModelProto,
        scheme: Scheme,
        calibration: NDArray[np.uint8],
        choice: NDArray[np.uint8],
        reading: Reading,
    ) -> None:
        self._model = prepare_for_qdq(model)
        self._scheme = scheme
        self._layers = {layer.name: layer for layer in find_layers(self._model)}
        tensors = tensors_to_observe(self._model, scheme)
        observed = observe(self._model, tensors, calibration)
        whole_numbers = tensors - observed.keys()  # a graph that computes a shape adds and reshapes them
        self._nodes = {
            node.name
            for node in self._model.graph.node
            if node.op_type in scheme.operators and whole_numbers.isdisjoint((node.input[0], node.output[0]))
        }
        self._ranges = {
            method: {name: value_range(values, method) for name, values in observed.items()} for method in METHODS
        }
        self._choice, self._reading = choice, reading
        self._expected = reading(_run(self._model, choice))  # (M, values)

    def insert_qdq(self, method: str, left: Collection[str] = (), only: str | None = None) -> onnx.ModelProto:
        """The graph with Q/DQ, except around the layers in `left`; or with Q/DQ around one layer only."""
        if only is None:
            nodes = self._nodes.difference(*(self._layers[name].nodes for name in left))
        else:
            nodes = self._nodes.intersection(self._layers[only].nodes)
        return insert_qdq(self._model, self._scheme, nodes, self._ranges[method])

    def agreement(self, method: str, left: Collection[str] = (), only: str | None = None) -> float:
        """Mean cosine between the outputs of a quantised form and of the float graph."""
        choice = self._choice if only is None else self._choice[:_RANKING_IMAGES]
        got = self._reading(_run(self.insert_qdq(method, left, only), choice))
        expected = self._expected[: len(choice)]
        lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)  # (M,)
        return float(np.mean(np.einsum("nd,nd->n", got, expected) / np.maximum(lengths, 1e-30)))

    def leave_float(self, method: str, agreement: float, target: float) -> tuple[list[str], float]:
        """Choose the layers to leave in float. Returns them and the agreement.

        Layers are ranked by the error of quantising each alone. Leaving a single layer out of the quantised graph would
        not show it, because the tensor between two sensitive layers stays quantised until both are left.
        """
        left: list[str] = []
        if agreement >= target:
            return left, agreement
        ranked = sorted(self._layers, key=lambda name: self.agreement(method, only=name))
        while agreement < target:
            if 2 * len(left) >= len(ranked):
                raise EngineError(
                    f"INT8 loses too much: with {len(left)} of {len(ranked)} layers in float the mean cosine is "
                    f"{agreement:.5f}, expected {target}"
                )
            left.append(ranked[len(left)])
            agreement = self.agreement(method, left)
        for name in left[:-1]:  # the last layer was needed; earlier ones may not be needed any more
            fewer = [layer for layer in left if layer != name]
            if (without := self.agreement(method, fewer)) >= target:
                left, agreement = fewer, without
        return left, agreement


def _run(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, ...): run a graph and return its first output."""
    session = open_session(model.SerializeToString())
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name
    parts = [
        session.run([target], {source: images[start : start + _BATCH_IMAGES]})[0]
        for start in range(0, len(images), _BATCH_IMAGES)
    ]
    return np.concatenate(parts).astype(np.float64)


def _whole(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    return answers.reshape(len(answers), -1)
