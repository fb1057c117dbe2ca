"""Decode JPEGs to whole photos on the device with NVIDIA DALI, and draw the views for a detector there.

Like `decode_photo`, it reduces a large photo 2, 4 or 8 times. Like `finder.draw`, it draws a view at the top left of a
black canvas. The canvas is always square, so that photos of any shape share a batch of the detector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .decode import JPEG_SCALES, jpeg_scale
from .header import Header
from .jpeg_runs import RUNS_BYTES, DaliOptions, JpegRuns, Run

_STEP = 32  # pixels: sides of a detector's canvas are multiples of it


@dataclass(frozen=True, slots=True)
class DevicePhoto:
    """A photo on the device, upright, rows without gaps; see records.Photo.

    Attributes:
        address: address of the first pixel.
        shape: height and width on the device, pixels.
        reduction: how many times smaller than the original: 1, 2, 4 or 8.
        height, width: size of the upright original, pixels.
    """

    address: int
    shape: tuple[int, int]
    reduction: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Canvases:
    """One view of each photo of a run.

    Attributes:
        address: address of the first canvas; all are (n, side, side, 3) uint8 on the device.
        side: side of a canvas, pixels, a multiple of 32.
        held: DALI objects that keep the canvases in memory.
    """

    address: int
    side: int
    held: Any


@dataclass(frozen=True, slots=True)
class PhotoRun:
    """Photos that were decoded together.

    Attributes:
        indices: indices of their files, ascending.
        photos: the photos.
        held: DALI objects that keep the photos in memory.
        canvases: the views of the photos, in the order of the requested views.
    """

    indices: list[int]
    photos: list[DevicePhoto]
    held: Any
    canvases: list[Canvases]


def canvas_side(long_side: int) -> int:
    """Side of a canvas that holds a view of a photo of any shape, pixels."""
    return -(-long_side // _STEP) * _STEP


def photo_decoder_bytes(batch_size: int, long_sides: Sequence[int]) -> int:
    """Upper bound of the device memory of a "mixed" DaliPhotos and two runs in use, bytes."""
    return RUNS_BYTES + 3 * batch_size * sum(canvas_side(side) ** 2 for side in long_sides)


class DaliPhotos:
    """Decodes many JPEGs at once and draws their views. Use it as a context manager, from one thread at a time.

    Args:
        long_sides: long sides of the views, pixels.
        reduce_to: photos are reduced as long as the long side does not fall below this, pixels.
        channel_order: "rgb" or "bgr", for photos and views.
        options: how DALI decodes.
    """

    def __init__(
        self, long_sides: Sequence[int], reduce_to: int, channel_order: str = "rgb", options: DaliOptions | None = None
    ) -> None:
        options = options or DaliOptions()
        self.batch_pixels = options.batch_pixels
        self._long_sides, self._reduce_to = long_sides, reduce_to
        self._runs = JpegRuns(self._graph, channel_order, options)

    def __enter__(self) -> DaliPhotos:
        """Build the pipeline, see `JpegRuns.__enter__`."""
        self._runs.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._runs.__exit__(*exc)

    def decode(self, files: Sequence[bytes]) -> Iterator[PhotoRun]:
        """Yield the photos that DALI decodes, run by run. Decode the files in no run with `decode_photo`.

        The pixels of a run are on the device when it is yielded.

        Args:
            files: encoded photos, of any format, damaged or not.
        Raises:
            EngineError: DALI cannot use the device any more.
            OutOfMemoryError: the device has no memory for so many photos; fewer may fit.
        """
        return map(self._to_photos, self._runs.run(files))

    def _to_photos(self, run: Run) -> PhotoRun:
        held, *views = run.outputs
        photos = [
            self._photo(header, held[i].data_ptr(), shape)
            for i, (header, shape) in enumerate(zip(run.headers, held.shape(), strict=True))
        ]
        canvases = []
        for long_side, view in zip(self._long_sides, views, strict=True):
            tensor = view.as_tensor()  # (n, side, side, 3), contiguous
            canvases.append(Canvases(tensor.data_ptr(), canvas_side(long_side), (view, tensor)))
        return PhotoRun(run.indices, photos, held, canvases)

    def _photo(self, header: Header, address: int, shape: tuple[int, ...]) -> DevicePhoto:
        reduction = reduction_for(header.width, header.height, self._reduce_to)
        height, width = sorted((header.height, header.width), reverse=shape[0] > shape[1])
        return DevicePhoto(address, (shape[0], shape[1]), reduction, height, width)

    def _graph(self, dali: Any, encoded: Any, images: Any) -> list[Any]:
        """Upright images to photos and their views."""
        fn = dali.fn
        shape = fn.peek_image_shape(encoded)
        long = dali.math.max(shape[0], shape[1])
        # 1, 2, 4 or 8, like `reduction_for`: DALI cannot choose between numbers, but a comparison is 0 or 1.
        reduction = 1 + sum((long >= r * self._reduce_to) * (r // 2) for r in JPEG_SCALES)
        photos = fn.resize(
            images,
            resize_longer=dali.math.ceil(long / reduction),
            interp_type=dali.types.INTERP_LINEAR,
            antialias=True,
            subpixel_scale=False,
        )
        return [photos, *(_view(dali, photos, side, self._reduce_to) for side in self._long_sides)]


def _view(dali: Any, photos: Any, long_side: int, reduce_to: int) -> Any:
    """Draw photos on black canvases as `finder.draw` does: halve, then interpolate."""
    fn, interpolation = dali.fn, {"interp_type": dali.types.INTERP_LINEAR, "antialias": False}
    shape = photos.shape()
    height, width = shape[0], shape[1]
    factor = long_side / dali.math.max(height, width)
    rows, columns = (dali.math.max(1, dali.math.floor(side * factor + 0.5)) for side in (height, width))
    for _ in range(int(math.log2(max(1, 2 * reduce_to / long_side)))):
        step = 1 + (height >= 2 * rows) * (width >= 2 * columns)  # 1 where a photo is small enough
        height, width = height // step, width // step
        half, used = (fn.cast(fn.stack(height * n, width * n), dtype=dali.types.FLOAT) for n in (1, step))
        # Sampling midway between two pixels gives their mean.
        photos = fn.resize(photos, size=half, roi_start=(0, 0), roi_end=used, **interpolation)
    drawn = fn.resize(photos, size=fn.stack(rows, columns), **interpolation)
    side = canvas_side(long_side)
    return fn.pad(drawn, axes=(0, 1), shape=(side, side), fill_value=0)


def reduction_for(width: int, height: int, reduce_to: int) -> int:
    """How many times a photo is reduced: 1, 2, 4 or 8."""
    return jpeg_scale(max(width, height) // reduce_to)
