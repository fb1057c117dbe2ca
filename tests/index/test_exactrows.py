"""The exact rows by their numbers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import StorageError
from runtime.index.exactrows import ExactRows
from runtime.index.indexfile import ensure_index
from runtime.storage.file import EmbeddingFile
from tests.index.test_flat import unit, write_gallery


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    with EmbeddingFile(write_gallery(tmp_path / "people.h5", unit(500))) as gallery:
        path = ensure_index(gallery)
        assert path is not None
        with ExactRows(path, 500, 32) as exact:
            asked = np.array([499, 0, 3, 3, 250])
            np.testing.assert_array_equal(exact.reconstruct_batch(asked), unit(500)[asked])
            assert exact.reconstruct_batch(np.empty(0, np.int64)).shape == (0, 32)
            os.truncate(path, 20_000)
            with pytest.raises(StorageError, match="shorter"):
                exact.reconstruct_batch(np.array([499]))
