"""Photographs of any format to what is made crops of: JPEGs through NVIDIA DALI, all else through `decode_image`.

A file that one of the two decoders reads is never lost: see jpeg_runs.py for what DALI is given.
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
    """Where decoded crops go: numbered places, each for (S, S, 3) uint8.

    Attributes:
        stream: the cudaStream_t that DALI's photographs are ready on; None: when they are handed over.
    """

    stream: int | None

    def put_run(self, place: int, photos: Any) -> None:
        """Make crops of m photographs, in places from `place` on: resized as `images.decode.decode_image` does.

        Args:
            photos: a DALI TensorList of m arrays (H, W, 3) uint8, upright; they are there as long as it is held.
        """
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


class DaliDecoder:
    """Decodes many photographs at once. Owns a DALI pipeline: use it in `with`, from one thread at a time.

    Args:
        size: side S of the crop, pixels.
        channel_order: "rgb" or "bgr".
        options: how DALI decodes; what is not for it, `decode_image` decodes.
    """

    def __init__(self, size: int, channel_order: str = "rgb", options: DaliOptions | None = None) -> None:
        options = options or DaliOptions()
        self._size, self._channel_order, self._limits = size, channel_order, options.limits
        self._runs = JpegRuns(lambda dali, encoded, images: (images,), channel_order, options)

    def __enter__(self) -> DaliDecoder:
        """Build the pipeline: see JpegRuns."""
        self._runs.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._runs.__exit__(*exc)

    def decode(self, files: Sequence[bytes], crops: Crops) -> Placed:
        """Decode photographs, of any format that `decode_image` reads.

        Args:
            files: encoded photographs; any number that the places suffice for.
            crops: filled from place 0 on.
        Raises:
            EngineError: DALI cannot use the device any more.
            OutOfMemoryError: it has no room for so many; fewer may fit.
        """
        indices: list[int] = []
        for run in self._runs.run(files, crops.stream):
            crops.put_run(len(indices), *run.outputs)
            indices.extend(run.indices)
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
