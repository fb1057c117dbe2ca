"""Whole photographs on the device, and what a detector looks at: JPEGs through NVIDIA DALI, without the CPU's pixels.

As `decode_photo` does it, a large photograph is reduced 2, 4 or 8 times; as `finder.draw` does it, a view of it lies at
the top left of a black canvas, here always a square one: photographs of any shapes are one batch of the detector's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .decode import JPEG_SCALES, jpeg_scale
from .header import Header
from .jpeg_runs import RUNS_BYTES, DaliOptions, JpegRuns, Run

_STEP = 32  # a detector's pictures have sides that are multiples of it


@dataclass(frozen=True, slots=True)
class DevicePhoto:
    """A photograph that lies on the device, upright, rows without a gap; see records.Photo.

    Attributes:
        address: of its first pixel.
        shape: height and width there, pixels.
        reduction: how many times smaller than the original: 1, 2, 4 or 8.
        height, width: of the original, upright.
    """

    address: int
    shape: tuple[int, int]
    reduction: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Canvases:
    """One view of each photograph of a run.

    Attributes:
        address: of the first of them, (n, side, side, 3) uint8 on the device.
        side: pixels, a multiple of 32.
        held: what DALI gave; they stay as long as it is held.
    """

    address: int
    side: int
    held: Any


@dataclass(frozen=True, slots=True)
class PhotoRun:
    """Photographs that were decoded together.

    Attributes:
        indices: which files they are of; ascending.
        photos: they.
        held: what DALI gave; they stay as long as it is held.
        canvases: their views, in the order that those were asked for.
    """

    indices: list[int]
    photos: list[DevicePhoto]
    held: Any
    canvases: list[Canvases]


def canvas_side(long_side: int) -> int:
    """Side of the canvas that a view of a photograph of any shape fits."""
    return -(-long_side // _STEP) * _STEP


def photo_decoder_bytes(batch_size: int, long_sides: Sequence[int]) -> int:
    """Device memory that a "mixed" DaliPhotos and two runs that are held may take: an estimate from above."""
    return RUNS_BYTES + 3 * batch_size * sum(canvas_side(side) ** 2 for side in long_sides)


class DaliPhotos:
    """Decodes many JPEGs at once and draws their views. Use it in `with`, from one thread at a time.

    Args:
        long_sides: of the views, pixels.
        reduce_to: a photograph is reduced while its long side does not fall below this, pixels.
        channel_order: "rgb" or "bgr", of photographs and views.
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
        """Build the pipeline: see JpegRuns."""
        self._runs.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._runs.__exit__(*exc)

    def decode(self, files: Sequence[bytes]) -> Iterator[PhotoRun]:
        """The photographs that DALI decodes, run by run; those that are in none of them are left to `decode_photo`.

        All is on the device when a run is handed over.

        Args:
            files: encoded photographs, of any format and state.
        Raises:
            EngineError: DALI cannot use the device any more.
            OutOfMemoryError: it has no room for so many; fewer may fit.
        """
        return map(self._of_run, self._runs.run(files))

    def _of_run(self, run: Run) -> PhotoRun:
        held, *views = run.outputs
        photos = [
            self._photo(header, held[i].data_ptr(), shape)
            for i, (header, shape) in enumerate(zip(run.headers, held.shape(), strict=True))
        ]
        canvases = []
        for long_side, view in zip(self._long_sides, views, strict=True):
            whole = view.as_tensor()  # (n, side, side, 3), one after another
            canvases.append(Canvases(whole.data_ptr(), canvas_side(long_side), (view, whole)))
        return PhotoRun(run.indices, photos, held, canvases)

    def _photo(self, header: Header, address: int, shape: tuple[int, ...]) -> DevicePhoto:
        reduction = reduction_for(header.width, header.height, self._reduce_to)
        height, width = sorted((header.height, header.width), reverse=shape[0] > shape[1])
        return DevicePhoto(address, (shape[0], shape[1]), reduction, height, width)

    def _graph(self, dali: Any, encoded: Any, images: Any) -> list[Any]:
        """Upright images to photographs and their views."""
        fn = dali.fn
        shape = fn.peek_image_shape(encoded)
        long = dali.math.max(shape[0], shape[1])
        # 1, 2, 4 or 8, as `reduction_for` says: DALI has no choice between numbers, but comparisons count as 0 or 1.
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
    """Black canvases with the photographs as `finder.draw` draws them: halved, then interpolated."""
    fn, how = dali.fn, {"interp_type": dali.types.INTERP_LINEAR, "antialias": False}
    shape = photos.shape()
    height, width = shape[0], shape[1]
    factor = long_side / dali.math.max(height, width)
    rows, columns = (dali.math.max(1, dali.math.floor(side * factor + 0.5)) for side in (height, width))
    for _ in range(int(math.log2(max(1, 2 * reduce_to / long_side)))):
        step = 1 + (height >= 2 * rows) * (width >= 2 * columns)  # 1 where a photograph is small enough
        height, width = height // step, width // step
        half, used = (fn.cast(fn.stack(height * n, width * n), dtype=dali.types.FLOAT) for n in (1, step))
        photos = fn.resize(photos, size=half, roi_start=(0, 0), roi_end=used, **how)  # between two pixels: their mean
    drawn = fn.resize(photos, size=fn.stack(rows, columns), **how)
    side = canvas_side(long_side)
    return fn.pad(drawn, axes=(0, 1), shape=(side, side), fill_value=0)


def reduction_for(width: int, height: int, reduce_to: int) -> int:
    """How many times smaller a photograph becomes."""
    return jpeg_scale(max(width, height) // reduce_to)
