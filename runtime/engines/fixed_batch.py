"""A runner whose calls all have one size, so that the answer for an image does not depend on its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .runner import Runner

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FixedBatch:
    """A Runner that fills every batch with black images up to one size, and leaves their answers out.

    Backends on a GPU choose their kernels by the size of the batch, and two kernels round differently.

    Attributes:
        info: the facts of the engine; see `Runner`.
    """

    def __init__(self, runner: Runner, size: int) -> None:
        """Take a runner, which its owner closes.

        Args:
            runner: the runner of an engine.
            size: images in every call, at most the largest of the engine's profile.
        """
        self.info = runner.info
        self._runner, self._size = runner, size

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network on at most `size` images; see `Runner.infer`."""
        return self._runner.infer(self._fill(images))[: len(images)]

    def infer_s(self, images: NDArray[np.uint8]) -> float:
        """Time one batch; see `Runner.infer_s`."""
        return self._runner.infer_s(self._fill(images))

    def _fill(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(size, H, W, 3): the images, and black ones after them."""
        if len(images) >= self._size:
            return images
        filled = np.zeros((self._size, *images.shape[1:]), np.uint8)
        filled[: len(images)] = images
        return filled

    def __enter__(self) -> FixedBatch:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
