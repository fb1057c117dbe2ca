"""The Protocol of a loaded engine, the same for every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .engine import EngineInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Runner(Protocol):
    """A loaded engine. Use it as a context manager; several threads may call `infer` at once."""

    info: EngineInfo

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a batch, or detect faces in a batch.

        Args:
            images: (n, S, S, 3) uint8, NHWC, C-contiguous, in `info.channel_order`; 1 <= n <= profile max. For a
                detector (n, H, W, 3), sides multiples of 32.
        Returns:
            (n, D) float32, unit rows (a zero row if the network returns zero); a new array. For a detector
            (n, P, V), see faces.detectors.find_faces.
        Raises:
            ConfigError: shape, dtype or batch size is wrong.
            OutOfMemoryError: the batch does not fit; a smaller one may.
            EngineError: the backend failed.
        """
        ...

    def infer_s(self, images: NDArray[np.uint8]) -> float:
        """Run `infer` and return the busy seconds of the device, without copies that a pipeline hides."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(self, *exc: object) -> None: ...
