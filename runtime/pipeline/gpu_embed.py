"""Decoding and embedding as one stage, for photographs that do not leave the GPU in between.

Each thread of the stage has a decoder of its own and takes a slot: while one batch is decoded, another is embedded and
a third copied back. What the GPU's decoder does not read goes to the CPU's and joins the batch.
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
from .gpu_fill import Pool, Shrink
from .request import Request
from .settings import Settings
from .stages import StageClock
from .work import BatchLimit, Embed


class EmbedOnGpu(Protocol):
    """A stage that takes files and gives vectors, called from as many threads at once as there are slots.

    Attributes:
        limit: photos in one go.
    """

    limit: BatchLimit

    def warm_up(self) -> None:
        """Run one batch of nothing through every slot."""
        ...

    def __call__(self, batch: Encoded) -> Embedded: ...


class DeviceCrops:
    """The places of a slot, filled on the device: see images.dali_crops.Crops."""

    def __init__(self, slot: Slot, shrink: Shrink) -> None:
        self._slot, self._shrink = slot, shrink
        self._held: Any = None  # DALI may use their memory again only when crops were made of them
        self.stream: int | None = slot.stream.address

    def put_run(self, place: int, photos: Any) -> None:
        """See Crops.put_run."""
        if self._held is not None:  # a usual batch is one run; large photographs take memory, two runs at most
            self._slot.stream.synchronize()
        shapes = np.array(photos.shape(), np.int64)  # (m, 3)
        images = np.empty(len(shapes), IMAGE)
        images["pixels"] = [photos[i].data_ptr() for i in range(len(shapes))]
        images["height"], images["width"], images["pitch"] = shapes[:, 0], shapes[:, 1], 3 * shapes[:, 1]
        self._shrink(self._slot, place, images)
        self._held = photos

    def put(self, place: int, crop: NDArray[np.uint8]) -> None:
        """See Crops.put."""
        self._slot.fill(place, crop[None])


@dataclass(frozen=True, slots=True)
class CropResources:
    """What one thread works with, and no other at the same time."""

    decoder: DaliDecoder
    shrink: Shrink


class EmbedPhotos:
    """Encoded photographs to unit vectors: the work of a stage of as many threads as there are decoders."""

    def __init__(
        self,
        runner: TensorRTRunner,
        resources: Sequence[CropResources],
        batch_size: int,
        clocks: tuple[StageClock, StageClock],
    ) -> None:
        """Take over a runner and what its threads work with.

        Args:
            runner: with at least as many slots as there are threads.
            resources: of each thread, ready for use.
            batch_size: photographs in one slot, at most.
            clocks: of decoding and of inference, for the split by stage.
        """
        self._runner = runner
        self._resources = Pool(resources)
        self._decode_clock, self._infer_clock = clocks
        self.limit = BatchLimit(batch_size)

    def warm_up(self) -> None:
        """Run one batch of nothing through every slot, which may halve the batch size."""
        side = self._runner.info.size
        for _ in range(len(self._resources)):  # slots and resources take turns
            Embed(self._runner, self.limit).warm_up()
            with self._resources.take() as own, self._runner.slot() as slot:  # compiles the kernel
                own.shrink(slot, 0, np.array([(slot.places.address, 3 * side, side, side)], IMAGE))
                slot.stream.synchronize()

    def __call__(self, batch: Encoded) -> Embedded:
        vectors = np.empty((len(batch.files), self._runner.info.dimension), np.float32)  # (n, D)
        embedded = np.zeros(len(batch.files), np.bool_)
        outcomes = list(batch.outcomes)

        def embed(start: int, stop: int) -> None:
            places, rows, failures = self._embed(batch.files[start:stop])
            vectors[start + places] = rows
            embedded[start + places] = True
            outcomes.extend(Outcome(int(batch.rows[start + i]), status, why) for i, status, why in failures)

        self.limit.each(len(batch.files), embed)
        return Embedded(batch.rows[embedded], tuple(outcomes), batch.digests, embeddings=vectors[embedded])

    def _embed(self, files: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.float32], list[Any]]:
        """(m,) which files were embedded, (m, D) their vectors, and what became of the others."""
        began = time.perf_counter()
        infer_s, rows = 0.0, np.empty((0, self._runner.info.dimension), np.float32)
        with self._resources.take() as own, self._runner.slot() as slot:
            crops = DeviceCrops(slot, own.shrink)  # holds photographs until the slot has ended
            placed = own.decoder.decode(files, crops)
            count = len(placed.indices)
            if count:
                slot.start(count)
                rows, infer_s = slot.finish(count)
        self._infer_clock.add(infer_s, count)
        self._decode_clock.add(time.perf_counter() - began - infer_s, len(files))
        return np.array(placed.indices, np.int64), rows, placed.failures


@contextmanager
def open_embed_photos(request: Request, settings: Settings, clocks: Mapping[str, StageClock]) -> Iterator[EmbedPhotos]:
    """The stage's work on this machine's GPU.

    Args:
        request: its engine is of TensorRT.
        settings: batch size, streams (slots) and decoders (threads of all decoders together).
        clocks: of "decode" and "infer".
    Raises:
        FacemillError: see EmbedPhotos, DaliDecoder and TensorRTRunner.
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
                own(Shrink(driver, kernels, size=info.size, most=settings.batch_size)),
            )
            for _ in range(runner.plan.slots)
        ]
        yield EmbedPhotos(runner, resources, settings.batch_size, (clocks["decode"], clocks["infer"]))


def dali_options(request: Request, settings: Settings, runner: TensorRTRunner) -> DaliOptions:
    """How the decoder of each slot of a runner decodes."""
    return DaliOptions(
        device="mixed",
        device_id=runner.driver.device.index,
        batch_size=settings.batch_size,
        threads=math.ceil(settings.decoders / runner.plan.slots),
        limits=request.limits,
    )
