"""The contract of an embedding file: the guard of each field, its JSON, and the contract of a merged file."""

from __future__ import annotations

import doctest
import json
from dataclasses import fields, replace

import pytest

from runtime.storage import contract as contract_module
from runtime.storage.contract import GUARDS, EmbeddingContract, Guard, join_contracts

# One value per field; a new option gets its value here automatically.
VALUES = {
    name: (3 if kind in ("int", "float") else kind == "bool" or f"{name}'s")
    for name, kind in EmbeddingContract.__annotations__.items()
    if name != "unknown"
}
FULL_CONTRACT = EmbeddingContract(**VALUES)
# Embedding files of earlier versions are compared by these fields. A change makes old files incomparable.
VECTORS = (
    *("model_sha256", "recipe", "dimension", "crop", "alignment", "channel_order", "exif", "decode", "precision"),
    *("calibration", "detector_sha256", "detector_precision", "landmarks_sha256", "landmarks_precision"),
)
FILE = (
    *VECTORS,
    *("detector_views", "dtype", "align", "faces", "min_score", "min_iod", "min_sharpness", "min_frontal"),
    *("min_brightness", "min_contrast", "max_fit", "pages"),
    *("attribute_names", "attribute_sha256", "attribute_source"),  # since there are attributes
)


def test_every_field_has_a_guard_and_is_in_the_json() -> None:
    names = {field.name for field in fields(EmbeddingContract)} - {"unknown"}
    assert names == set(GUARDS) == set(VALUES)
    assert list(json.loads(FULL_CONTRACT.to_json()).items()) == list(VALUES.items())  # in the order of the file
    assert EmbeddingContract.from_json(FULL_CONTRACT.to_json()) == FULL_CONTRACT
    assert EmbeddingContract.from_attributes({**FULL_CONTRACT.attributes(), "run_id": "x"}) == FULL_CONTRACT


@pytest.mark.parametrize("name", list(GUARDS))
def test_a_changed_field_is_named_only_where_it_guards(name: str) -> None:
    changed = replace(FULL_CONTRACT, **{name: "another"})
    for guard in Guard:
        differences = FULL_CONTRACT.differences(changed, guard)
        assert len(differences) == (GUARDS[name] <= guard)
        assert all(line.startswith(f"{name}: {VALUES[name]!r} in the file, 'another' now") for line in differences)
    assert changed != FULL_CONTRACT
    assert FULL_CONTRACT.differences(FULL_CONTRACT, Guard.RUN, both=True) == []


def test_guard_levels_are_those_of_earlier_versions() -> None:
    assert set(FULL_CONTRACT.select(Guard.VECTORS)) == set(VECTORS)
    assert set(FULL_CONTRACT.select(Guard.SCORES)) == {*VECTORS, "detector_views"}
    assert set(FULL_CONTRACT.select(Guard.FILE)) == set(FILE)
    assert FULL_CONTRACT.select(Guard.RUN) == VALUES


def test_a_field_may_be_absent_on_one_side() -> None:
    crops = EmbeddingContract(root="/photos", model_sha256="ab")
    faces = replace(crops, detector="d", faces="all", detector_sha256="cd")
    assert (crops.detects_faces, faces.detects_faces) == (False, True)
    assert faces.differences(crops, Guard.FILE) == []  # only the fields that the other contract has
    lines = faces.differences(crops, Guard.FILE, both=True, labels=("in the first", "in the other"))
    assert lines == [
        "detector_sha256: 'cd' in the first, None in the other",
        "faces: 'all' in the first, None in the other",
    ]
    assert crops.to_json() == '{"root": "/photos", "model_sha256": "ab"}'


def test_other_landmarks_are_one_difference_and_named_by_their_options() -> None:
    old = EmbeddingContract(root="/photos", model_sha256="ab", detector="d", detector_sha256="cd", detector_views="160")
    new = replace(old, landmarks="marks", landmarks_sha256="ef", landmarks_precision="fp32", detector_views="160 320")
    for guard in Guard:
        assert old.differences(new, guard) == [
            "in the file: made with `--landmarks none`, now: `--landmarks marks`",
        ]
    assert len(new.differences(replace(new, landmarks_sha256="12"), Guard.FILE)) == 1
    assert "12" in new.differences(replace(new, landmarks_sha256="12"), Guard.FILE)[0]


def test_unknown_fields_are_kept_and_guard_vectors() -> None:
    text = '{"root": "/\\udcff", "model_sha256": "ab", "tracker": [1, 2]}'
    newer = EmbeddingContract.from_json(text)
    assert newer.to_json() == text
    assert newer.attributes() == {"root": "/\\xff", "model_sha256": "ab", "tracker": [1, 2], "contract": text}
    older = EmbeddingContract(root="/", model_sha256="ab")
    assert older.differences(newer, Guard.VECTORS) == ["tracker: None in the file, [1, 2] now"]
    assert newer.differences(older, Guard.VECTORS) == []


@pytest.mark.parametrize("text", ["{", "[]", "3", '"root"'])
def test_json_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"contract|Expecting"):
        EmbeddingContract.from_json(text)


def test_a_merged_contract_has_the_common_settings() -> None:
    first = replace(FULL_CONTRACT, limit=5, skip_duplicates=True, max_bytes=7, max_pixels=1, model="a", root="/x/a")
    second = replace(first, limit=9, max_bytes=3, max_pixels=4, model="b", root="/x/b", detector="another")
    assert join_contracts([first, second], b"/x\xff") == replace(
        first, root="/x\udcff", limit=0, max_bytes=7, max_pixels=4
    )
    assert not join_contracts([first, replace(second, skip_duplicates=False)], b"/x").skip_duplicates
    old = EmbeddingContract(root="/x/c", dtype="float32")
    assert join_contracts([old, first], b"/x").to_dict() == {
        **{"root": "/x", "limit": 0, "dtype": "float32", "skip_duplicates": False, "max_bytes": 7, "max_pixels": 1}
    }


def test_the_examples_run() -> None:
    assert doctest.testmod(contract_module).failed == 0
    assert doctest.testmod(contract_module).attempted


def test_text_that_cannot_be_stored_is_refused_except_in_the_root() -> None:
    assert EmbeddingContract.from_dict({"root": "/caf\udce9"}).root == "/caf\udce9"  # a byte that is not UTF-8
    for values in ({"model": "caf\udce9"}, {"root": "/\ud800"}):
        with pytest.raises(ValueError, match="of the contract is"):
            EmbeddingContract.from_dict(values)


def test_a_contract_is_completed_from_the_rows_unless_it_states_others() -> None:
    completed = EmbeddingContract.from_dict({"root": "/p"}).completed("float16", 8)
    assert (completed.dtype, completed.dimension) == ("float16", 8)
    for values in ({"dtype": "float32"}, {"dimension": 9}):
        with pytest.raises(ValueError, match="of the contract is"):
            EmbeddingContract.from_dict(values).completed("float16", 8)


def test_a_contract_without_exposure_rules_accepts_all_faces() -> None:
    """So the files of versions without these rules equal those of today that do not use them."""
    old = EmbeddingContract(detector="d", faces="all")
    strict = replace(old, min_brightness=40.0)
    for guard, count in ((Guard.SCORES, 0), (Guard.FILE, 1), (Guard.RUN, 1)):
        assert len(old.differences(strict, guard)) == len(strict.differences(old, guard)) == count
    assert old.differences(replace(old, min_brightness=0.0), Guard.RUN, both=True) == []


def test_a_contract_without_a_second_look_differs_from_one_with_it_in_both_directions() -> None:
    """The files of versions without a second look must not get rows of another kind."""
    old = EmbeddingContract(detector="d", faces="all")
    new = replace(old, landmarks="l", landmarks_sha256="ab", landmarks_precision="fp32")
    for one, other in ((old, new), (new, old)):
        for guard in Guard:
            assert any("--landmarks none" in line for line in one.differences(other, guard)), guard
    crops = EmbeddingContract(model_sha256="ef")
    assert crops.differences(crops, Guard.RUN, both=True) == old.differences(old, Guard.RUN, both=True) == []


def test_a_contract_without_a_limit_of_the_fit_accepts_all_faces() -> None:
    old = EmbeddingContract(detector="d", faces="all")
    assert len(old.differences(replace(old, max_fit=0.3), Guard.FILE)) == 1
    assert len(replace(old, max_fit=0.3).differences(old, Guard.FILE)) == 1
    assert old.differences(replace(old, max_fit=1.0), Guard.RUN, both=True) == []
