"""File names that contain control sequences for a terminal."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b.jpg", "a b.jpg"),
        ("grüße 世界 😀.jpg", "grüße 世界 😀.jpg"),
        ("\x1b[31mred\x07\n", "\\x1b[31mred\\x07\\n"),
        ("\x7f\x9b1m", "\\x7f\\x9b1m"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("a\u2028b\u200bc", "a\\u2028b\\u200bc"),
        ("\u06cc\u200c\u062e 👨\u200d👩", "\u06cc\u200c\u062e 👨\u200d👩"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\xe9.jpg"),
    ],
)
def test_control_sequences_are_made_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.slow
@settings(deadline=None)
@given(st.text())
def test_the_result_has_no_hidden_characters_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown if c not in "\u200c\u200d"} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode("utf-8")
