"""Decoding and embedding as one stage, for photographs that do not leave the GPU in between.

Each thread of the stage takes a slot with a decoder of its own: while one batch is decoded, another is embedded and a
third copied back. What the GPU's decoder does not read goes to the CPU's and joins the batch.
"""

from __future__ import annotations

import ctypes
import math
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..engines.open import open_tensorrt
from ..engines.sidecar import EngineInfo
from ..engines.slot import Slot
from ..engines.tensorrt_runner import TensorRTRunner
from ..errors import EngineError
from ..images.decode import Limits
from ..images.decode_dali import Crops, DaliDecoder, decoder_bytes
from ..records import Batch, Outcome
from .settings import Settings
from .stages import StageClock
from .work import Embed, Slices


class OnDevice(Protocol):
    """A stage that takes files and gives vectors, called from as many threads at once as there are slots.

    Attributes:
        slices: photographs in one go.
    """

    slices: Slices

    def warm_up(self) -> None:
        """Run one batch of nothing through every slot."""
        ...

    def __call__(self, batch: Batch) -> Batch: ...


class DeviceCrops:
    """The places of a slot, filled on the device: see images.decode_dali.Crops."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._held: list[Any] = []  # DALI may use the memory again only when the slot has copied it
        self.stream: int | None = slot.stream.address

    def put_run(self, place: int, crops: Any) -> None:
        """See Crops.put_run."""
        try:
            # Non-blocking: the stream waits for the decoder, and this thread for neither.
            crops.copy_to_external(ctypes.c_void_p(self._slot.place_address(place)), ctypes.c_void_p(self.stream), True)
        except RuntimeError as err:
            raise EngineError(f"DALI could not hand over its crops: {err}. See: facemill doctor") from err
        self._held.append(crops)

    def put(self, place: int, crop: NDArray[np.uint8]) -> None:
        """See Crops.put."""
        self._slot.fill(place, crop[None])


class EmbedFiles:
    """Encoded photographs to unit vectors: the work of a stage of as many threads as there are decoders."""

    def __init__(
        self,
        runner: TensorRTRunner,
        decoders: Sequence[DaliDecoder],
        batch_size: int,
        clocks: tuple[StageClock, StageClock],
        crops: Callable[[Slot], Crops],
    ) -> None:
        """Take over a runner and its decoders.

        Args:
            runner: with at least as many slots as there are decoders.
            decoders: ready for use.
            batch_size: photographs in one slot, at most.
            clocks: of decoding and of inference, for the split by stage.
            crops: fills the places of a slot.
        """
        self._runner = runner
        self._decoders: queue.SimpleQueue[DaliDecoder] = queue.SimpleQueue()
        for decoder in decoders:
            self._decoders.put(decoder)
        self._workers = len(decoders)
        self._decode_clock, self._infer_clock = clocks
        self._crops = crops
        self.slices = Slices(batch_size)

    def warm_up(self) -> None:
        """Run one batch of nothing through every slot, which may halve the batch size."""
        for _ in range(self._workers):  # the slots take turns
            Embed(self._runner, self.slices).warm_up()

    def __call__(self, batch: Batch) -> Batch:
        vectors = np.empty((len(batch.files), self._runner.info.dimension), np.float32)  # (n, D)
        embedded = np.zeros(len(batch.files), np.bool_)
        outcomes = list(batch.outcomes)

        def embed(start: int, stop: int) -> None:
            places, rows, failures = self._embed(batch.files[start:stop])
            vectors[start + places] = rows
            embedded[start + places] = True
            outcomes.extend(Outcome(int(batch.rows[start + i]), status, why) for i, status, why in failures)

        self.slices.each(len(batch.files), embed)
        return replace(
            batch, rows=batch.rows[embedded], files=(), embeddings=vectors[embedded], outcomes=tuple(outcomes)
        )

    def _embed(self, files: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.float32], list[Any]]:
        """(m,) which files were embedded, (m, D) their vectors, and what became of the others."""
        began = time.perf_counter()
        infer_s, rows = 0.0, np.empty((0, self._runner.info.dimension), np.float32)
        with self._decoder() as decoder, self._runner.slot() as slot:
            crops = self._crops(slot)
            placed = decoder.decode(files, crops)
            count = len(placed.indices)
            if count:
                slot.start(count)
                rows, infer_s = slot.finish(count)
        self._infer_clock.add(infer_s, count)
        self._decode_clock.add(time.perf_counter() - began - infer_s, len(files))
        return np.array(placed.indices, np.int64), rows, placed.failures

    @contextmanager
    def _decoder(self) -> Iterator[DaliDecoder]:
        decoder = self._decoders.get()
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)


@contextmanager
def open_embed_files(
    engine: Path, info: EngineInfo, found: Settings, limits: Limits, clocks: tuple[StageClock, StageClock]
) -> Iterator[EmbedFiles]:
    """The stage's work on this machine's GPU.

    Args:
        engine: a TensorRT engine file.
        info: its sidecar.
        found: batch size, streams (slots) and decoders (threads of all decoders together).
        limits: what is refused before decoding.
        clocks: of decoding and of inference.
    Raises:
        FacemillError: see EmbedFiles, DaliDecoder and TensorRTRunner.
    """
    per_slot = decoder_bytes(found.batch_size, info.size)
    with (
        open_tensorrt(engine, slots=found.streams, decoder_bytes=per_slot) as runner,
        runner.driver,
        ExitStack() as stack,
    ):
        decoders = [
            stack.enter_context(
                DaliDecoder(
                    info.size,
                    info.channel_order,
                    device="mixed",
                    device_id=runner.driver.device.index,
                    batch_size=found.batch_size,
                    threads=math.ceil(found.decoders / runner.plan.slots),
                    limits=limits,
                )
            )
            for _ in range(runner.plan.slots)
        ]
        yield EmbedFiles(runner, decoders, found.batch_size, clocks, DeviceCrops)
