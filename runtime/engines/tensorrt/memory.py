"""Plan the memory of the GPU before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OutOfMemoryError
from ..engine import EngineInfo
from .slot import slot_bytes

_RESERVED_BYTES = 256 << 20  # CUDA's own context grows, and a screen needs some


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The memory of a run on one GPU, bytes.

    Attributes:
        slots: batches in flight.
        weights: weights of the engine, shared by all slots.
        context: execution memory of one slot.
        buffers: crops and vectors of one slot.
        decoder: decoder of one slot; 0 if the CPU decodes.
        detector: one slot of the detector; 0 if no faces are detected on the GPU.
        free, total: memory of the GPU before the run.
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
        """The sum."""
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
    """Plan the requested number of slots, or as many as fit.

    Args:
        info: facts of the engine.
        slots: requested number of slots.
        weights: size of the engine, bytes.
        context: size of one execution context, as the engine reports it, bytes.
        decoder: size of one decoder, bytes; 0 without.
        detector: size of one slot of a detector, from `detector_bytes`; 0 without.
        memory: free and total memory of the GPU, bytes.
    Raises:
        OutOfMemoryError: not even one slot fits.
    """
    free, total = memory
    for count in range(slots, 0, -1):
        plan = DevicePlan(count, weights, context, slot_bytes(info), decoder, detector, free, total)
        if plan.needed + _RESERVED_BYTES <= free:
            return plan
    raise OutOfMemoryError(
        f"the engine of {info.model} does not fit. {plan}. Close other programs that use the GPU, or build an engine "
        f"for smaller batches: facemill build-engine --model {info.model} --backend tensorrt --batch 1,32,64"
    )


def detector_bytes(info: EngineInfo) -> int:
    """Device memory of one slot of a detector: execution context, images and outputs. Its weights are small."""
    return info.context_bytes + slot_bytes(info)
