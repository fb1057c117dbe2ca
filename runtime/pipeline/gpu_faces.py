"""Decoding, detection, the warp and embedding as one stage, for photographs that do not leave the GPU in between.

Each thread of the stage has a decoder of its own, and takes a slot of the detector's engine, then one of the embedding
engine's: while faces are looked for in one batch, another is decoded and a third embedded. What is not settled on the
device goes the CPU's way and joins the batch: files that DALI does not read, photographs in whose views there no face
is sure or the face is small, and faces that want to be cut from a larger photograph than the reduced one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cuda.kernels import IMAGE, Kernels
from ..engines.engine import Engine
from ..engines.tensorrt.cache import cache_path
from ..engines.tensorrt.memory import detector_bytes
from ..engines.tensorrt.runner import TensorRTRunner
from ..faces.align import transforms_back
from ..faces.quality import sharpness
from ..faces.rules import FaceRules
from ..faces.selection import LONG_SIDE, judge
from ..images.dali_photos import DaliPhotos, PhotoRun, photo_decoder_bytes
from ..images.decode import Limits
from ..records import FACE, Crops, Embedded, Encoded
from .face_work import DecodePhotos, find_faces_with
from .gpu_detect import ChosenFaces, DetectOnGpu, pixels_of
from .gpu_embed import dali_options
from .gpu_fill import Pool, Warp
from .request import Request
from .settings import Settings
from .stages import StageClock
from .work import BatchLimit, Embed

Clocks = tuple[StageClock, StageClock, StageClock]  # of decoding, of detection (with the warp), of inference


@dataclass(frozen=True, slots=True)
class FaceResources:
    """What one thread works with, and no other at the same time.

    Attributes:
        decoder: of photographs, in the detector's channel order, with the views of the rules.
        warp: to crops in the embedding engine's channel order.
    """

    decoder: DaliPhotos
    warp: Warp


class EmbedFaces:
    """Encoded photos to the unit vectors of their faces: the work of a stage, with resources for each thread."""

    def __init__(
        self,
        runner: TensorRTRunner,
        detector: TensorRTRunner,
        resources: Sequence[FaceResources],
        rules: FaceRules,
        batch_size: int,
        limits: Limits,
        clocks: Clocks,
    ) -> None:
        """Take over runners and what their threads work with.

        Args:
            runner: of the embedding engine, with at least as many slots as there are threads.
            detector: of the detector's; what is not settled on the device goes through its host side.
            resources: of each thread, ready for use.
            rules: which faces count.
            batch_size: photographs in one go, and faces in one slot, at most.
            limits: what is refused before decoding.
            clocks: for the split by stage.
        """
        self._runner = runner
        self._resources = Pool(resources)
        self._decode_clock, self._detect_clock, self._infer_clock = clocks
        self._size, self._rules = runner.info.size, rules
        self._detect = DetectOnGpu(detector, rules, self._size)
        self._photos = DecodePhotos(runner.info.channel_order, limits)
        self._nothing = Crops(
            np.empty(0, np.int64), images=np.empty((0, self._size, self._size, 3), np.uint8), faces=np.empty(0, FACE)
        )
        self._find_faces = find_faces_with(detector, rules, runner.info, limits)
        self.limit = BatchLimit(batch_size)

    def warm_up(self) -> None:
        """Run one batch of nothing through every slot, which may halve the batch size."""
        for _ in range(len(self._resources)):  # slots and resources take turns
            Embed(self._runner, self.limit).warm_up()
            self._detect.warm_up()
            with self._resources.take() as own, self._runner.slot() as slot:  # compiles the kernel
                own.warp(slot, np.zeros(1, IMAGE), np.full((1, 2, 3), np.nan, np.float32))
                slot.stream.synchronize()

    def __call__(self, batch: Encoded) -> Embedded:
        parts: list[Embedded] = []

        def embed(start: int, stop: int) -> None:
            parts.extend(self._embed(batch.rows[start:stop], batch.files[start:stop]))

        self.limit.each(len(batch.files), embed)
        rows, faces = self._nothing.rows, self._nothing.faces
        vectors = np.empty((0, self._runner.info.dimension), np.float32)
        return join([Embedded(rows, batch.outcomes, batch.digests, embeddings=vectors, faces=faces), *parts])

    def _embed(self, rows: NDArray[np.int64], files: Sequence[bytes]) -> list[Embedded]:
        """Faces, vectors and outcomes of some files; in several parts where their photographs take much memory."""
        parts, chosen, done = [], ChosenFaces(), set[int]()
        with self._resources.take() as own:
            for run in self._decoded(own.decoder, files):
                if chosen.held and chosen.pixels + pixels_of(run) > own.decoder.batch_pixels:
                    parts.append(self._vectors(own, chosen, self._nothing))
                    chosen = ChosenFaces()
                with self._detect_clock.work(0):
                    done.update(chosen.add(run, self._detect(run), rows, self._rules))
            rest = [i for i in range(len(files)) if i not in done]
            host = self._nothing
            if rest:
                host = self._on_the_host(Encoded(rows[rest], files=tuple(files[i] for i in rest)))
            parts.append(self._vectors(own, chosen, host))
        self._decode_clock.add(0, len(files))
        self._detect_clock.add(0, len(files))
        return parts

    def _decoded(self, decoder: DaliPhotos, files: Sequence[bytes]) -> Iterator[PhotoRun]:
        """The runs of a decoder, on the clock."""
        runs = decoder.decode(files)
        while True:
            with self._decode_clock.work(0):
                run = next(runs, None)
            if run is None:
                return
            yield run

    def _on_the_host(self, batch: Encoded) -> Crops:
        """The CPU's way from files to crops."""
        with self._decode_clock.work(0):
            photos = self._photos(batch)
        with self._detect_clock.work(0):
            return self._find_faces(photos)

    def _vectors(self, own: FaceResources, chosen: ChosenFaces, host: Crops) -> Embedded:
        """Faces on the device, then crops on the host, through the engine together, a slot at a time."""
        began, infer_s, most = time.perf_counter(), 0.0, self.limit.size
        rows, faces = np.array(chosen.rows, np.int64), np.concatenate(chosen.faces)  # (F,) each
        images = np.concatenate(chosen.images)  # (F,) IMAGE
        transforms = transforms_back(np.concatenate(chosen.landmarks), self._size)  # (F, 2, 3)
        crops = host.images
        vectors = np.empty((len(rows) + len(crops), self._runner.info.dimension), np.float32)
        for start in range(0, len(vectors), most):
            stop = min(start + most, len(vectors))
            made = len(images[start:stop])
            sent = crops[start + made - len(rows) : stop - len(rows)]
            with self._runner.slot() as slot:
                own.warp(slot, images[start:stop], transforms[start:stop])
                if len(sent):
                    slot.fill(made, sent)
                slot.fetch(made)
                slot.start(stop - start)
                faces["sharpness"][start:stop] = sharpness(slot.fetched(made))  # while the GPU embeds
                vectors[start:stop], seconds = slot.finish(stop - start)
            infer_s += seconds
        self._infer_clock.add(infer_s, len(vectors))
        self._detect_clock.add(time.perf_counter() - began - infer_s, 0)
        good, poor = judge(self._rules, rows, faces)
        device = Embedded(
            rows[good],
            (*chosen.outcomes, *poor),
            embeddings=vectors[: len(rows)][good],
            faces=faces[good],
            face_counts=chosen.counts,
        )
        on_host = Embedded(
            host.rows,
            host.outcomes,
            embeddings=vectors[len(rows) :],
            faces=host.faces,
            face_counts=host.face_counts,
        )
        return join([device, on_host])


def join(batches: Sequence[Embedded]) -> Embedded:
    """Several embedded batches in one, with the digests of the first.

    Rows ascend, and the faces of a photo, which are all in one of the batches, keep their order.
    """
    rows = np.concatenate([batch.rows for batch in batches])
    order = np.argsort(rows, kind="stable")
    counts: dict[int, int] = {}
    for batch in batches:
        counts.update(batch.face_counts)
    return Embedded(
        rows[order],
        tuple(outcome for batch in batches for outcome in batch.outcomes),
        batches[0].digests,
        embeddings=np.concatenate([batch.embeddings for batch in batches])[order],
        faces=np.concatenate([batch.faces for batch in batches if batch.faces is not None])[order],
        face_counts=counts,
    )


@contextmanager
def open_embed_faces(
    request: Request, detector: Engine, settings: Settings, clocks: Mapping[str, StageClock]
) -> Iterator[EmbedFaces]:
    """The stage's work on this machine's GPU.

    Args:
        request: its engine is of TensorRT.
        detector: of TensorRT too.
        settings: batch size, streams (slots of either engine) and decoders (threads of all decoders together).
        clocks: of "decode", "detect" and "infer".
    Raises:
        FacemillError: see EmbedFaces, DaliPhotos and TensorRTRunner.
    """
    rules, most = request.faces, settings.batch_size
    finder, views = detector.info, [view.long_side for view in rules.find.views]
    per_slot = photo_decoder_bytes(most, views)
    with ExitStack() as stack:
        own = stack.enter_context
        # The first plan has everything in it; the second is made with what the first one has left.
        runner = own(
            TensorRTRunner(
                request.engine.content(),
                request.engine.info,
                slots=settings.streams,
                decoder_bytes=per_slot,
                detector_bytes=detector_bytes(finder),
                cache=cache_path(request.engine.path),
            )
        )
        searcher = own(
            TensorRTRunner(
                detector.content(),
                finder,
                slots=runner.plan.slots,
                decoder_bytes=per_slot,
                cache=cache_path(detector.path),
            )
        )
        own(runner.driver)
        kernels, info = Kernels(runner.driver), runner.info
        reverse = finder.channel_order != info.channel_order
        options = dali_options(request, settings, runner)
        resources = [
            FaceResources(
                own(DaliPhotos(views, LONG_SIDE, finder.channel_order, options)),
                own(Warp(runner.driver, kernels, size=info.size, reverse=reverse, most=most)),
            )
            for _ in range(runner.plan.slots)
        ]
        three = clocks["decode"], clocks["detect"], clocks["infer"]
        yield EmbedFaces(runner, searcher, resources, rules, most, request.limits, three)
