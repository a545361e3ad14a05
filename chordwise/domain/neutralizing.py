"""Text of strangers made harmless for spreadsheets: shown, never computed.

A program that opens a table takes a cell that begins like a formula for one, quotation marks or
not. Another sign before it makes it text (OWASP, CSV injection).
"""

from __future__ import annotations

MARK = "'"
# Full-width forms are folded to the others by spreadsheets of East Asia.
_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - meant


def is_risky(text: str) -> bool:
    """Tell whether a spreadsheet might compute this text instead of showing it."""
    return text.startswith(_BEGINNINGS)


def neutralized(text: str) -> str:
    """Return the text, with an apostrophe before it where it might be computed."""
    return f"{MARK}{text}" if is_risky(text) else text
