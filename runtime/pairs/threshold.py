"""Choose the lowest score that counts as a pair, by the false pairs to expect or by the number of pairs."""

from __future__ import annotations

import logging
import math

import numpy as np

from ..errors import ConfigError
from ..metrics.falsematch import Calibration
from ..metrics.verification import check_threshold
from ..storage.file import EmbeddingFile
from .approximate import sample_rows

DEFAULT_EXPECTED = 1.0  # false pairs
_SAMPLE_ROWS = 4096

logger = logging.getLogger(__name__)


def choose_threshold(
    embeddings: EmbeddingFile, calibration: Calibration | None, threshold: float | None, expected: float | None
) -> float:
    """Return the given threshold, or compute it from the calibration.

    N rows make N (N - 1) / 2 pairs, nearly all of two people. This number times the false match rate gives the false
    pairs to expect.

    Args:
        embeddings: an open embedding file.
        calibration: calibration of the file; None without one.
        threshold: returned unchanged; None to compute it.
        expected: false pairs to expect; None for DEFAULT_EXPECTED or, if the calibration has too few pairs to show
            that, for the lowest score that none of its pairs reached.
    Raises:
        ConfigError: the given threshold is no cosine, or there is no calibration, or one of too few pairs.
    """
    check_threshold(threshold)
    if threshold is not None:
        return threshold
    if calibration is None:
        purpose = "" if expected is None else f" for {expected:g} expected false pairs"
        raise ConfigError(
            f"{embeddings.path} has no calibration, so no threshold can be computed{purpose}. Calibrate the file with: "
            f"facemill evaluate FOLDER --calibrate {embeddings.path}, or set a threshold with --threshold"
        )
    pairs = embeddings.rows * (embeddings.rows - 1) // 2
    lowest = calibration.lowest(DEFAULT_EXPECTED if expected is None else expected, pairs)
    if lowest is None:
        bound = calibration.expected(calibration.beyond, pairs)
        reason = (
            f"the calibration's {calibration.pairs:,} pairs are too few to show "
            f"{DEFAULT_EXPECTED if expected is None else expected:g} false among {pairs:,} pairs: none of them scored "
            f"{calibration.beyond:.3f} or more, so the false pairs at that score are {bound}"
        )
        if expected is not None or calibration.beyond > 1:
            raise ConfigError(f"{reason}. Calibrate with more people, or set one: --threshold {calibration.beyond:.3f}")
        logger.warning("%s; that score is the threshold", reason)
        lowest = calibration.beyond
    logger.info("threshold %.3f: %s false pairs expected", lowest, calibration.expected(lowest, pairs))
    return lowest


def suggest_threshold(embeddings: EmbeddingFile, max_pairs: int, threshold: float) -> float:
    """Suggest a threshold, to a thousandth, that about half of `max_pairs` pairs reach. Estimated from random rows.

    Args:
        embeddings: an open embedding file.
        max_pairs: number of pairs allowed.
        threshold: a threshold that more pairs reach; the suggestion is higher.
    """
    _, vectors = sample_rows(embeddings, _SAMPLE_ROWS, 0)
    scores = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]  # (S (S - 1) / 2,) float32
    share = max_pairs / max(1, embeddings.rows * (embeddings.rows - 1))
    count = min(len(scores), max(1, int(share * len(scores))))
    score = float(np.partition(scores, -count)[-count]) if len(scores) else threshold
    return max(math.ceil(1000 * score) / 1000, threshold + 0.001)
