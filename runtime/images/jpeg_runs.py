"""JPEG batches through a graph of NVIDIA DALI, on the CPU or, with nvJPEG, on the GPU: damaged files cost no other.

DALI gives up a whole batch for one damaged file, and the pipeline object with it. So it is given only files that look
like whole JPEGs, and a batch that fails is halved until the culprit is alone. Whoever calls sees which files DALI has
decoded, and gives the others to the CPU's decoder, whose verdict is final.
"""

from __future__ import annotations

import logging
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
# Device memory of a "mixed" pipeline and two runs that are held, for a plan, from above: three colours of every pixel,
# once more for the planes that nvJPEG makes them from, and all of it twice.
RUNS_BYTES = 12 * BATCH_PIXELS

_END_OF_IMAGE = b"\xff\xd9"
_TAIL_BYTES = 64  # where the end marker is looked for: some writers pad the file
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "bad alloc")

# What follows decoding: (nvidia.dali, the encoded files, the decoded images) -> the outputs, all of them nodes of DALI.
Graph = Callable[[Any, Any, Any], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of DALI has made.

    Attributes:
        indices: of its files, among those that were given; ascending.
        headers: theirs.
        outputs: of the graph, a DALI TensorList each, an entry a file; their memory is theirs as long as they are held.
    """

    indices: list[int]
    headers: list[Header]
    outputs: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class DaliOptions:
    """How DALI decodes.

    Attributes:
        device: "cpu", or "mixed" for nvJPEG and a graph on the GPU.
        device_id: number of the GPU; for "mixed" only.
        batch_size: files in one run, at most.
        batch_pixels: pixels in one run, at most: DALI holds all decoded images of a run, 3 bytes a pixel, and keeps
            the memory. A larger image is not for DALI.
        threads: of DALI.
        limits: what is not for DALI either.
        hardware: the part of the work that goes to the chip's own JPEG engines where it has them; DALI's default.
    Raises:
        ConfigError: a value is out of range.
    """

    device: str = "cpu"
    device_id: int = 0
    batch_size: int = 64
    batch_pixels: int = BATCH_PIXELS
    threads: int = 2
    limits: Limits = field(default_factory=Limits)
    hardware: float = 0.65

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "mixed"):
            raise ConfigError(f"no DALI decoder for device {self.device!r}; wanted: 'cpu' or 'mixed'")
        for name in ("batch_size", "batch_pixels", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the DALI decoder is {getattr(self, name)}; wanted: at least 1")


class JpegRuns:
    """Runs a graph on many JPEGs at once. Owns a DALI pipeline: use it in `with`, from one thread at a time.

    Args:
        graph: what is made of the decoded images.
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
            OutOfMemoryError: the device has no room.
        """
        self._pipe = self._build()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe = None

    def run(self, files: Sequence[bytes], stream: int | None = None) -> Iterator[Run]:
        """Run the graph on those of the files that DALI decodes, in as many runs as that takes.

        Args:
            files: encoded photographs, of any format and state.
            stream: the cudaStream_t that the outputs are ready on; None: when they are handed over.
        Raises:
            EngineError: DALI cannot use the device any more.
            OutOfMemoryError: it has no room for so many; fewer may fit.
        """
        if self._pipe is None:  # it had no room for the files before
            self._pipe = self._build()
        for part in self._parts(files):
            yield from self._decoded(files, part, stream)

    def _parts(self, files: Sequence[bytes]) -> Iterator[dict[int, Header]]:
        """Files for DALI by index, in slices that it may take at once."""
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
        """The header of a file that is for DALI, else None."""
        # nvJPEG may fill what a cut file lacks; the CPU decoder would fail, print, and cost the batch.
        if len(data) > self._options.limits.max_bytes or _END_OF_IMAGE not in data[-_TAIL_BYTES:]:
            return None
        try:
            header = read_header(data)
        except ValueError:
            return None
        if header is None or header.kind != "jpeg":
            return None
        most = min(self._options.limits.max_pixels, self._options.batch_pixels)
        return header if 0 < header.width * header.height <= most else None

    def _decoded(self, files: Sequence[bytes], part: dict[int, Header], stream: int | None) -> Iterator[Run]:
        """The files of a part that DALI can decode, in one run unless one of them is damaged."""
        indices = list(part)
        try:
            outputs = self._execute(self._pipe, [files[i] for i in indices], stream)
        except (RuntimeError, MemoryError) as err:
            # One that raised refuses all further work. Its memory goes before a new one takes its own.
            self._pipe = None
            if _no_room(err):
                raise OutOfMemoryError(f"DALI has no room for {len(part)} photographs: {err}") from err
            logger.debug("DALI failed at %d files: %s", len(part), err)
        else:
            yield Run(indices, list(part.values()), outputs)
            return
        self._pipe = self._build()
        half = len(part) // 2
        for some in (indices[:half], indices[half:]) if half else ():
            yield from self._decoded(files, {i: part[i] for i in some}, stream)

    @staticmethod
    def _execute(pipe: Any, files: list[bytes], stream: int | None) -> tuple[Any, ...]:
        """A TensorList for each output."""
        pipe.feed_input("files", [np.frombuffer(data, np.uint8) for data in files])
        return tuple(pipe.run(stream))

    def _build(self) -> Any:
        """A pipeline that has decoded a photograph, so that a failure after this is the photographs'."""
        dali = require("nvidia.dali", extra="gpu", purpose="decoding with DALI")
        try:
            pipe = self._pipeline(dali)
            pipe.build()
            self._execute(pipe, [_grey_jpeg()], None)
        except (RuntimeError, MemoryError) as err:
            if _no_room(err):
                raise OutOfMemoryError(f"DALI has no room for a pipeline: {err}") from err
            where = f"GPU {self._options.device_id}" if self._options.device == "mixed" else "the CPU"
            raise EngineError(
                f"DALI cannot decode on {where}: {str(err).strip(' .')}. Wanted: a device that this DALI can use. "
                f"See what there is with: facemill doctor; or decode without DALI"
            ) from err
        return pipe

    def _pipeline(self, dali: Any) -> Any:
        """Bytes to upright images, and what the graph makes of them."""
        fn, types = dali.fn, dali.types
        pipe = dali.Pipeline(
            batch_size=self._options.batch_size,
            num_threads=self._options.threads,
            device_id=self._options.device_id if self._options.device == "mixed" else None,
            prefetch_queue_depth=1,  # the files of a run are given with it, there is nothing to fetch ahead
            exec_dynamic=True,  # its outputs stay as long as they are held; the other kind's only until the next run
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


def _no_room(err: BaseException) -> bool:
    return isinstance(err, MemoryError) or any(words in str(err).lower() for words in _OUT_OF_MEMORY)


def _grey_jpeg() -> bytes:
    """A small file that any JPEG decoder reads."""
    import cv2

    return cv2.imencode(".jpg", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()
