"""The one Protocol that every backend answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .engine import EngineInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Runner(Protocol):
    """An engine, loaded and ready. Owned by `with`; `infer` may be called from several threads at once."""

    info: EngineInfo

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed one batch, or detect faces in one.

        Args:
            images: (n, S, S, 3) uint8, NHWC, C-contiguous, in `info.channel_order`; 1 <= n <= profile max. For a
                detector (n, H, W, 3), sides multiples of 32.
        Returns:
            (n, D) float32, unit rows (a zero row where the network answers zero); a new array. For a detector
            (n, P, 15), see faces.detectors.find_faces.
        Raises:
            ConfigError: shape or dtype is not that.
            OutOfMemoryError: the batch did not fit; a smaller one may.
            EngineError: the backend failed.
        """
        ...

    def infer_s(self, images: NDArray[np.uint8]) -> float:
        """Run `infer` and return the seconds that the device was busy, without copies that a pipeline hides."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(self, *exc: object) -> None: ...
