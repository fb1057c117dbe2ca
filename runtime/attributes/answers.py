"""Read the answers of an attribute network: an age with an interval, and a gender with its probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..records import ATTRIBUTE_FIELDS, ATTRIBUTES, GENDERS, unread_attributes

AGES = 101  # probabilities of the ages 0 to 100; older people count as 100
VALUES = AGES + 1  # and the probability of "woman"
_TAIL = 0.1  # probability below the interval, and above it


def read_answers(answers: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.void]:
    """Convert the answers of an attribute network to attributes.

    Args:
        answers: (n, 102) float32, probabilities of the ages 0 to 100 and of "woman".
        names: the attributes to read, keys of ATTRIBUTE_FIELDS.
    Returns:
        (n,) ATTRIBUTES. `age` is the mean of the distribution; `age_low` and `age_high` leave a tenth of it on either
        side. A row of which the network made no numbers is unread.

    Example:
        >>> answers = np.zeros((1, 102), np.float32)
        >>> answers[0, [30, 101]] = 1, 0.25
        >>> read_answers(answers, ["age", "gender"]).tolist()
        [(30.0, 29.6, 30.4, b'man', 0.75)]
    """
    attributes = unread_attributes(len(answers))
    ages, women = answers[:, :AGES].astype(np.float64), answers[:, AGES]
    total = ages.sum(axis=1)
    good = np.isfinite(answers).all(axis=1) & (total > 0)
    if "age" in names:
        shares = ages[good] / total[good, None]
        attributes["age"][good] = shares @ np.arange(AGES)
        attributes["age_low"][good] = _quantile(shares, _TAIL)
        attributes["age_high"][good] = _quantile(shares, 1 - _TAIL)
    if "gender" in names:
        is_woman = women[good] >= 0.5
        attributes["gender"][good] = np.array(GENDERS, ATTRIBUTES["gender"])[is_woman.astype(int)]
        attributes["gender_score"][good] = np.where(is_woman, women[good], 1 - women[good])
    return attributes


def unread_rows(attributes: NDArray[np.void], names: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) bool: rows of (N,) ATTRIBUTES that lack one of the named attributes."""
    lacking = np.zeros(len(attributes), np.bool_)
    if "age" in names:
        lacking |= np.isnan(attributes["age"])
    if "gender" in names:
        lacking |= attributes["gender"] == b""
    return lacking


def _quantile(shares: NDArray[np.float64], below: float) -> NDArray[np.float64]:
    """(n,): the age below which this share of each distribution lies; a year's share is spread evenly around it."""
    sums = np.cumsum(shares, axis=1)  # (n, 101)
    year = np.argmax(sums >= min(below, 1 - 1e-9), axis=1)
    rows = np.arange(len(shares))
    within = 1 - (sums[rows, year] - below) / np.maximum(shares[rows, year], 1e-12)
    return np.asarray(np.clip(year - 0.5 + within, 0, AGES - 1))


def attribute_names(text: str) -> tuple[str, ...]:
    """Parse the attributes that a user names, such as "age,gender"; in the order of ATTRIBUTE_FIELDS.

    Raises:
        ValueError: a name is unknown, or there is none.
    """
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(ATTRIBUTE_FIELDS):
        raise ValueError(f"{text!r:.80} does not name attributes; expected: {', '.join(ATTRIBUTE_FIELDS)}, or both")
    return tuple(name for name in ATTRIBUTE_FIELDS if name in names)
