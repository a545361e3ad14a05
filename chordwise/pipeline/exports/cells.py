"""A value as the text of a cell."""

from __future__ import annotations

import math
from decimal import Decimal

from chordwise.domain import json_forms

MARK = "'"
# Full-width forms are folded to the others by spreadsheets of East Asia.
_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - meant


def is_risky(text: str) -> bool:
    """Tell whether a spreadsheet might compute this text instead of showing it."""
    return text.startswith(_BEGINNINGS)


def neutralized(text: str) -> str:
    """Return the text, with an apostrophe before it where it might be computed."""
    return f"{MARK}{text}" if is_risky(text) else text


def shown(value: object, *, raw: bool = False) -> str:
    """Return a value as a cell shows it; unless `raw`, no text among them begins like a formula.

    NULL is the empty text. Numbers stay numbers, negative ones too.
    """
    text = text_of(value)
    return text if raw or is_number(value) else neutralized(text)


def is_number(value: object) -> bool:
    """Tell whether a value is a number that a table can compute with."""
    match value:
        case bool():
            return False
        case int():
            return True
        case float():
            return math.isfinite(value)
        case Decimal():
            return value.is_finite()
        case _:
            return False


def text_of(value: object) -> str:
    """Return a value as text: decimals with all their digits, JSON for lists and objects."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal() if value.is_finite():
            return f"{value:f}"
        case dict() | list():
            return json_forms.encoded(value)
        case _:
            plain = json_forms.plain(value)
            return plain if isinstance(plain, str) else repr(plain)
