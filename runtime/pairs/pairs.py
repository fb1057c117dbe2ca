"""Find all pairs of rows above a threshold: who is in a file twice. A search that was stopped is resumed."""

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
from ..storage.file import EmbeddingFile
from ..text import duration
from .all_pairs import ScoredPairs, join_pairs, pairs_above
from .approximate import NearLists, make_lists, pairs_near, rate_within, share_found
from .checkpoint import Checkpoint
from .threshold import suggest_threshold
from .tiles import TILE_ROWS, TileProducts, Tiling, open_tile_products

SAVE_EVERY_S = 20.0
_SEED = 0
_RATE_ROWS = 2048  # rows of the tile by which the rate is measured

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PairQuery:
    """A search for pairs.

    Attributes:
        threshold: the lowest score.
        most: pairs; if there are more, the threshold is too low.
        budget_s: seconds; if comparing all rows takes longer, the search is approximate. None: it is exact.
        device: "auto", "cpu", "gpu" or the number of a GPU.
        tile_rows: rows of a tile.
        save_every_s: seconds of work between two checkpoints.
    """

    threshold: float
    most: int = 10_000_000
    budget_s: float | None = None
    device: str = "auto"
    tile_rows: int = TILE_ROWS
    save_every_s: float = SAVE_EVERY_S


@dataclass(frozen=True, slots=True)
class PairResult:
    """The pairs of a file.

    Attributes:
        pairs: higher score first, then lower rows first; no two faces of one photograph.
        same_photograph: pairs that were left out since they are faces of one photograph.
        compared: pairs of rows that this process compared; those of an earlier process are not counted.
        elapsed_s: seconds that the comparison took.
        share: of all pairs that was found, 0 to 1, and the pairs that it was measured on; None for an exact search.
    """

    pairs: ScoredPairs
    same_photograph: int
    compared: int
    elapsed_s: float
    share: tuple[float, int] | None = None

    def method(self) -> str:
        """How it was searched, for a person."""
        if self.share is None:
            return "exact: every row was compared with every other"
        share, by = self.share
        measured = f"{100 * share:.1f} % of {by:,} pairs of rows drawn at random" if by else "unknown (none was drawn)"
        return f"APPROXIMATE, to keep to the budget; the share of pairs that was found: {measured}"


def find_pairs(
    gallery: EmbeddingFile,
    checkpoint: Checkpoint,
    query: PairQuery,
    *,
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> PairResult:
    """Find all pairs of rows above a threshold, and resume an unfinished search.

    Args:
        gallery: an open embedding file.
        checkpoint: of that file. The caller removes it once the pairs are written.
        query: which pairs.
        force: drop an unfinished search that differs.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the search; None for neither.
    Raises:
        TooManyPairsError: naming a higher threshold.
        Interrupted: the control stopped the search; the same call resumes it.
        ConfigError, StorageError, EngineError, MissingDependencyError: as their messages say.
    """
    control = control or RunControl()
    products = open_tile_products(query.device)
    try:
        lists = _plan_search(gallery, checkpoint, query, products, force=force)
        before = checkpoint.load()
        if checkpoint.done:
            logger.info("resuming the search that was stopped")
        work, pieces = _search_blocks(gallery, query, lists, checkpoint.done, products)
        compared = sum(work[checkpoint.done :])
        with control.in_flight():
            found, elapsed_s = _collect(work, pieces, before, checkpoint, control, query, listener)
    except TooManyPairsError as err:
        checkpoint.remove()
        higher = suggest_threshold(gallery, query.most, query.threshold)
        raise TooManyPairsError(
            f"more than {query.most:,} pairs of {gallery.path} score {query.threshold:.4g} or more"
            + (
                f": the threshold is too low. Try --threshold {higher:.3f}, or allow more pairs with --max-pairs"
                if higher <= 1
                else ": most are copies of one photograph. Allow more pairs with --max-pairs"
            )
        ) from err
    if lists is not None:  # both rows of a pair may have looked into the other's list
        _, once = np.unique(found.first * gallery.rows + found.second, return_index=True)
        found = _select(found, once)
    share = None if lists is None else share_found(gallery, found, query.threshold, products, _SEED)
    photographs = gallery.photo_numbers()
    two = photographs[found.first] != photographs[found.second]
    best = np.lexsort((found.second[two], found.first[two], -found.scores[two]))
    best_pairs = _select(found, np.flatnonzero(two)[best])
    return PairResult(best_pairs, int((~two).sum()), compared, elapsed_s, share)


def _plan_search(
    gallery: EmbeddingFile, checkpoint: Checkpoint, query: PairQuery, products: TileProducts, *, force: bool
) -> NearLists | None:
    """Decide how to search, or read what an unfinished search decided; None for an exact search."""
    question = {"source": gallery.source, "threshold": query.threshold, "tile_rows": query.tile_rows}
    question["budget_s"] = query.budget_s
    plan = checkpoint.begin(question, force=force)
    if plan is not None:
        return NearLists(**checkpoint.load_arrays()) if plan["near"] else None
    start = time.monotonic()
    lists = None
    if not _fits_budget(gallery, products, query.budget_s):
        lists = make_lists(gallery, _SEED)
        rate = rate_within(gallery, query.threshold, lists, products, query.most)
        assert query.budget_s is not None
        lists = lists.within(rate * (query.budget_s - (time.monotonic() - start)))
        logger.info("each row looks into %d of %d lists", len(lists.rows), lists.starts.shape[1] - 1)
        checkpoint.save_arrays({"rows": lists.rows, "starts": lists.starts})
    checkpoint.plan({**question, "near": lists is not None})
    return lists


def _fits_budget(gallery: EmbeddingFile, products: TileProducts, budget_s: float | None) -> bool:
    """Whether the budget allows comparing all rows. The log says how long that takes.

    Args:
        gallery: an open embedding file.
        products: where they are compared.
        budget_s: seconds; None for no limit.
    """
    tile = gallery.block(0, min(gallery.rows, _RATE_ROWS))
    placed = products.put(tile)
    times = []
    for _ in range(3):  # the first one warms up
        start = time.perf_counter()
        for _ in products.at_least(placed, placed, np.float32(np.inf)):
            pass
        times.append(time.perf_counter() - start)
    rate = len(tile) ** 2 / min(times[1:])
    total = gallery.rows * (gallery.rows - 1) // 2
    words = "%s rows make %s comparisons, at about %s million a second: %s"
    logger.info(words, f"{gallery.rows:,}", f"{total:,}", f"{rate / 1e6:,.0f}", duration(total / max(rate, 1)))
    if budget_s is None or total <= rate * budget_s:
        return True
    logger.warning(
        "that is longer than the budget of %s: the search is approximate. For all pairs, leave out --budget",
        duration(budget_s),
    )
    return False


def _search_blocks(
    gallery: EmbeddingFile, query: PairQuery, lists: NearLists | None, start: int, products: TileProducts
) -> tuple[list[int], Iterator[ScoredPairs]]:
    """Comparisons of each block, of all blocks; and the pairs of each block from `start` on."""
    if lists is not None:
        found = pairs_near(gallery, query.threshold, lists, start=start, products=products, most=query.most)
        return lists.pairs().tolist(), found
    tiling = Tiling(gallery.rows, query.tile_rows)
    found = pairs_above(gallery, query.threshold, tiling=tiling, start=start, products=products, most=query.most)
    return [tiling.pairs(block) for block in tiling.blocks()], found


def _collect(
    work: Sequence[int],
    pieces: Iterator[ScoredPairs],
    before: list[ScoredPairs],
    checkpoint: Checkpoint,
    control: Control,
    query: PairQuery,
    listener: Listener | None,
) -> tuple[ScoredPairs, float]:
    """Run the remaining blocks, save their pairs from time to time; returns all pairs, and the seconds that it took."""
    kept, pending, count = before, list[ScoredPairs](), sum(map(len, before))
    saved = time.monotonic()
    before_this_run = sum(work[: checkpoint.done])
    with Reporter("pairs", sum(work), done=before_this_run, unit="comparisons", listener=listener) as reporter:
        reporter.advance(0, {"pairs": count})
        for compared, piece in zip(work[checkpoint.done :], pieces, strict=True):
            pending.append(piece)
            count += len(piece)
            if count > query.most:
                raise TooManyPairsError(f"{count:,} pairs")
            reporter.advance(compared, {"pairs": len(piece)})
            if not control.wait() or time.monotonic() - saved >= query.save_every_s:
                checkpoint.save(pending)
                kept.append(join_pairs(pending))
                pending = []
                saved = time.monotonic()
            raise_if_stopping(control)
        if pending:
            checkpoint.save(pending)
    return join_pairs([*kept, *pending]), reporter.state().elapsed_s


def _select(found: ScoredPairs, which: NDArray[np.int64]) -> ScoredPairs:
    return ScoredPairs(found.first[which], found.second[which], found.scores[which])
