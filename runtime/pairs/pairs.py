"""Who is in a file twice: all pairs of rows above a threshold, in a search that can be stopped and gone on with."""

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
from .blocks import TILE_ROWS, Found, Tiling, joined, pairs_above
from .budget import rate_within, share_found, suggest_threshold, time_for_all
from .near import Lists, make_lists, pairs_near
from .parts import Parts
from .products import Products, open_products

SAVE_EVERY_S = 20.0
_SEED = 0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for.

    Attributes:
        threshold: the lowest score.
        most: pairs; where there are more, the threshold is certainly too low.
        budget_s: where comparing all rows would take longer, the search is approximate; None: it never is.
        device: "auto", "cpu", "gpu" or the number of a GPU.
        tile_rows: of a tile.
        save_every_s: seconds of work between two checkpoints.
    """

    threshold: float
    most: int = 10_000_000
    budget_s: float | None = None
    device: str = "auto"
    tile_rows: int = TILE_ROWS
    save_every_s: float = SAVE_EVERY_S


@dataclass(frozen=True, slots=True)
class Pairs:
    """What was found.

    Attributes:
        found: higher score first, then lower rows first; no two faces of one photograph.
        same_photograph: pairs that were left out since they are faces of one photograph.
        compared: pairs of rows, by this process; what an earlier one had finished is not among them.
        elapsed_s: that it took.
        share: of all pairs, how many were found, and by how many that was measured; None for an exact search.
    """

    found: Found
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
    parts: Parts,
    wanted: Wanted,
    *,
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Pairs:
    """All pairs of rows above a threshold; goes on with what an unfinished search has left.

    Args:
        gallery: an open embedding file.
        parts: of that file; they stay, for the answer must be written first.
        wanted: see Wanted.
        force: drop the unfinished search of another question.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the search; None for neither.
    Raises:
        TooManyPairsError: naming a higher threshold.
        Interrupted: the control stopped the search; the same call resumes it.
        ConfigError, StorageError, EngineError, MissingDependencyError: as their messages say.
    """
    control = control or RunControl()
    products = open_products(wanted.device)
    try:
        lists = _begin(gallery, parts, wanted, products, force=force)
        before = parts.load()
        if parts.done:
            logger.info("going on with the search that was stopped")
        work, pieces = _way(gallery, wanted, lists, parts.done, products)
        compared = sum(work[parts.done :])
        with control.in_flight():
            found, elapsed_s = _collect(work, pieces, before, parts, control, wanted, listener)
    except TooManyPairsError as err:
        parts.remove()
        higher = suggest_threshold(gallery, wanted.most, wanted.threshold)
        raise TooManyPairsError(
            f"more than {wanted.most:,} pairs of {gallery.path} score {wanted.threshold:.4g} or more"
            + (
                f", which is too low a threshold. Try --threshold {higher:.3f}, or allow more pairs with --most"
                if higher <= 1
                else ": most are copies of one photograph. Allow more pairs with --most"
            )
        ) from err
    if lists is not None:  # both rows of a pair may have looked into the other's list
        _, once = np.unique(found.first * gallery.rows + found.second, return_index=True)
        found = _chosen(found, once)
    share = None if lists is None else share_found(gallery, found, wanted.threshold, products, _SEED)
    photographs = gallery.photo_numbers()
    two = photographs[found.first] != photographs[found.second]
    best = np.lexsort((found.second[two], found.first[two], -found.scores[two]))
    best_found = _chosen(found, np.flatnonzero(two)[best])
    return Pairs(best_found, int((~two).sum()), compared, elapsed_s, share)


def _begin(gallery: EmbeddingFile, parts: Parts, wanted: Wanted, products: Products, *, force: bool) -> Lists | None:
    """Decide how to search, or find what was decided; None for an exact search."""
    question = {"source": gallery.source, "threshold": wanted.threshold, "tile_rows": wanted.tile_rows}
    question["budget_s"] = wanted.budget_s
    plan = parts.begin(question, force=force)
    if plan is not None:
        return Lists(**parts.load_arrays()) if plan["near"] else None
    start = time.monotonic()
    lists = None
    if not time_for_all(gallery, products, wanted.budget_s):
        lists = make_lists(gallery, _SEED)
        rate = rate_within(gallery, wanted.threshold, lists, products, wanted.most)
        assert wanted.budget_s is not None
        lists = lists.within(rate * (wanted.budget_s - (time.monotonic() - start)))
        logger.info("each row looks into %d of %d lists", len(lists.rows), lists.starts.shape[1] - 1)
        parts.save_arrays({"rows": lists.rows, "starts": lists.starts})
    parts.plan({**question, "near": lists is not None})
    return lists


def _way(
    gallery: EmbeddingFile, wanted: Wanted, lists: Lists | None, start: int, products: Products
) -> tuple[list[int], Iterator[Found]]:
    """Comparisons of each block, of all of them; and the pairs of each block from `start` on."""
    if lists is not None:
        found = pairs_near(gallery, wanted.threshold, lists, start=start, products=products, most=wanted.most)
        return lists.pairs().tolist(), found
    tiling = Tiling(gallery.rows, wanted.tile_rows)
    found = pairs_above(gallery, wanted.threshold, tiling=tiling, start=start, products=products, most=wanted.most)
    return [tiling.pairs(block) for block in tiling.blocks()], found


def _collect(
    work: Sequence[int],
    pieces: Iterator[Found],
    before: list[Found],
    parts: Parts,
    control: Control,
    wanted: Wanted,
    listener: Listener | None,
) -> tuple[Found, float]:
    """Run the remaining blocks, save their pairs from time to time; returns all pairs, and the seconds that it took."""
    kept, pending, count = before, list[Found](), sum(map(len, before))
    saved = time.monotonic()
    before_this_run = sum(work[: parts.done])
    with Reporter("pairs", sum(work), done=before_this_run, unit="comparisons", listener=listener) as reporter:
        reporter.advance(0, {"pairs": count})
        for compared, piece in zip(work[parts.done :], pieces, strict=True):
            pending.append(piece)
            count += len(piece)
            if count > wanted.most:
                raise TooManyPairsError(f"{count:,} pairs")
            reporter.advance(compared, {"pairs": len(piece)})
            if not control.wait() or time.monotonic() - saved >= wanted.save_every_s:
                parts.save(pending)
                kept.append(joined(pending))
                pending = []
                saved = time.monotonic()
            raise_if_stopping(control)
        if pending:
            parts.save(pending)
    return joined([*kept, *pending]), reporter.state().elapsed_s


def _chosen(found: Found, which: NDArray[np.int64]) -> Found:
    return Found(found.first[which], found.second[which], found.scores[which])
