"""Who gets how much of the GPU's memory: decided before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OutOfMemoryError
from ..engine import EngineInfo
from .slot import slot_bytes

_SPARED = 256 << 20  # bytes: CUDA's own context grows, and a screen wants some


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The memory of a run on one GPU, bytes.

    Attributes:
        slots: batches in flight.
        weights: of the engine, once.
        context: execution memory of one slot.
        buffers: crops and vectors of one slot.
        decoder: of one slot; 0 when the CPU decodes.
        detector: of one slot of its own; 0 when faces are not looked for here.
        free, total: of the GPU, before.
    """

    slots: int
    weights: int
    context: int
    buffers: int
    decoder: int
    detector: int
    free: int
    total: int

    @property
    def needed(self) -> int:
        """All of it."""
        return self.weights + self.slots * (self.context + self.buffers + self.decoder + self.detector)

    def __str__(self) -> str:
        def mb(amount: int) -> str:
            return f"{amount / 1e6:,.0f} MB"

        detector = f", detector {mb(self.detector)}" if self.detector else ""
        return (
            f"GPU memory: {mb(self.needed)} of {mb(self.free)} free ({mb(self.total)} in all): weights "
            f"{mb(self.weights)}, and {self.slots} x (execution {mb(self.context)}, crops and vectors "
            f"{mb(self.buffers)}, JPEG decoder {mb(self.decoder)}{detector})"
        )


def plan_device(
    info: EngineInfo,
    *,
    slots: int,
    weights: int,
    context: int,
    decoder: int,
    detector: int = 0,
    memory: tuple[int, int],
) -> DevicePlan:
    """As many slots as asked for, or as many as fit.

    Args:
        info: of the engine.
        slots: to aim at.
        weights: bytes of the engine.
        context: bytes of one execution context, as the engine says.
        decoder: bytes of one decoder; 0 without.
        detector: bytes of one slot of a detector, as `detector_bytes` says; 0 without.
        memory: free and total bytes of the GPU.
    Raises:
        OutOfMemoryError: not even one fits.
    """
    free, total = memory
    for count in range(slots, 0, -1):
        plan = DevicePlan(count, weights, context, slot_bytes(info), decoder, detector, free, total)
        if plan.needed + _SPARED <= free:
            return plan
    raise OutOfMemoryError(
        f"the engine of {info.model} does not fit. {plan}. Close what else uses the GPU, or build an engine for "
        f"smaller batches: facemill build-engine --model {info.model} --backend tensorrt --batch 1,32,64"
    )


def detector_bytes(info: EngineInfo) -> int:
    """Device memory of one slot of a detector: its execution context, pictures and answers; its weights are small."""
    return info.context_bytes + slot_bytes(info)
