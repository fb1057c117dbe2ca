"""The kernels that TensorRT-RTX compiles when a plan first runs, cached next to the engine for a quick start."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import EngineError, StorageError
from ...files import write_durable
from ...regular import NOTE_BYTES, read_regular

logger = logging.getLogger(__name__)


def cache_path(engine: Path) -> Path:
    """`model.plan` -> `model.plan.rtxcache`."""
    return engine.with_name(engine.name + ".rtxcache")


class RtxCache:
    """The runtime cache of one engine on this machine.

    TensorRT-RTX itself rejects a cache of another version, driver or GPU. Without a cache a start only takes longer.
    """

    def __init__(self, config: Any, path: Path | None) -> None:
        """Make a cache, and load the stored one.

        Args:
            config: TensorRT-RTX's IRuntimeConfig of a context.
            path: the cache file; None: no file.
        """
        self._path = path
        self._cache = config.create_runtime_cache()
        self._stored = b""
        with suppress(OSError):  # there is no cache file yet
            self._stored = read_regular(path, NOTE_BYTES) if path else b""
        if self._stored and not self._cache.deserialize(self._stored):
            logger.info("%s is for another driver or GPU: kernels are compiled again", path)
            self._stored = b""

    def use_in(self, config: Any) -> None:
        """Use the cache in a context of the engine.

        Raises:
            EngineError: TensorRT-RTX refuses it.
        """
        if config.set_runtime_cache(self._cache) is False:
            raise EngineError("TensorRT-RTX does not take its cache of kernels. See: facemill doctor")

    def save(self) -> None:
        """Write newly compiled kernels to the cache file. A failure to write is only logged."""
        content = self._cache.serialize()
        if self._path is None or content is None or bytes(memoryview(content)) == self._stored:
            return
        try:
            data = bytes(memoryview(content))
            write_durable(self._path, data, "the cache of compiled kernels", shared=True, wait=True)
            self._stored = data
        except StorageError as err:
            logger.info("%s", err.message)
