"""Choose the lowest score that counts as a pair, by the false pairs to expect or by the number of pairs."""

from __future__ import annotations

import logging
import math

import numpy as np

from ..errors import ConfigError
from ..metrics.falsematch import Calibration
from ..storage.file import EmbeddingFile
from .approximate import sample_rows

DEFAULT_EXPECTED = 1.0
_SAMPLE_ROWS = 4096

logger = logging.getLogger(__name__)


def choose_threshold(
    gallery: EmbeddingFile, calibration: Calibration | None, threshold: float | None, expected: float | None
) -> float:
    """The threshold that was asked for, in whichever way.

    Among N rows there are N (N - 1) / 2 pairs, and nearly all of them are of two people: so many times the false match
    rate are the false pairs to expect.

    Args:
        gallery: an open embedding file.
        calibration: that it carries.
        threshold: given; then nothing is computed.
        expected: false pairs, given; None for DEFAULT_EXPECTED, or, where the calibration's pairs are too few to show
            that, for the lowest score that none of them reached.
    Raises:
        ConfigError: there is no calibration to compute it by, or its pairs are too few for what was asked for.
    """
    if threshold is not None:
        return threshold
    if calibration is None:
        what = "" if expected is None else f" for {expected:g} expected false pairs"
        raise ConfigError(
            f"{gallery.path} carries no calibration, and so no threshold can be computed{what}. Make one with: "
            f"facemill evaluate FOLDER --calibrate {gallery.path}, or give one with --threshold"
        )
    pairs = gallery.rows * (gallery.rows - 1) // 2
    found = calibration.lowest(DEFAULT_EXPECTED if expected is None else expected, pairs)
    if found is None:
        bound = calibration.expected(calibration.beyond, pairs)
        words = (
            f"the calibration's {calibration.pairs:,} pairs are too few to show "
            f"{DEFAULT_EXPECTED if expected is None else expected:g} false among {pairs:,} pairs: none of them scored "
            f"{calibration.beyond:.3f} or more, which bounds the false pairs there at {bound}"
        )
        if expected is not None or calibration.beyond > 1:
            raise ConfigError(
                f"{words}. Calibrate with more people, or give a threshold such as --threshold {calibration.beyond:.3f}"
            )
        logger.warning("%s; that is the threshold taken", words)
        found = calibration.beyond
    logger.info("threshold %.3f: %s false pairs expected", found, calibration.expected(found, pairs))
    return found


def suggest_threshold(gallery: EmbeddingFile, most: int, threshold: float) -> float:
    """A threshold, in thousandths, that about half of `most` pairs reach, by rows drawn at random.

    Args:
        gallery: an open embedding file.
        most: pairs.
        threshold: that more pairs reach; the answer is higher.
    """
    _, vectors = sample_rows(gallery, _SAMPLE_ROWS, 0)
    above = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]  # (S (S - 1) / 2,) float32
    share = most / max(1, gallery.rows * (gallery.rows - 1))
    kept = min(len(above), max(1, int(share * len(above))))
    score = float(np.partition(above, -kept)[-kept]) if len(above) else threshold
    return max(math.ceil(1000 * score) / 1000, threshold + 0.001)
