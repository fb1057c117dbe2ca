"""What TensorRT-RTX compiles when a plan first runs, kept beside the engine so that the next start is quick."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import StorageError
from ...files import write_durable

logger = logging.getLogger(__name__)


def cache_path(engine: Path) -> Path:
    """`model.plan` -> `model.plan.rtxcache`."""
    return engine.with_name(engine.name + ".rtxcache")


class RtxCache:
    """The runtime cache of one engine on this machine.

    TensorRT-RTX itself refuses a cache of another version, driver or GPU; nothing is lost without one but seconds.
    """

    def __init__(self, config: Any, path: Path | None) -> None:
        """Give the configuration of an engine's contexts a cache, with what was kept.

        Args:
            config: TensorRT-RTX's IRuntimeConfig.
            path: where it is kept; None: nowhere.
        """
        self._path = path
        self._cache = config.create_runtime_cache()
        self._before = b""
        with suppress(OSError):  # there is none yet
            self._before = path.read_bytes() if path else b""
        if self._before and not self._cache.deserialize(self._before):
            logger.info("%s is of another driver or GPU: kernels are compiled again", path)
            self._before = b""
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write what has been compiled since; a folder that cannot be written to is no failure."""
        content = self._cache.serialize()
        if self._path is None or content is None or bytes(memoryview(content)) == self._before:
            return
        try:
            write_durable(self._path, bytes(memoryview(content)), "the cache of compiled kernels", wait=True)
        except StorageError as err:
            logger.info("%s", err.message)
