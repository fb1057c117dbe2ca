"""Decode, detect, align and embed in one stage, so that photos stay on the GPU in between.

Each thread of the stage has its own decoder. It takes a slot of the detector's engine, one of the landmark network's,
then one of the embedding engine: while faces of one batch are detected, another batch is decoded and a third embedded.
Everything else falls back to the CPU and rejoins the batch: files that DALI cannot read, photos without a confident
face in the views on the GPU, small faces, and faces that need a larger photo than the reduced one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ..cuda.kernels import IMAGE, Kernels
from ..engines.backends import open_runner
from ..engines.engine import Engine, EngineInfo
from ..engines.tensorrt.cache import cache_path
from ..engines.tensorrt.memory import detector_bytes
from ..engines.tensorrt.runner import TensorRTRunner
from ..faces.align import inverse_transforms
from ..faces.quality import measure_crops
from ..faces.rules import FaceRules
from ..faces.selection import LONG_SIDE, judge_faces
from ..images.dali_photos import DaliPhotos, PhotoRun, photo_decoder_bytes
from ..images.decode import Limits
from ..records import FACE, Crops, Embedded, Encoded, unread_attributes
from .face_work import DecodePhotos, find_faces_with
from .gpu_check import check_photo, sampled
from .gpu_detect import DetectOnGpu, LookOnGpu, SelectedFaces, count_pixels
from .gpu_embed import dali_options
from .gpu_fill import Pool, Warp
from .request import Request
from .settings import Settings
from .stages import StageClock
from .work import BatchLimit, ReadAttributes

Clocks = tuple[StageClock, StageClock, StageClock]  # decoding, detection (with the warp), inference


@dataclass(frozen=True, slots=True)
class FaceResources:
    """The resources of one thread.

    Attributes:
        decoder: decodes photos and draws their views, in the channel order of the detector.
        warp: makes crops in the channel order of the embedding engine.
        square_warp: makes squares in the channel order of the landmark network; None without one.
    """

    decoder: DaliPhotos
    warp: Warp
    square_warp: Warp | None = None


class EmbedFaces:
    """Decode, detect, align and embed: encoded photos to the unit vectors of their faces."""

    def __init__(
        self,
        runner: TensorRTRunner,
        detector: TensorRTRunner,
        resources: Sequence[FaceResources],
        rules: FaceRules,
        batch_size: int,
        limits: Limits,
        clocks: Clocks,
        landmarks: TensorRTRunner | None = None,
        read_attributes: ReadAttributes | None = None,
    ) -> None:
        """Take runners and the resources of their threads.

        Args:
            runner: runner of the embedding engine, with at least one slot per thread.
            detector: runner of the detector. Photos that fall back to the CPU go through its host side.
            resources: opened resources of each thread.
            rules: which faces are embedded.
            batch_size: maximum number of photos in a batch, and of faces in a slot.
            limits: size limits, checked before decoding.
            clocks: the clocks of decoding, detection and inference.
            landmarks: runner of the landmark network; None to crop by the landmarks of the detector.
            read_attributes: reads age and gender from the crops, which come to the host anyway; None to read neither.
        """
        self._runner = runner
        self._detectors = [detector, *([] if landmarks is None else [landmarks])]
        self._resources = Pool(resources)
        self._decode_clock, self._detect_clock, self._infer_clock = clocks
        self._size, self._rules = runner.info.size, rules
        self._detect = DetectOnGpu(detector, rules, self._size)
        self._device_order, self._limits = detector.info.channel_order, limits  # of photos on the device
        self._look = None if landmarks is None else LookOnGpu(landmarks)
        self._photos = DecodePhotos(runner.info.channel_order, limits)
        self._no_crops = Crops(
            np.empty(0, np.int64), images=np.empty((0, self._size, self._size, 3), np.uint8), faces=np.empty(0, FACE)
        )
        self._find_faces = find_faces_with(detector, rules, runner.info, limits, landmarks)
        self._read_attributes = read_attributes
        if read_attributes is not None:
            self._no_crops = replace(self._no_crops, attributes=unread_attributes(0))
        self.limit = BatchLimit(batch_size)

    def warm_up(self) -> None:
        """Run one empty batch through every slot, which may halve the batch size."""

        def warm_slot(start: int, stop: int) -> None:
            with self._resources.take() as own, self._runner.slot() as slot:
                own.warp(slot, np.zeros(1, IMAGE), np.full((1, 2, 3), np.nan, np.float32))  # compiles the kernel
                slot.stream.synchronize()
                slot.run_empty(stop - start, self._size)

        for _ in range(len(self._resources)):  # slots and resources take turns
            self.limit.each(self.limit.size, warm_slot)
            self._detect.warm_up()
            if self._look is not None:
                self._look.warm_up()
        for runner in (self._runner, *self._detectors):
            runner.keep_kernels()

    def __call__(self, batch: Encoded) -> Embedded:
        parts: list[Embedded] = []

        def embed(start: int, stop: int) -> None:
            parts.extend(self._embed(Encoded(batch.rows[start:stop], files=batch.files[start:stop], names=batch.names)))

        self.limit.each(len(batch.files), embed)
        rows, faces = self._no_crops.rows, self._no_crops.faces
        vectors = np.empty((0, self._runner.info.dimension), np.float32)
        empty = Embedded(rows, batch.outcomes, batch.digests, embeddings=vectors, faces=faces)
        return join_batches([replace(empty, attributes=self._no_crops.attributes), *parts])

    def _embed(self, batch: Encoded) -> list[Embedded]:
        """Embed files. Returns several parts if their photos take much memory."""
        rows, files = batch.rows, batch.files
        parts, selected, done = [], SelectedFaces(), set[int]()
        with self._resources.take() as own:
            for run in self._decode(own.decoder, files):
                if selected.held and selected.pixels + count_pixels(run) > own.decoder.batch_pixels:
                    parts.append(self._infer(own, selected, self._no_crops))
                    selected = SelectedFaces()
                self._check(run, batch)
                with self._detect_clock.work(0):
                    done.update(selected.add(run, self._detect(run), rows, self._rules))
            rest = [i for i in range(len(files)) if i not in done]
            host = self._no_crops
            if rest:
                host = self._crop_on_host(Encoded(rows[rest], files=tuple(files[i] for i in rest), names=batch.names))
            parts.append(self._infer(own, selected, host))
        self._decode_clock.add(0, len(files))
        self._detect_clock.add(0, len(files))
        return parts

    def _decode(self, decoder: DaliPhotos, files: Sequence[bytes]) -> Iterator[PhotoRun]:
        """Yield the runs of a decoder, and clock the decoding."""
        runs = decoder.decode(files)
        while True:
            with self._decode_clock.work(0):
                run = next(runs, None)
            if run is None:
                return
            yield run

    def _check(self, run: PhotoRun, batch: Encoded) -> None:
        """Compare some photos on the device with the CPU's decode."""
        for position in sampled(batch.rows, run.indices):
            index = run.indices[position]
            with self._runner.slot() as slot:
                check_photo(
                    slot,
                    run.photos[position],
                    batch.files[index],
                    batch.name_of(index),
                    long_side=LONG_SIDE,
                    channel_order=self._device_order,
                    limits=self._limits,
                )

    def _crop_on_host(self, batch: Encoded) -> Crops:
        """Decode, detect and crop on the CPU."""
        with self._decode_clock.work(0):
            photos = self._photos(batch)
        with self._detect_clock.work(0):
            crops = self._find_faces(photos)
            return crops if self._read_attributes is None else self._read_attributes(crops)

    def _infer(self, own: FaceResources, selected: SelectedFaces, host: Crops) -> Embedded:
        """Embed the faces on the device together with the crops on the host, a slot at a time."""
        start_s, infer_s, batch_size = time.perf_counter(), 0.0, self.limit.size
        if self._look is not None and selected.rows:
            assert own.square_warp is not None
            selected.look_again(self._look, own.square_warp)
        rows, faces = np.array(selected.rows, np.int64), np.concatenate(selected.faces)  # (F,) each
        images = np.concatenate(selected.images)  # (F,) IMAGE
        transforms = inverse_transforms(np.concatenate(selected.landmarks), self._size)  # (F, 2, 3)
        crops = host.images
        vectors = np.empty((len(rows) + len(crops), self._runner.info.dimension), np.float32)
        attributes = None if self._read_attributes is None else unread_attributes(len(rows))
        for start in range(0, len(vectors), batch_size):
            stop = min(start + batch_size, len(vectors))
            on_device = len(images[start:stop])
            host_crops = crops[start + on_device - len(rows) : stop - len(rows)]
            with self._runner.slot() as slot:
                own.warp(slot, images[start:stop], transforms[start:stop])
                if len(host_crops):
                    slot.fill(on_device, host_crops)
                slot.fetch(on_device)
                slot.start(stop - start, batch_size)
                measure_crops(faces[start : start + on_device], slot.fetched(on_device))  # while the GPU embeds
                if attributes is not None and self._read_attributes is not None:
                    attributes[start : start + on_device] = self._read_attributes.read(slot.fetched(on_device))
                vectors[start:stop], seconds = slot.finish(stop - start)
            infer_s += seconds
        self._infer_clock.add(infer_s, len(vectors))
        self._detect_clock.add(time.perf_counter() - start_s - infer_s, 0)
        good, rejected = judge_faces(self._rules, rows, faces)
        device = Embedded(
            rows[good],
            (*selected.outcomes, *rejected),
            embeddings=vectors[: len(rows)][good],
            faces=faces[good],
            face_counts=selected.counts,
            attributes=None if attributes is None else attributes[good],
        )
        on_host = Embedded(
            host.rows,
            host.outcomes,
            notes=host.notes,
            embeddings=vectors[len(rows) :],
            faces=host.faces,
            face_counts=host.face_counts,
            attributes=host.attributes,
        )
        return join_batches([device, on_host])


def join_batches(batches: Sequence[Embedded]) -> Embedded:
    """Join embedded batches into one, with the digests of the first.

    Rows ascend. The faces of a photo are all in one of the batches and keep their order.
    """
    rows = np.concatenate([batch.rows for batch in batches])
    order = np.argsort(rows, kind="stable")
    counts: dict[int, int] = {}
    notes: dict[int, str] = {}
    for batch in batches:
        counts.update(batch.face_counts)
        notes.update(batch.notes)
    attributes = [batch.attributes for batch in batches if batch.attributes is not None]
    return Embedded(
        rows[order],
        tuple(outcome for batch in batches for outcome in batch.outcomes),
        batches[0].digests,
        notes,
        embeddings=np.concatenate([batch.embeddings for batch in batches])[order],
        faces=np.concatenate([batch.faces for batch in batches if batch.faces is not None])[order],
        face_counts=counts,
        attributes=np.concatenate(attributes)[order] if attributes else None,
    )


@contextmanager
def open_embed_faces(
    request: Request, detector: Engine, settings: Settings, clocks: Mapping[str, StageClock]
) -> Iterator[EmbedFaces]:
    """Open the stage on the GPU of this machine.

    Args:
        request: a request with a TensorRT engine.
        detector: a TensorRT engine that detects faces.
        settings: batch size, streams (slots of either engine) and decoders (threads of all decoders together).
        clocks: with "decode", "detect" and "infer".
    Raises:
        FacemillError: DALI or an engine cannot be opened, or the GPU has too little memory.
    """
    rules, batch_size = request.faces, settings.batch_size
    detector_info, views = detector.info, [view.long_side for view in rules.find.views]
    per_slot = photo_decoder_bytes(batch_size, views)
    look = request.landmarks
    with ExitStack() as stack:
        own = stack.enter_context
        # The first memory plan covers everything; the second is made with the memory that the first leaves.
        runner = own(
            TensorRTRunner(
                request.engine.content(),
                request.engine.info,
                slots=settings.streams,
                decoder_bytes=per_slot,
                detector_bytes=sum(detector_bytes(engine.info) for engine in (detector, look) if engine),
                cache=cache_path(request.engine.path),
            )
        )
        detector_runner = own(
            TensorRTRunner(
                detector.content(),
                detector_info,
                slots=runner.plan.slots,
                decoder_bytes=per_slot,
                cache=cache_path(detector.path),
            )
        )
        look_runner = None
        if look is not None:
            look_runner = own(
                TensorRTRunner(look.content(), look.info, slots=runner.plan.slots, cache=cache_path(look.path))
            )
        own(runner.driver)
        kernels, info = Kernels(runner.driver), runner.info
        reverse = detector_info.channel_order != info.channel_order
        options = dali_options(request, settings, runner)

        def square_warp(look: EngineInfo) -> Warp:
            reverse = detector_info.channel_order != look.channel_order
            return Warp(runner.driver, kernels, size=look.size, reverse=reverse, capacity=look.profile[2])

        resources = [
            FaceResources(
                own(DaliPhotos(views, LONG_SIDE, detector_info.channel_order, options)),
                own(Warp(runner.driver, kernels, size=info.size, reverse=reverse, capacity=batch_size)),
                own(square_warp(look.info)) if look else None,
            )
            for _ in range(runner.plan.slots)
        ]
        stage_clocks = clocks["decode"], clocks["detect"], clocks["infer"]
        read = None
        if request.attributes and request.attributes.engine:
            read = ReadAttributes(
                own(open_runner(request.attributes.engine, threads=1)), request.attributes.names, info.channel_order
            )
        limits = request.limits
        yield EmbedFaces(runner, detector_runner, resources, rules, batch_size, limits, stage_clocks, look_runner, read)
