"""Run batches of JPEGs through a graph of NVIDIA DALI, on the CPU or, with nvJPEG, on the GPU.

One damaged file makes DALI fail the whole batch, and the pipeline object with it. So DALI gets only files that look
like complete JPEGs of the common kinds. A failed batch runs again without the file that DALI names. The caller sees
which files DALI decoded, and decodes the others on the CPU, whose result is final.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConfigError, EngineError, OutOfMemoryError
from ..extras import require
from .decode import Limits
from .header import Header, read_header

logger = logging.getLogger(__name__)

BATCH_PIXELS = 1 << 25  # of one run
# Upper bound of the device memory of a "mixed" pipeline and two runs in use, for a memory plan: three bytes for every
# pixel, the same again for the planes of nvJPEG, and all of it twice.
RUNS_BYTES = 12 * BATCH_PIXELS

_END_OF_IMAGE = b"\xff\xd9"
_TAIL_BYTES = 64  # the end marker may be anywhere in them, because some writers pad the file
_DAMAGED = re.compile(r"sample #(\d+)")  # in DALI's message about a file that it cannot decode
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "bad alloc")

# The steps after decoding: (nvidia.dali, encoded files, decoded images) -> outputs, all of them nodes of DALI.
Graph = Callable[[Any, Any, Any], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run of DALI.

    Attributes:
        indices: indices of the decoded files, ascending.
        headers: the headers of these files.
        outputs: the outputs of the graph: DALI TensorLists with one entry per file. Their memory stays valid while they
            are referenced.
    """

    indices: list[int]
    headers: list[Header]
    outputs: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class DaliOptions:
    """How DALI decodes.

    Attributes:
        device: "cpu", or "mixed" for nvJPEG and a graph on the GPU.
        device_id: number of the GPU, for "mixed" only.
        batch_size: maximum number of files in one run.
        batch_pixels: maximum number of pixels in one run. DALI holds all decoded images of a run, 3 bytes per pixel,
            and keeps the memory. DALI gets no larger image.
        threads: threads of DALI.
        limits: size limits; DALI gets no file over them.
        hardware: fraction of the work for the JPEG hardware of the GPU, if it has any. Some drivers report photos as
            decoded that the hardware has skipped (nvImageCodec 0.8 gives one status for a batch), so the default is 0.
    Raises:
        ConfigError: a value is out of range.
    """

    device: str = "cpu"
    device_id: int = 0
    batch_size: int = 64
    batch_pixels: int = BATCH_PIXELS
    threads: int = 2
    limits: Limits = field(default_factory=Limits)
    hardware: float = 0.0

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "mixed"):
            raise ConfigError(f"the device of the DALI decoder is {self.device!r}; expected: 'cpu' or 'mixed'")
        for name in ("batch_size", "batch_pixels", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the DALI decoder is {getattr(self, name)}; expected: at least 1")


class JpegRuns:
    """Runs a graph of DALI on many JPEGs at once. Use it as a context manager, from one thread at a time.

    Args:
        graph: the steps after decoding.
        channel_order: "rgb" or "bgr".
        options: how DALI decodes.
    """

    def __init__(self, graph: Graph, channel_order: str, options: DaliOptions) -> None:
        self._graph, self._channel_order, self._options = graph, channel_order, options
        self._pipe: Any = None

    def __enter__(self) -> JpegRuns:
        """Build the pipeline.

        Raises:
            MissingDependencyError: DALI is not installed.
            EngineError: DALI cannot use the device.
            OutOfMemoryError: the device has too little memory.
        """
        self._pipe = self._build()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe = None

    def run(
        self, files: Sequence[bytes], stream: int | None = None, before_next: Callable[[], None] = lambda: None
    ) -> Iterator[Run]:
        """Run the graph on the files that DALI can decode, in as many runs as necessary.

        Args:
            files: encoded photos, of any format, damaged or not.
            stream: the cudaStream_t on which the outputs become ready; None: they are ready when they are yielded.
            before_next: called before each run but the first. It waits until the GPU has read the outputs so far,
                because the JPEG hardware of some GPUs writes its outputs without waiting for the stream.
        Raises:
            EngineError: DALI cannot use the device any more.
            OutOfMemoryError: the device has no memory for so many photos; fewer may fit.
        """
        if self._pipe is None:  # it was dropped when memory ran out
            self._pipe = self._build()
        for number, part in enumerate(self._parts(files)):
            if number:
                before_next()
            run = self._decode(files, part, stream)
            if run is not None:
                yield run

    def _parts(self, files: Sequence[bytes]) -> Iterator[dict[int, Header]]:
        """Yield the files for DALI by index, in batches within the limits."""
        part: dict[int, Header] = {}
        total = 0
        for i, data in enumerate(files):
            header = self._header(data)
            if header is None:
                continue
            pixels = header.width * header.height
            if len(part) == self._options.batch_size or total + pixels > self._options.batch_pixels:
                yield part
                part, total = {}, 0
            part[i] = header
            total += pixels
        if part:
            yield part

    def _header(self, data: bytes) -> Header | None:
        """The header of a file that DALI gets, else None."""
        # nvJPEG may fill the missing part of a truncated file; DALI's CPU decoder prints, and fails the batch.
        if len(data) > self._options.limits.max_bytes or _END_OF_IMAGE not in data[-_TAIL_BYTES:]:
            return None
        try:
            header = read_header(data)
        except ValueError:
            return None
        if header is None or header.kind != "jpeg" or header.doubtful or header.pixel_ratio != 1:
            return None
        # nvJPEG fills pictures of other kinds with zeros in silence, or reads their colours in another way.
        if header.feature or header.channels not in (1, 3) or header.stored_rgb:
            return None
        max_pixels = min(self._options.limits.max_pixels, self._options.batch_pixels)
        return header if 0 < header.width * header.height <= max_pixels else None

    def _decode(self, files: Sequence[bytes], part: dict[int, Header], stream: int | None) -> Run | None:
        """Decode a batch of files without the damaged ones; None if all of them are damaged."""
        indices = list(part)
        while indices:
            try:
                outputs = self._execute(self._pipe, [files[i] for i in indices], stream)
                return Run(indices, [part[i] for i in indices], outputs)
            except (RuntimeError, MemoryError) as err:
                # A pipeline that raised refuses further work. Free its memory before a new one is built.
                self._pipe = None
                if _is_out_of_memory(err):
                    raise OutOfMemoryError(f"DALI has no memory for {len(part)} photos: {err}") from err
                logger.debug("DALI failed at %d files: %s", len(indices), err)
                damaged = self._damaged(err, files, indices)
            self._pipe = self._build()
            indices = [i for i in indices if i not in damaged]
        return None

    def _damaged(self, err: BaseException, files: Sequence[bytes], indices: list[int]) -> set[int]:
        """The files that made DALI fail: the file of its message, or else those that fail alone."""
        named = {int(number) for number in _DAMAGED.findall(str(err))}
        damaged = {indices[number] for number in named if number < len(indices)}
        return damaged or {i for i in indices if self._fails_alone(files[i])} or set(indices)

    def _fails_alone(self, file: bytes) -> bool:
        self._pipe = self._pipe or self._build()
        try:
            self._execute(self._pipe, [file], None)
        except RuntimeError:
            self._pipe = None
            return True
        return False

    @staticmethod
    def _execute(pipe: Any, files: list[bytes], stream: int | None) -> tuple[Any, ...]:
        """Run the pipeline. Returns a TensorList for each output."""
        pipe.feed_input("files", [np.frombuffer(data, np.uint8) for data in files])
        return tuple(pipe.run(stream))

    def _build(self) -> Any:
        """Build a pipeline and decode test photos, so that later failures are caused by photos.

        They fill a batch: nvImageCodec shares the work with the JPEG hardware by the size of the first one.
        """
        dali = require("nvidia.dali", extra="gpu", purpose="decoding with DALI")
        try:
            pipe = self._pipeline(dali)
            pipe.build()
            self._execute(pipe, [_grey_jpeg()] * self._options.batch_size, None)
        except (RuntimeError, MemoryError) as err:
            if _is_out_of_memory(err):
                raise OutOfMemoryError(f"DALI has no memory for a pipeline: {err}") from err
            where = f"GPU {self._options.device_id}" if self._options.device == "mixed" else "the CPU"
            raise EngineError(
                f"DALI cannot decode on {where}: {str(err).strip(' .')}. Expected: a device that this DALI can use. "
                f"Check the GPU with: facemill doctor; or decode without DALI: --decoder opencv"
            ) from err
        return pipe

    def _pipeline(self, dali: Any) -> Any:
        """Define the pipeline: bytes to upright images, then the graph."""
        fn, types = dali.fn, dali.types
        pipe = dali.Pipeline(
            batch_size=self._options.batch_size,
            num_threads=self._options.threads,
            device_id=self._options.device_id if self._options.device == "mixed" else None,
            prefetch_queue_depth=1,  # the files of a run are passed with it, so there is nothing to prefetch
            exec_dynamic=True,  # outputs stay valid while they are referenced; without it only until the next run
        )
        with pipe:
            encoded = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
            images = fn.decoders.image(
                encoded,
                device=self._options.device,
                output_type=types.RGB if self._channel_order == "rgb" else types.BGR,
                adjust_orientation=True,
                jpeg_fancy_upsampling=True,  # as OpenCV's libjpeg-turbo does
                hw_decoder_load=self._options.hardware,
            )
            pipe.set_outputs(*self._graph(dali, encoded, images))
        return pipe


def _is_out_of_memory(err: BaseException) -> bool:
    return isinstance(err, MemoryError) or any(message in str(err).lower() for message in _OUT_OF_MEMORY)


def _grey_jpeg() -> bytes:
    """A small grey JPEG file."""
    import cv2

    return cv2.imencode(".jpg", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()
