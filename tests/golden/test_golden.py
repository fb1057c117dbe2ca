"""Files and answers equal those in expected.json and expected.npz."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.golden.scenario import ARRAYS, FACTS, Scenario

EXPECTED = json.loads(FACTS.read_text())
# Tolerances of floating-point numbers, because another processor rounds differently.
_ARRAY_TOLERANCE = {
    "embeddings": 2e-4,
    "box": 0.05,  # pixels, like the next two
    "landmarks": 0.05,
    "iod": 0.05,
    "score": 5e-4,
    "fit": 2e-3,  # a quotient of lengths, like the next one
    "frontal": 2e-3,  # a quotient of lengths of some ten pixels
    "sharpness": 5.0,  # some hundreds to some thousands; a grey level in a few pixels changes it
    "brightness": 0.5,  # grey levels
    "contrast": 3.0,  # a whole number of grey levels, from the ends of a distribution
}
_FLOAT16_TOLERANCE = 5e-4  # two neighbours above 0.25 are 2.4e-4 apart
_LEAST_COSINE = 0.9999
_ANSWER_TOLERANCE = 5e-4  # scores, rates of errors
_ANSWER_TOLERANCES = {
    **dict.fromkeys(("box", "left", "top", "right", "bottom"), 0.15),  # 0.05 as above, and rounded to 0.1
    "at_least": 1,  # a count of scores above a limit: a score next to the limit may cross it
}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """One run of all steps."""
    return Scenario(tmp_path_factory.mktemp("golden")).run()


@pytest.fixture(scope="module")
def expected_arrays() -> Mapping[str, NDArray[Any]]:
    with np.load(ARRAYS) as file:
        return dict(file)


def differences(got: Any, expected: Any, where: str, key: str = "") -> list[str]:
    """A line for each value that is missing, unexpected or different.

    Args:
        got: what JSON can hold.
        expected: likewise.
        where: the path to the value, for the lines.
        key: the last name on the path; it decides the tolerance.
    """
    if type(got) is not type(expected):
        return [f"{where}: got {got!r}, expected {expected!r}"]
    if isinstance(expected, dict):
        lines = [f"{where}: no {name!r}" for name in expected.keys() - got.keys()]
        lines += [f"{where}: unexpected {name!r}" for name in got.keys() - expected.keys()]
        for name in expected.keys() & got.keys():
            lines += differences(got[name], expected[name], f"{where} > {name}", name)
        return sorted(lines)
    if isinstance(expected, list):
        if len(got) != len(expected):
            return [f"{where}: got {len(got)} values, expected {len(expected)}: {got!r}, expected {expected!r}"]
        pairs = enumerate(zip(got, expected, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{where}[{i}]", key)]
    if isinstance(expected, float) or key in _ANSWER_TOLERANCES:
        equal = abs(got - expected) <= _ANSWER_TOLERANCES.get(key, _ANSWER_TOLERANCE)
    else:
        equal = got == expected
    return [] if equal else [f"{where}: got {got!r}, expected {expected!r}"]


@pytest.mark.slow
def test_the_scenario_makes_the_expected_files_arrays_and_answers(
    scenario: Scenario, expected_arrays: Mapping[str, NDArray[Any]]
) -> None:
    assert sorted(scenario.facts["files"]) == sorted(EXPECTED["files"])
    assert sorted(scenario.facts["answers"]) == sorted(EXPECTED["answers"])
    assert sorted(scenario.arrays) == sorted(expected_arrays)


@pytest.mark.parametrize("name", EXPECTED["files"])
def test_file(name: str, scenario: Scenario, expected_arrays: Mapping[str, NDArray[Any]]) -> None:
    got = json.loads(json.dumps(scenario.facts["files"][name]))
    lines = differences(got, EXPECTED["files"][name], name)
    assert not lines, "\n".join(lines)
    own = [array for array in expected_arrays if array.startswith(f"{name}/")]
    assert own
    for array in own:
        assert_close(scenario.arrays[array], expected_arrays[array], array)


@pytest.mark.parametrize("name", EXPECTED["answers"])
def test_answer(name: str, scenario: Scenario) -> None:
    got = json.loads(json.dumps(scenario.facts["answers"][name]))
    lines = differences(got, EXPECTED["answers"][name], name)
    assert not lines, "\n".join(lines)


def test_exported_arrays(scenario: Scenario, expected_arrays: Mapping[str, NDArray[Any]]) -> None:
    exported = [array for array in expected_arrays if array.startswith("merged_npy/")]
    assert len(exported) == 10
    for array in exported:
        assert_close(scenario.arrays[array], expected_arrays[array], array)


def assert_close(got: NDArray[Any], expected: NDArray[Any], name: str) -> None:
    """Equal type and shape, and values within the tolerance that the last part of the name has."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
    kind = name.rpartition("/")[2].removesuffix(".npy")
    tolerance = _FLOAT16_TOLERANCE if expected.dtype == np.float16 else _ARRAY_TOLERANCE[kind]
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, equal_nan=True, err_msg=name)
    if kind == "embeddings":
        a, b = (rows.astype(np.float64) for rows in (got, expected))
        cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        assert cosines.min() >= _LEAST_COSINE, name
