"""An embedding file that is replaced by one with the same rows: the indexes beside it stay right, and stay."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StorageError
from ..storage.file import EmbeddingFile
from .beside import renew_source, sidecar_path
from .codesfile import codes_path
from .indexfile import index_path
from .kinds import APPROXIMATE

logger = logging.getLogger(__name__)


@contextmanager
def same_rows(file: Path, *cards: Path) -> Iterator[None]:
    """Around a change that leaves rows and `run_id` as they are: the indexes of the old file are the new one's.

    Each sidecar is amended whole or not at all. One that a kill, or a full disk, leaves behind costs a rebuild.

    Args:
        file: a finished file that the block replaces. Where it is a link, the indexes are beside the link.
        cards: other files of JSON that hold its `source`, if they are there.
    Raises:
        StorageError: it is no finished file.
    """
    with EmbeddingFile(file) as gallery:
        before = gallery.source
    yield
    try:
        with EmbeddingFile(file) as gallery:
            after = gallery.source
    except StorageError as err:
        logger.debug("the indexes beside %s stay as they are: %s", file, err)
        return
    if after["run_id"] != before["run_id"]:  # somebody else has replaced it, with other rows
        return
    indexes = index_path(file), *(codes_path(file, kind) for kind in APPROXIMATE)
    for card in (*map(sidecar_path, indexes), *cards):
        try:
            renew_source(card, before, after)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, TypeError) as err:
            logger.debug("%s stays as it is: %s", card, err)
