"""Keep the indexes beside an embedding file valid when a file with the same rows replaces it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import StorageError
from ..files import sweep_temporary
from ..storage.file import EmbeddingFile
from .codesfile import codes_path
from .indexfile import index_path
from .kinds import APPROXIMATE
from .sidecar import renew_source, sidecar_path

logger = logging.getLogger(__name__)


@contextmanager
def same_rows(file: Path, *cards: Path) -> Iterator[None]:
    """Assign the indexes of a file to its replacement, which must have the same rows and `run_id`.

    Each sidecar is replaced atomically. If a kill or a full disk prevents that, the index is rebuilt later.

    Args:
        file: a finished file that the block replaces.
        cards: other JSON files that hold its `source`, if they exist.
    Raises:
        StorageError: the file is not a finished embedding file.
    """
    sweep_cards(file, *cards)
    with EmbeddingFile(file) as gallery:
        before = gallery.source
    yield
    try:
        with EmbeddingFile(file) as gallery:
            after = gallery.source
    except StorageError as err:
        logger.debug("keeping the indexes beside %s unchanged: %s", file, err)
        return
    if after["run_id"] != before["run_id"]:  # a different program has replaced it, with different rows
        return
    for card in _all_cards(file, cards):
        try:
            renew_source(card, before, after)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, TypeError) as err:
            logger.debug("keeping %s unchanged: %s", card, err)


def sweep_cards(file: Path, *cards: Path) -> None:
    """Remove what `same_rows` has left of a new sidecar, if it was killed; one that is being written stays."""
    for card in _all_cards(file, cards):
        sweep_temporary(card)


def _all_cards(file: Path, cards: Sequence[Path]) -> list[Path]:
    """The sidecars of the indexes of a file, and other JSON files that hold its `source`."""
    indexes = index_path(file), *(codes_path(file, kind) for kind in APPROXIMATE)
    return [*map(sidecar_path, indexes), *cards]
