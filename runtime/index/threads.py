"""How many threads FAISS uses: where there is little to do a second is only waited for, long where cores are busy."""

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
