"""Find pairs of photos that may show the same person, among all rows of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import defaults
from ..errors import OptionError
from ..interrupt import Control
from ..metrics.falsematch import Expectation
from ..pages.page import check_page_path
from ..pages.pairs_page import review_page, write_review
from ..pairs import pairs as searching
from ..pairs.checkpoint import Checkpoint
from ..pairs.decided import leave_out_decided
from ..pairs.table import Pair, PairTable, check_table_path, write_table
from ..pairs.threshold import choose_threshold
from ..progress import Listener
from ..review.rows import RowRules
from ..search.model_label import file_model_label, model_warning
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, eq=False)
class PairReport:
    """The pairs of a file. Iterate over it for `Pair` objects, best first.

    Attributes:
        table: the pairs with their names.
        threshold: lowest score of a pair.
        same_photograph: number of pairs of two faces in one photo, which are left out.
        method: the method of the comparison, for people.
        share: for an approximate search, the share of all pairs that it found, and the number of pairs by which that
            was measured; None for an exact search.
        compared: number of comparisons of this process.
        elapsed_s: their time in seconds.
        expected_false: expected pairs of two people at the threshold; None if the file has no calibration.
        model: the model of the file, for people.
        warning: a warning about untrained weights; empty for trained ones.
        left_out: number of pairs that are left out because of decisions; None if decisions were not asked for.
    """

    table: PairTable
    threshold: float
    same_photograph: int
    method: str
    share: tuple[float, int] | None
    compared: int
    elapsed_s: float
    expected_false: Expectation | None
    model: str
    warning: str
    left_out: int | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.table)

    def to_dict(self) -> dict[str, Any]:
        """The report with all pairs, for JSON."""
        return {
            "threshold": self.threshold,
            "same_photograph": self.same_photograph,
            "exact": self.share is None,
            "method": self.method,
            "expected_false": None if self.expected_false is None else self.expected_false.hits,
            "model": self.model,
            **({"warning": self.warning} if self.warning else {}),
            **({} if self.left_out is None else {"left_out_by_decisions": self.left_out}),
            "pairs": [pair.to_dict() for pair in self],
        }


def find_pairs(
    file: PathLike,
    *,
    threshold: float | None = None,
    expected_false: float | None = None,
    output: PathLike | None = None,
    page: PathLike | None = None,
    page_pairs: int = defaults.PAGE_PAIRS,
    csv_safe: bool = False,
    review: bool = False,
    undecided: bool = False,
    budget_s: float | None = None,
    max_pairs: int = defaults.MAX_PAIRS,
    device: str = "auto",
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> PairReport:
    """Find all pairs of photos in a file that may show the same person. Every row is compared with every other.

    The pairs so far are kept beside the file until the outputs are written: after a crash the same call resumes.

    Args:
        file: a finished embedding file.
        threshold: lowest score of a pair, -1 to 1; None to compute it from `expected_false`.
        expected_false: use the lowest threshold with at most this expected number of pairs of two people; None for 1.
            The file needs a calibration.
        output: file for the pairs, `.csv` or `.parquet`; None to write none.
        page: file for a reviewer's page, `.html`; None to write none.
        page_pairs: maximum number of pairs on the page.
        csv_safe: write `'` into a `.csv`, and into that of the page, before a name that a spreadsheet computes.
        review: obey the decisions about the file (see `Review`): leave out pairs that are decided to show different
            people, and state what is decided about the others.
        undecided: the same, and also leave out pairs that are decided to show the same person.
        budget_s: seconds; if comparing all rows would take longer, the search is approximate. None for exact search.
        max_pairs: stop if more pairs are found.
        device: device that compares the rows: "auto", "cpu", "gpu" or the number of a GPU.
        force: replace outputs, and drop an unfinished search with other options.
        listener: shows the progress; None logs it.
        control: pauses and stops the search, from another thread or by signals; None for neither.
    Returns:
        The pairs, highest score first. Pairs of two faces of one photo are left out.
    Raises:
        TooManyPairsError: there are more than `max_pairs`; the message names a higher threshold.
        OptionError: options exclude each other.
        ConfigError: there is no calibration to compute a threshold from.
        OutputExistsError: an output exists.
        StorageError, EngineError, MissingDependencyError: the file is damaged, or the device cannot be used.
        Interrupted: the control stopped the search.

    Example:
        >>> import facemill
        >>> pairs = facemill.find_pairs("people.h5", threshold=0.6)
        >>> all(pair.score >= 0.6 for pair in pairs)
        True
    """
    if threshold is not None and expected_false is not None:
        raise OptionError("threshold and expected_false are given; expected: one of them")
    path = Path(file)
    table_path, page_path = (None if place is None else Path(place) for place in (output, page))
    with EmbeddingFile(path) as gallery:
        calibration = find_calibration(gallery)
        lowest = choose_threshold(gallery, calibration, threshold, expected_false)
        query = searching.PairQuery(lowest, max_pairs=max_pairs, budget_s=budget_s, device=device)
        with Checkpoint(path) as checkpoint:
            job = {"threshold": lowest, "budget_s": budget_s, "page_pairs": page_pairs, "csv_safe": csv_safe}
            rules = RowRules.of(gallery) if review or undecided else None
            if rules is not None:
                job |= {"decisions": rules.clock, "undecided": undecided}
            outputs = checkpoint.outputs({"pairs": gallery.source["run_id"], **job})
            if table_path is not None:
                check_table_path(table_path, force=force or outputs.owns(table_path))
            if page_path is not None:
                check_page_path(page_path, force=force or outputs.owns(page_path))
            pair_result = searching.find_pairs(
                gallery, checkpoint, query, force=force, listener=listener, control=control
            )
            pairs, states, left_out = pair_result.pairs, None, None
            if rules is not None:
                decided = leave_out_decided(pairs, rules, undecided=undecided)
                pairs, states, left_out = decided.pairs, decided.states, decided.left_out
            table = PairTable(gallery, pairs, calibration, states)
            if table_path is not None:
                write_table(table_path, gallery, table, csv_safe=csv_safe, ready=outputs.ready(table_path))
            if page_path is not None:
                text = review_page(gallery, table, pair_result.method(), lowest, page_pairs, csv_safe=csv_safe)
                write_review(page_path, gallery, text, ready=outputs.ready(page_path))
            checkpoint.remove()
        return PairReport(
            table,
            lowest,
            pair_result.same_photograph,
            pair_result.method(),
            pair_result.share,
            pair_result.compared,
            pair_result.elapsed_s,
            table.expected(lowest),
            file_model_label(gallery),
            model_warning(gallery),
            left_out,
        )
