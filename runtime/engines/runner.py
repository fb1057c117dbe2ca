"""The Protocol of a loaded engine, the same for every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .engine import EngineInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Runner(Protocol):
    """A loaded engine. Use it as a context manager; several threads may call `infer` at once.

    Attributes:
        info: facts of the engine: its task, sizes, precision and batch profile.
    """

    info: EngineInfo

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network on a batch.

        Args:
            images: (n, H, W, 3) uint8, NHWC, C-contiguous, in `info.channel_order`; 1 <= n <= profile max. A network
                that embeds takes crops of its own size, a landmark network squares of its own size; a detector takes
                any sides that are multiples of 32.
        Returns:
            A new float32 array. A network that embeds returns (n, D) rows of length 1, or of zeros where the network
            answers zeros. A detector returns (n, P, V), which the model's function in faces/detectors.py decodes. A
            landmark network returns (n, 15), which faces/second_look.py explains.
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
