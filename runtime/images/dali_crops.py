"""Decode photos of any format for crops: JPEGs with NVIDIA DALI, everything else with `decode_image`.

A file that either decoder can read is never lost. jpeg_runs.py says which files DALI gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Status
from .decode import ImageError, decode_image
from .jpeg_runs import DaliOptions, JpegRuns


class Crops(Protocol):
    """A target of decoded crops: numbered places, each (S, S, 3) uint8.

    Attributes:
        stream: the cudaStream_t on which DALI's photos become ready; None: they are ready when they are passed.
    """

    stream: int | None

    def put_run(self, place: int, photos: Any) -> None:
        """Resize m photos into crops, as `images.decode.decode_image` does, in the places from `place` on.

        Args:
            place: the first place.
            photos: a DALI TensorList of m arrays (H, W, 3) uint8, upright. Keep a reference while the pixels are used.
        """
        ...

    def before_next_run(self) -> None:
        """Wait until the photos of `put_run` so far have been read; DALI decodes others next."""
        ...

    def put(self, place: int, crop: NDArray[np.uint8]) -> None:
        """Store one crop that the CPU decoded."""
        ...


@dataclass(frozen=True, slots=True)
class Placed:
    """The result of one call.

    Attributes:
        indices: index of the file at place 0, 1, 2, ...
        by_dali: number of the first places, whose files DALI has decoded.
        failures: index, status (CORRUPT or UNSUPPORTED) and detail; ascending. Together with `indices` it covers every
            file once.
    """

    indices: list[int]
    by_dali: int
    failures: list[tuple[int, Status, str]]


class DaliDecoder:
    """Decodes many photos at once with a DALI pipeline. Use it as a context manager, from one thread at a time.

    Args:
        size: side S of the crop, pixels.
        channel_order: "rgb" or "bgr".
        options: how DALI decodes. `decode_image` decodes all other files.
    Attributes:
        limits: size limits of both decoders.
    """

    def __init__(self, size: int, channel_order: str = "rgb", options: DaliOptions | None = None) -> None:
        options = options or DaliOptions()
        self._size, self._channel_order, self.limits = size, channel_order, options.limits
        self._runs = JpegRuns(lambda dali, encoded, images: (images,), channel_order, options)

    def __enter__(self) -> DaliDecoder:
        """Build the pipeline, see `JpegRuns.__enter__`."""
        self._runs.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._runs.__exit__(*exc)

    def decode(self, files: Sequence[bytes], crops: Crops) -> Placed:
        """Decode photos, of any format that `decode_image` reads.

        Args:
            files: encoded photos, at most as many as there are places.
            crops: filled from place 0 on.
        Raises:
            EngineError: DALI cannot use the device any more.
            OutOfMemoryError: the device has no memory for so many photos; fewer may fit.
        """
        indices: list[int] = []
        for run in self._runs.run(files, crops.stream, crops.before_next_run):
            crops.put_run(len(indices), *run.outputs)
            indices.extend(run.indices)
        failures, by_dali = [], len(indices)
        for i in sorted(set(range(len(files))).difference(indices)):
            try:
                crop = decode_image(files[i], size=self._size, channel_order=self._channel_order, limits=self.limits)
            except ImageError as err:
                failures.append((i, err.status, err.detail))
            else:
                crops.put(len(indices), crop)
                indices.append(i)
        return Placed(indices, by_dali, failures)
