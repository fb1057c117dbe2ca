"""Text from outside (file names above all), made safe to print."""

from __future__ import annotations

import unicodedata

# Control, format (bidi overrides, zero width), lone surrogates (bytes that are not UTF-8), separators of lines.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text with everything that a terminal would obey, or hide, made visible as `\\x1b` or `\\u202e`.

    Args:
        text: one line; a line break is made visible too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _HIDDEN else c for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's stand-in for a byte
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode()
