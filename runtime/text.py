"""Text for people: make external text, mostly file names, safe to print; format times and sizes."""

from __future__ import annotations

import unicodedata

# Control, format (bidi overrides, zero width), lone surrogates (bytes that are not UTF-8), line separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Persian, Hindi and compound emoji need the (non-)joiners.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Escape everything that a terminal would execute or hide, as `\\x1b` or `\\u202e`.

    Args:
        text: one line; a line break is escaped too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if _is_hidden(c) else c for c in text)


def utf8(name: str) -> str:
    """Escape bytes that are not UTF-8 as `\\xe9`, as in `/image_paths` and in JSON."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def count(number: int, name: str) -> str:
    """`1 folder`, `2 folders`."""
    return f"{number:,} {name if number == 1 else name + 's'}"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `4 min 10 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(amount: float) -> str:
    """Bytes for a person: `20.7 GB`, `339 MB`."""
    return f"{amount / 1e9:,.1f} GB" if amount >= 1e9 else f"{amount / 1e6:,.0f} MB"


def _is_hidden(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in _HIDDEN


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's replacement for a byte
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode()
