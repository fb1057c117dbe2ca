"""The contract of an embedding file: what each field guards, its JSON, and the contract of a joined file."""

from __future__ import annotations

import doctest
import json
from dataclasses import fields, replace

import pytest

from runtime.storage import contract as contract_module
from runtime.storage.contract import GUARDS, EmbeddingContract, Guard, join_contracts

# One value for each field: an option that is added has one here, and nothing else.
VALUES = {
    name: (3 if kind in ("int", "float") else kind == "bool" or f"{name}'s")
    for name, kind in EmbeddingContract.__annotations__.items()
    if name != "unknown"
}
WHOLE = EmbeddingContract(**VALUES)
# Embedding files of earlier versions are compared by these: a change of any makes them incomparable.
VECTORS = (
    *("model_sha256", "recipe", "dimension", "crop", "alignment", "channel_order", "exif", "decode", "precision"),
    *("calibration", "detector_sha256", "detector_precision"),
)
FILE = (
    *VECTORS,
    *("detector_views", "dtype", "align", "faces", "min_score", "min_iod", "min_sharpness", "min_frontal"),
)


def test_every_field_guards_something_and_is_in_the_json() -> None:
    names = {each.name for each in fields(EmbeddingContract)} - {"unknown"}
    assert names == set(GUARDS) == set(VALUES)
    assert list(json.loads(WHOLE.to_json()).items()) == list(VALUES.items())  # the order in the file, too
    assert EmbeddingContract.from_json(WHOLE.to_json()) == WHOLE
    assert EmbeddingContract.from_attributes({**WHOLE.attributes(), "run_id": "x"}) == WHOLE


@pytest.mark.parametrize("name", list(GUARDS))
def test_a_field_that_differs_is_named_where_it_guards_and_nowhere_else(name: str) -> None:
    other = replace(WHOLE, **{name: "another"})
    for guard in Guard:
        differences = WHOLE.differences(other, guard)
        assert len(differences) == (GUARDS[name] <= guard)
        assert all(line.startswith(f"{name}: {VALUES[name]!r} in the file, 'another' now") for line in differences)
    assert other != WHOLE
    assert WHOLE.differences(WHOLE, Guard.RUN, both=True) == []


def test_levels_are_those_by_which_earlier_files_were_compared() -> None:
    assert set(WHOLE.select(Guard.VECTORS)) == set(VECTORS)
    assert set(WHOLE.select(Guard.SCORES)) == {*VECTORS, "detector_views"}
    assert set(WHOLE.select(Guard.FILE)) == set(FILE)
    assert WHOLE.select(Guard.RUN) == VALUES


def test_a_field_that_one_side_lacks() -> None:
    crops = EmbeddingContract(root="/photos", model_sha256="ab")
    faces = replace(crops, detector="d", faces="all", detector_sha256="cd")
    assert (crops.detects_faces, faces.detects_faces) == (False, True)
    assert faces.differences(crops, Guard.FILE) == []  # only what the other says
    both = faces.differences(crops, Guard.FILE, both=True, labels=("in the first", "in the other"))
    assert both == [
        "detector_sha256: 'cd' in the first, None in the other",
        "faces: 'all' in the first, None in the other",
    ]
    assert crops.to_json() == '{"root": "/photos", "model_sha256": "ab"}'


def test_fields_of_a_newer_version_are_kept_and_guard_vectors() -> None:
    text = '{"root": "/\\udcff", "model_sha256": "ab", "tracker": [1, 2]}'
    newer = EmbeddingContract.from_json(text)
    assert newer.to_json() == text
    assert newer.attributes() == {"root": "/\\xff", "model_sha256": "ab", "tracker": [1, 2], "contract": text}
    older = EmbeddingContract(root="/", model_sha256="ab")
    assert older.differences(newer, Guard.VECTORS) == ["tracker: None in the file, [1, 2] now"]
    assert newer.differences(older, Guard.VECTORS) == []


@pytest.mark.parametrize("text", ["{", "[]", "3", '"root"'])
def test_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"contract|Expecting"):
        EmbeddingContract.from_json(text)


def test_a_joined_file_says_what_holds_for_all() -> None:
    first = replace(WHOLE, limit=5, skip_duplicates=True, max_bytes=7, max_pixels=1, model="a", root="/x/a")
    other = replace(first, limit=9, max_bytes=3, max_pixels=4, model="b", root="/x/b", detector="another")
    assert join_contracts([first, other], b"/x\xff") == replace(
        first, root="/x\udcff", limit=0, max_bytes=7, max_pixels=4
    )
    assert not join_contracts([first, replace(other, skip_duplicates=False)], b"/x").skip_duplicates
    old = EmbeddingContract(root="/x/c", dtype="float32")
    assert join_contracts([old, first], b"/x").to_dict() == {
        **{"root": "/x", "limit": 0, "dtype": "float32", "skip_duplicates": False, "max_bytes": 7, "max_pixels": 1}
    }


def test_the_examples_run() -> None:
    assert doctest.testmod(contract_module).failed == 0
    assert doctest.testmod(contract_module).attempted
