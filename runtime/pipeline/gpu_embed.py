"""Decode and embed in one stage, so that photos stay on the GPU in between.

Each thread of the stage has its own decoder and takes a slot: while one batch is decoded, another is embedded and a
third is copied back. Files that the GPU's decoder cannot read fall back to the CPU and rejoin the batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..cuda.kernels import IMAGE, Kernels
from ..engines.tensorrt.cache import cache_path
from ..engines.tensorrt.runner import TensorRTRunner
from ..engines.tensorrt.slot import Slot
from ..images.dali_crops import DaliDecoder
from ..images.jpeg_runs import RUNS_BYTES, DaliOptions
from ..records import Embedded, Encoded, Outcome
from .gpu_check import check_crop, sampled
from .gpu_fill import Pool, Shrink
from .request import Request
from .settings import Settings
from .stages import StageClock
from .work import BatchLimit


class EmbedOnGpu(Protocol):
    """A stage from encoded photos to vectors. It is called from one thread per slot at the same time.

    Attributes:
        limit: photos per batch.
    """

    limit: BatchLimit

    def warm_up(self) -> None:
        """Run one empty batch through every slot."""
        ...

    def __call__(self, batch: Encoded) -> Embedded: ...


class DeviceCrops:
    """Fills the places of a slot on the device. Implements `images.dali_crops.Crops`."""

    def __init__(self, slot: Slot, shrink: Shrink) -> None:
        self._slot, self._shrink = slot, shrink
        self._held: Any = None  # DALI may reuse this memory only after the crops were made
        self.stream: int | None = slot.stream.address

    def put_run(self, place: int, photos: Any) -> None:
        """Resize the photos of a run into crops."""
        shapes = np.array(photos.shape(), np.int64)  # (m, 3)
        images = np.empty(len(shapes), IMAGE)
        images["pixels"] = [photos[i].data_ptr() for i in range(len(shapes))]
        images["height"], images["width"], images["pitch"] = shapes[:, 0], shapes[:, 1], 3 * shapes[:, 1]
        self._shrink(self._slot, place, images)
        self._held = photos

    def before_next_run(self) -> None:
        """Wait for the crops so far. Most batches are one run; large photos need several."""
        self._slot.stream.synchronize()

    def put(self, place: int, crop: NDArray[np.uint8]) -> None:
        """Copy one crop to the device."""
        self._slot.fill(place, crop[None])


@dataclass(frozen=True, slots=True)
class CropResources:
    """The resources of one thread."""

    decoder: DaliDecoder
    shrink: Shrink


class EmbedPhotos:
    """Decode and embed: encoded photos to unit vectors. The stage has one thread per decoder."""

    def __init__(
        self,
        runner: TensorRTRunner,
        resources: Sequence[CropResources],
        batch_size: int,
        clocks: tuple[StageClock, StageClock],
    ) -> None:
        """Take a runner and the resources of its threads.

        Args:
            runner: a runner with at least one slot per thread.
            resources: opened resources of each thread.
            batch_size: maximum number of photos in a slot.
            clocks: the clocks of decoding and inference.
        """
        self._runner = runner
        self._resources = Pool(resources)
        self._decode_clock, self._infer_clock = clocks
        self.limit = BatchLimit(batch_size)

    def warm_up(self) -> None:
        """Run one empty batch through every slot, which may halve the batch size."""
        side = self._runner.info.size

        def warm_slot(start: int, stop: int) -> None:
            with self._resources.take() as own, self._runner.slot() as slot:
                own.shrink(slot, 0, np.array([(slot.places.address, 3 * side, side, side)], IMAGE))  # compiles it
                slot.stream.synchronize()
                slot.run_empty(stop - start, side)

        for _ in range(len(self._resources)):  # slots and resources take turns
            self.limit.each(self.limit.size, warm_slot)
        self._runner.keep_kernels()

    def __call__(self, batch: Encoded) -> Embedded:
        vectors = np.empty((len(batch.files), self._runner.info.dimension), np.float32)  # (n, D)
        embedded = np.zeros(len(batch.files), np.bool_)
        outcomes = list(batch.outcomes)

        def embed(start: int, stop: int) -> None:
            part = Encoded(batch.rows[start:stop], files=batch.files[start:stop], names=batch.names)
            places, rows, failures = self._embed(part)
            vectors[start + places] = rows
            embedded[start + places] = True
            outcomes.extend(Outcome(int(batch.rows[start + i]), status, detail) for i, status, detail in failures)

        self.limit.each(len(batch.files), embed)
        return Embedded(batch.rows[embedded], tuple(outcomes), batch.digests, embeddings=vectors[embedded])

    def _embed(self, batch: Encoded) -> tuple[NDArray[np.int64], NDArray[np.float32], list[Any]]:
        """Embed files. Returns (m,) indices of embedded files, (m, D) their vectors, and the failures of the others."""
        files = batch.files
        start_s = time.perf_counter()
        infer_s, rows = 0.0, np.empty((0, self._runner.info.dimension), np.float32)
        with self._resources.take() as own, self._runner.slot() as slot:
            crops = DeviceCrops(slot, own.shrink)  # keeps photos until the slot has finished
            placed = own.decoder.decode(files, crops)
            count = len(placed.indices)
            for place in sampled(batch.rows, placed.indices[: placed.by_dali]):
                index, info = placed.indices[place], self._runner.info
                check_crop(
                    slot,
                    place,
                    files[index],
                    batch.name_of(index),
                    size=info.size,
                    channel_order=info.channel_order,
                    limits=own.decoder.limits,
                )
            if count:
                slot.start(count, self.limit.size)  # one size, so that a row does not depend on its batch
                rows, infer_s = slot.finish(count)
        self._infer_clock.add(infer_s, count)
        self._decode_clock.add(time.perf_counter() - start_s - infer_s, len(files))
        return np.array(placed.indices, np.int64), rows, placed.failures


@contextmanager
def open_embed_photos(request: Request, settings: Settings, clocks: Mapping[str, StageClock]) -> Iterator[EmbedPhotos]:
    """Open the stage on the GPU of this machine.

    Args:
        request: a request with a TensorRT engine.
        settings: batch size, streams (slots) and decoders (threads of all decoders together).
        clocks: with "decode" and "infer".
    Raises:
        FacemillError: DALI or the engine cannot be opened, or the GPU has too little memory.
    """
    engine, info = request.engine, request.engine.info
    with (
        TensorRTRunner(
            engine.content(),
            engine.info,
            slots=settings.streams,
            decoder_bytes=RUNS_BYTES,
            cache=cache_path(engine.path),
        ) as runner,
        ExitStack() as stack,
    ):
        own = stack.enter_context
        driver, kernels = own(runner.driver), Kernels(runner.driver)
        options = dali_options(request, settings, runner)
        resources = [
            CropResources(
                own(DaliDecoder(info.size, info.channel_order, options)),
                own(Shrink(driver, kernels, size=info.size, capacity=settings.batch_size)),
            )
            for _ in range(runner.plan.slots)
        ]
        yield EmbedPhotos(runner, resources, settings.batch_size, (clocks["decode"], clocks["infer"]))


def dali_options(request: Request, settings: Settings, runner: TensorRTRunner) -> DaliOptions:
    """The options of the decoder of each slot of a runner."""
    return DaliOptions(
        device="mixed",
        device_id=runner.driver.device.index,
        batch_size=settings.batch_size,
        threads=math.ceil(settings.decoders / runner.plan.slots),
        limits=request.limits,
    )
