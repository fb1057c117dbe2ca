"""The answers of an attribute network: ages with intervals, genders with probabilities, and rows without either."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.attributes.answers import AGES, VALUES, attribute_names, read_answers, unread_rows
from runtime.records import unread_attributes


def answers_of(*ages: dict[int, float], woman: float = 0.8) -> np.ndarray:
    answers = np.zeros((len(ages), VALUES), np.float32)
    for row, shares in zip(answers, ages, strict=True):
        for age, share in shares.items():
            row[age] = share
        row[AGES] = woman
    return answers


def test_the_age_is_the_mean_and_the_interval_holds_eighty_percent() -> None:
    normal = np.exp(-0.5 * ((np.arange(AGES) - 40) / 6) ** 2)
    answers = np.append(normal / normal.sum(), 0.8)[None].astype(np.float32)
    (row,) = read_answers(answers, ["age", "gender"])
    assert abs(row["age"] - 40) < 0.01
    assert abs(row["age_low"] - (40 - 1.2816 * 6)) < 0.1
    assert abs(row["age_high"] - (40 + 1.2816 * 6)) < 0.1


def test_the_interval_stays_within_the_ages() -> None:
    rows = read_answers(answers_of({0: 1.0}, {100: 1.0}, {20: 0.5, 60: 0.5}), ["age"])
    assert rows["age_low"].min() == 0
    assert rows["age_high"].max() == 100
    assert rows["age"][2] == 40
    assert (rows["age_low"] <= rows["age_high"]).all()
    assert (rows["gender"] == b"").all()


@pytest.mark.parametrize(("woman", "gender", "score"), [(0.8, b"woman", 0.8), (0.5, b"woman", 0.5), (0.1, b"man", 0.9)])
def test_the_score_is_that_of_the_gender(woman: float, gender: bytes, score: float) -> None:
    (row,) = read_answers(answers_of({30: 1.0}, woman=woman), ["gender"])
    assert row["gender"] == gender
    assert abs(row["gender_score"] - score) < 1e-6
    assert np.isnan(row["age"])


def test_answers_without_numbers_are_unread() -> None:
    answers = answers_of({30: 1.0}, {30: 1.0}, {})
    answers[0, 3] = np.nan
    rows = read_answers(answers, ["age", "gender"])
    assert unread_rows(rows, ["age", "gender"]).tolist() == [True, False, True]
    assert unread_rows(unread_attributes(2), ["gender"]).all()
    assert not unread_rows(unread_attributes(2), []).any()


def test_names_are_in_one_order() -> None:
    assert attribute_names("gender, age") == ("age", "gender")
    assert attribute_names("gender") == ("gender",)
    for text in ("", "age,race", "emotion"):
        with pytest.raises(ValueError, match="age"):
            attribute_names(text)
