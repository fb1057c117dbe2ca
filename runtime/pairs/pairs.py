"""Find all pairs of rows above a threshold: people who are in a file twice. An interrupted search resumes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import TooManyPairsError
from ..interrupt import Control, RunControl, raise_if_stopping
from ..progress import Listener, Reporter
from ..records import PAGE_DATASET
from ..storage.file import EmbeddingFile
from ..text import duration
from .all_pairs import ScoredPairs, join_pairs, pairs_above
from .approximate import NearLists, make_lists, measure_rate, measure_share, pairs_near
from .checkpoint import Checkpoint
from .threshold import suggest_threshold
from .tiles import TILE_ROWS, TileProducts, Tiling, open_tile_products

SAVE_EVERY_S = 20.0
_SEED = 0
_RATE_ROWS = 2048  # rows of the tile to measure the rate with

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PairQuery:
    """A search for pairs.

    Attributes:
        threshold: lowest score.
        max_pairs: most pairs; with more, the threshold is too low.
        budget_s: seconds; the search is approximate if comparing all rows takes longer. None for an exact search.
        device: "auto", "cpu", "gpu" or the number of a GPU.
        tile_rows: rows per tile.
        save_every_s: seconds of work between two checkpoints.
    """

    threshold: float
    max_pairs: int = 10_000_000
    budget_s: float | None = None
    device: str = "auto"
    tile_rows: int = TILE_ROWS
    save_every_s: float = SAVE_EVERY_S


@dataclass(frozen=True, slots=True)
class PairResult:
    """The pairs of a file.

    Attributes:
        pairs: highest score first, then lowest rows first; without pairs of two faces of one photo.
        same_photograph: number of pairs of two faces of one photo, which are left out.
        compared: pairs of rows that this process compared, without those of earlier processes.
        elapsed_s: seconds that the comparison took.
        share: share of all pairs that was found, 0 to 1, and the number of pairs it was measured on; None for an exact
            search.
    """

    pairs: ScoredPairs
    same_photograph: int
    compared: int
    elapsed_s: float
    share: tuple[float, int] | None = None

    def method(self) -> str:
        """Describe the method of the search, for people."""
        if self.share is None:
            return "exact: every row was compared with every other"
        share, sample = self.share
        measured = f"{100 * share:.1f} % of {sample:,} pairs of random rows" if sample else "unknown (no random pair)"
        return f"APPROXIMATE, to keep within the budget; share of pairs found: {measured}"


def find_pairs(
    embeddings: EmbeddingFile,
    checkpoint: Checkpoint,
    query: PairQuery,
    *,
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> PairResult:
    """Find all pairs of rows above a threshold, and resume an unfinished search.

    Args:
        embeddings: an open embedding file.
        checkpoint: checkpoint of that file. The caller removes it after writing the pairs.
        query: threshold and limits of the search.
        force: drop an unfinished search with other values.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the search; None for neither.
    Raises:
        TooManyPairsError: more than `query.max_pairs` pairs; the message names a higher threshold.
        Interrupted: the control stopped the search; the same call resumes it.
        ConfigError: the threshold is not a number, or an unfinished search has other values.
        StorageError: the file or the checkpoint is damaged.
        EngineError, MissingDependencyError: the device, or a package, is not available.
    """
    control = control or RunControl()
    products = open_tile_products(query.device)
    try:
        lists = _plan_search(embeddings, checkpoint, query, products, force=force)
        saved_pairs = checkpoint.load()
        if checkpoint.done:
            logger.info("resuming an unfinished search")
        work, pieces = _search_blocks(embeddings, query, lists, checkpoint.done, products)
        compared = sum(work[checkpoint.done :])
        with control.in_flight():
            pairs, elapsed_s = _collect(work, pieces, saved_pairs, checkpoint, control, query, listener)
    except TooManyPairsError as err:
        checkpoint.remove()
        higher = suggest_threshold(embeddings, query.max_pairs, query.threshold)
        raise TooManyPairsError(
            f"more than {query.max_pairs:,} pairs of {embeddings.path} score {query.threshold:.4g} or more"
            + (
                f": the threshold is too low. Try --threshold {higher:.3f}, or allow more pairs with --max-pairs"
                if higher <= 1
                else ": most are copies of one photo. Allow more pairs with --max-pairs"
            )
        ) from err
    if lists is not None:  # each row of a pair may have been compared with the other's list
        _, unique = np.unique(pairs.first * embeddings.rows + pairs.second, return_index=True)
        pairs = _select(pairs, unique)
    share = None if lists is None else measure_share(embeddings, pairs, query.threshold, products, _SEED)
    photos = embeddings.photo_numbers()
    if embeddings.has_pages:  # each page is a photo of its own, and may show the person of another page
        photos = photos * (1 << 16) + embeddings.column(PAGE_DATASET, 0, embeddings.rows)
    two_photos = photos[pairs.first] != photos[pairs.second]
    order = np.lexsort((pairs.second[two_photos], pairs.first[two_photos], -pairs.scores[two_photos]))
    best_first = _select(pairs, np.flatnonzero(two_photos)[order])
    return PairResult(best_first, int((~two_photos).sum()), compared, elapsed_s, share)


def _plan_search(
    embeddings: EmbeddingFile, checkpoint: Checkpoint, query: PairQuery, products: TileProducts, *, force: bool
) -> NearLists | None:
    """Plan the search, or read the plan of an unfinished one. Returns the lists; None for an exact search."""
    question = {"source": embeddings.source, "threshold": query.threshold, "tile_rows": query.tile_rows}
    question["budget_s"] = query.budget_s
    plan = checkpoint.begin(question, force=force)
    if plan is not None:
        return NearLists(**checkpoint.load_arrays()) if plan["near"] else None
    start = time.monotonic()
    lists = None
    if not _fits_budget(embeddings, products, query.budget_s):
        lists = make_lists(embeddings, _SEED)
        rate = measure_rate(embeddings, query.threshold, lists, products, query.max_pairs)
        assert query.budget_s is not None
        lists = lists.limit(rate * (query.budget_s - (time.monotonic() - start)))
        logger.info("comparing each row with %d of %d lists", len(lists.rows), lists.starts.shape[1] - 1)
        checkpoint.save_arrays({"rows": lists.rows, "starts": lists.starts})
    checkpoint.plan({**question, "near": lists is not None})
    return lists


def _fits_budget(embeddings: EmbeddingFile, products: TileProducts, budget_s: float | None) -> bool:
    """Check whether all rows can be compared within the budget, and log how long that takes.

    Args:
        embeddings: an open embedding file.
        products: where products are computed.
        budget_s: seconds; None for no limit.
    """
    tile = embeddings.block(0, min(embeddings.rows, _RATE_ROWS))
    device_tile = products.put(tile)
    times = []
    for _ in range(3):  # the first run warms up
        start = time.perf_counter()
        for _ in products.at_least(device_tile, device_tile, np.float32(np.inf)):
            pass
        times.append(time.perf_counter() - start)
    rate = len(tile) ** 2 / min(times[1:])
    total = embeddings.rows * (embeddings.rows - 1) // 2
    message = "%s rows make %s comparisons, at about %s million per second: %s"
    logger.info(message, f"{embeddings.rows:,}", f"{total:,}", f"{rate / 1e6:,.0f}", duration(total / max(rate, 1)))
    if budget_s is None or total <= rate * budget_s:
        return True
    logger.warning(
        "that is longer than the budget of %s, so the search is approximate. For all pairs, omit --budget",
        duration(budget_s),
    )
    return False


def _search_blocks(
    embeddings: EmbeddingFile, query: PairQuery, lists: NearLists | None, start: int, products: TileProducts
) -> tuple[list[int], Iterator[ScoredPairs]]:
    """Return the number of comparisons of every block, and the pairs of each block from `start` on."""
    if lists is not None:
        pieces = pairs_near(
            embeddings, query.threshold, lists, start=start, products=products, max_pairs=query.max_pairs
        )
        return lists.pairs().tolist(), pieces
    tiling = Tiling(embeddings.rows, query.tile_rows)
    pieces = pairs_above(
        embeddings, query.threshold, tiling=tiling, start=start, products=products, max_pairs=query.max_pairs
    )
    return [tiling.pairs(block) for block in tiling.blocks()], pieces


def _collect(
    work: Sequence[int],
    pieces: Iterator[ScoredPairs],
    saved_pairs: list[ScoredPairs],
    checkpoint: Checkpoint,
    control: Control,
    query: PairQuery,
    listener: Listener | None,
) -> tuple[ScoredPairs, float]:
    """Compare the remaining blocks and save their pairs regularly. Returns all pairs, and the seconds taken."""
    pending, count = list[ScoredPairs](), sum(map(len, saved_pairs))
    last_save_s = time.monotonic()
    done = sum(work[: checkpoint.done])
    with Reporter("pairs", sum(work), done=done, unit="comparisons", listener=listener) as reporter:
        reporter.advance(0, {"pairs": count})
        for compared, piece in zip(work[checkpoint.done :], pieces, strict=True):
            pending.append(piece)
            count += len(piece)
            if count > query.max_pairs:
                raise TooManyPairsError(f"{count:,} pairs")
            reporter.advance(compared, {"pairs": len(piece)})
            if not control.wait() or time.monotonic() - last_save_s >= query.save_every_s:
                checkpoint.save(pending)
                saved_pairs.append(join_pairs(pending))
                pending = []
                last_save_s = time.monotonic()
            raise_if_stopping(control)
        if pending:
            checkpoint.save(pending)
    return join_pairs([*saved_pairs, *pending]), reporter.state().elapsed_s


def _select(pairs: ScoredPairs, indices: NDArray[np.int64]) -> ScoredPairs:
    return ScoredPairs(pairs.first[indices], pairs.second[indices], pairs.scores[indices])
