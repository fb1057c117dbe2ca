"""Records, and the stable numbers that files store."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.records import ALL_FACE_DATASETS, FACE, FACE_DATASETS, LATER_DATASETS, Batch, Outcome, Status


def test_stored_numbers_never_change() -> None:
    assert {status.label: int(status) for status in Status} == {
        "pending": 0,
        "embedded": 1,
        "corrupt": 2,
        "unsupported": 3,
        "unreadable": 4,
        "duplicate": 5,
        "no-face": 6,
        "low-quality": 7,
        "multiple-faces": 8,
    }
    assert {status.label for status in Status if not status.failed} == {"pending", "embedded", "duplicate"}


@pytest.mark.parametrize(("rows", "photographs"), [([], 1), ([4, 7, 9], 4), ([4, 4, 4, 7, 9, 9], 4), ([5, 5], 2)])
def test_a_batch_counts_photos_and_not_faces(rows: list[int], photographs: int) -> None:
    assert len(Batch(np.array(rows, np.int64), (Outcome(2, Status.NO_FACE),))) == photographs


def test_every_field_of_a_face_has_its_own_dataset() -> None:
    assert set(ALL_FACE_DATASETS) == set(FACE.names or ())
    assert ALL_FACE_DATASETS.keys() - FACE_DATASETS.keys() == {*LATER_DATASETS, "page"}
    assert len(set(ALL_FACE_DATASETS.values())) == len(ALL_FACE_DATASETS)
    assert FACE_DATASETS["face_index"] == "face_index"
    assert FACE_DATASETS["box"] == "faces/box"
