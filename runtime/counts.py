"""Check whole numbers before they reach a file, an array or a thread."""

from __future__ import annotations

import operator
from typing import Any

from .errors import ConfigError

LARGEST = 2**63 - 1  # an embedding file stores whole numbers in 64 bits
MOST_WORKERS = 1024  # threads
LARGEST_DIMENSION = 1 << 16  # numbers in an embedding


def check_count(name: str, value: Any, smallest: int = 1, largest: int = LARGEST) -> None:
    """Check a whole number.

    Raises:
        ConfigError: it is none, or outside its range.
    """
    try:
        fits = not isinstance(value, bool) and smallest <= operator.index(value) <= largest
    except TypeError:
        fits = False
    if not fits:
        raise ConfigError(f"{name} is {value!r:.100}; expected: a whole number from {smallest} to {largest}")
