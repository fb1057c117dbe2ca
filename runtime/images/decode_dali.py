"""JPEG batches through NVIDIA DALI: the same graph on the CPU or, with nvJPEG, on the GPU.

DALI gives up a whole batch for one damaged file, and the pipeline object with it. So it is given only files that look
like whole JPEGs, a batch that fails is halved until the culprit is alone, and whatever DALI does not decode goes to
`decode_image`, whose verdict is final. A file that one of the two decoders reads is never lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, EngineError, OutOfMemoryError
from ..extras import require
from ..records import Status
from .decode import ImageError, Limits, decode_image
from .header import read_header

logger = logging.getLogger(__name__)

_END_OF_IMAGE = b"\xff\xd9"
_TAIL_BYTES = 64  # where the end marker is looked for: some writers pad the file
_BATCH_PIXELS = 1 << 26
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "bad alloc")


class Crops(Protocol):
    """Where decoded crops go: numbered places, each for (S, S, 3) uint8.

    Attributes:
        stream: the cudaStream_t that DALI's crops are ready on; None: when they are handed over.
    """

    stream: int | None

    def put_run(self, place: int, crops: Any) -> None:
        """Take m crops to places from `place` on: a DALI TensorList (m, S, S, 3) uint8, valid until the next one."""
        ...

    def put(self, place: int, crop: NDArray[np.uint8]) -> None:
        """Take one crop that the CPU decoded."""
        ...


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of the files of one call.

    Attributes:
        indices: which file is at place 0, 1, 2, ...
        failures: index, CORRUPT or UNSUPPORTED, and why; ascending. With `indices` it covers every file once.
    """

    indices: list[int]
    failures: list[tuple[int, Status, str]]


def decoder_bytes(batch_size: int, size: int, batch_pixels: int = _BATCH_PIXELS) -> int:
    """Device memory that a "mixed" decoder may come to hold, for a plan: an estimate from above for photographs.

    Three colours of every pixel, once more for the planes that nvJPEG makes them from, and the crops.
    """
    return 6 * batch_pixels + 3 * batch_size * size * size


class DaliDecoder:
    """Decodes and resizes many photographs at once. Owns a DALI pipeline: use it in `with`, from one thread at a time.

    Args:
        size: side S of the crop, pixels.
        channel_order: "rgb" or "bgr".
        device: "cpu", or "mixed" for nvJPEG and a resize on the GPU.
        device_id: number of the GPU; for "mixed" only.
        batch_size: photographs in one run of DALI, at most.
        batch_pixels: pixels in one run, at most: DALI holds all decoded images of a run, 3 bytes a pixel, and keeps
            the memory. A larger image is decoded by `decode_image`.
        threads: of DALI.
        limits: what is refused before it is decoded.
    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        size: int,
        channel_order: str = "rgb",
        *,
        device: str = "cpu",
        device_id: int = 0,
        batch_size: int = 64,
        batch_pixels: int = _BATCH_PIXELS,
        threads: int = 2,
        limits: Limits | None = None,
    ) -> None:
        if device not in ("cpu", "mixed"):
            raise ConfigError(f"no DALI decoder for device {device!r}; wanted: 'cpu' or 'mixed'")
        for name, value in (("batch_size", batch_size), ("batch_pixels", batch_pixels), ("threads", threads)):
            if value < 1:
                raise ConfigError(f"{name} of the DALI decoder is {value}; wanted: at least 1")
        self._size, self._channel_order = size, channel_order
        self._device, self._device_id, self._threads = device, device_id, threads
        self._batch_size, self._batch_pixels = batch_size, batch_pixels
        self._limits = limits or Limits()
        self._pipe: Any = None

    def __enter__(self) -> DaliDecoder:
        """Build the pipeline.

        Raises:
            MissingDependencyError: DALI is not installed.
            EngineError: DALI cannot use the device.
        """
        self._pipe = self._build()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe = None

    def decode(self, files: Sequence[bytes], crops: Crops) -> Placed:
        """Decode photographs, of any format that `decode_image` reads, and resize each to the crop.

        Args:
            files: encoded photographs; any number that the places suffice for.
            crops: filled from place 0 on. A JPEG's crop differs from that of `decode_image` by the resize: where
                that one averages over boxes, DALI's antialiased linear filter averages over triangles.
        Raises:
            EngineError: DALI cannot use the device any more.
            OutOfMemoryError: it has no room for so many; fewer may fit.
        """
        assert self._pipe is not None, "use the decoder in `with`"
        indices: list[int] = []
        for run in self._runs(files):
            self._place(crops, files, run, indices)
        failures = []
        for i in sorted(set(range(len(files))).difference(indices)):
            try:
                crop = decode_image(files[i], size=self._size, channel_order=self._channel_order, limits=self._limits)
            except ImageError as err:
                failures.append((i, err.status, err.detail))
            else:
                crops.put(len(indices), crop)
                indices.append(i)
        return Placed(indices, failures)

    def _runs(self, files: Sequence[bytes]) -> Iterator[list[int]]:
        """Indices of the files for DALI, in slices that it may take at once."""
        run: list[int] = []
        total = 0
        for i, data in enumerate(files):
            pixels = self._pixels(data)
            if not pixels:
                continue
            if len(run) == self._batch_size or total + pixels > self._batch_pixels:
                yield run
                run, total = [], 0
            run.append(i)
            total += pixels
        if run:
            yield run

    def _pixels(self, data: bytes) -> int:
        """How many pixels DALI has to decode; 0 for a file that is not for DALI."""
        # nvJPEG may fill what a cut file lacks; the CPU decoder would fail, print, and cost the batch.
        if len(data) > self._limits.max_bytes or _END_OF_IMAGE not in data[-_TAIL_BYTES:]:
            return 0
        try:
            header = read_header(data)
        except ValueError:
            return 0
        if header is None or header.kind != "jpeg":
            return 0
        short, long = sorted((header.width, header.height))
        # decode_image does not average an image that grows along one side; DALI would.
        if short < self._size < long or short * long > min(self._limits.max_pixels, self._batch_pixels):
            return 0
        return short * long

    def _place(self, crops: Crops, files: Sequence[bytes], run: list[int], indices: list[int]) -> None:
        """Let DALI decode the files of `run` into the next places; add those that it could to `indices`."""
        try:
            decoded = self._execute(self._pipe, [files[i] for i in run], crops.stream)
        except (RuntimeError, MemoryError) as err:
            self._pipe = self._build()  # one that raised refuses all further work; a new one costs milliseconds
            if isinstance(err, MemoryError) or any(words in str(err).lower() for words in _OUT_OF_MEMORY):
                raise OutOfMemoryError(f"DALI has no room for {len(run)} photographs: {err}") from err
            logger.debug("DALI failed at %d files: %s", len(run), err)
        else:
            crops.put_run(len(indices), decoded)
            indices.extend(run)
            return
        half = len(run) // 2
        for part in (run[:half], run[half:]) if half else ():
            self._place(crops, files, part, indices)

    @staticmethod
    def _execute(pipe: Any, files: list[bytes], stream: int | None) -> Any:
        """TensorList (n, S, S, 3) uint8, ready on a stream: valid until the next run."""
        pipe.feed_input("files", [np.frombuffer(data, np.uint8) for data in files])
        (crops,) = pipe.run(stream)
        return crops

    def _build(self) -> Any:
        """A pipeline that has decoded a photograph, so that a failure after this is the photographs'."""
        dali = require("nvidia.dali", extra="gpu", purpose="decoding with DALI")
        try:
            pipe = self._graph(dali.Pipeline, dali.fn, dali.types)
            pipe.build()
            self._execute(pipe, [_grey_jpeg()], None)
        except (RuntimeError, MemoryError) as err:
            where = f"GPU {self._device_id}" if self._device == "mixed" else "the CPU"
            raise EngineError(
                f"DALI cannot decode on {where}: {str(err).strip(' .')}. Wanted: a device that this DALI can use. "
                f"See what there is with: facemill doctor; or decode without DALI"
            ) from err
        return pipe

    def _graph(self, pipeline: Any, fn: Any, types: Any) -> Any:
        """Bytes to upright crops."""
        pipe = pipeline(
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=self._device_id if self._device == "mixed" else None,
            prefetch_queue_depth=1,  # the files of a run are given with it, there is nothing to fetch ahead
        )
        with pipe:
            encoded = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
            images = fn.decoders.image(
                encoded,
                device=self._device,
                output_type=types.RGB if self._channel_order == "rgb" else types.BGR,
                adjust_orientation=True,
                jpeg_fancy_upsampling=True,  # as OpenCV's libjpeg-turbo does
            )
            crops = fn.resize(images, size=(self._size, self._size), interp_type=types.INTERP_LINEAR, antialias=True)
            pipe.set_outputs(crops)
        return pipe


def _grey_jpeg() -> bytes:
    """A small file that any JPEG decoder reads."""
    import cv2

    return cv2.imencode(".jpg", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()
