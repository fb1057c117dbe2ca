"""How many threads FAISS uses: a second one is only waited for where there is little to do, long where cores are busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..extras import require


@contextmanager
def faiss_threads(count: int | None) -> Iterator[None]:
    """So many threads for the calls of this thread to FAISS; None for as many as it would take.

    Args:
        count: at least 1.
    """
    faiss = require("faiss", extra="cpu", purpose="searching")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
