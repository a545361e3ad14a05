"""Where a quote may begin and end in a text: not inside a number, nor between letter and accent."""

from __future__ import annotations

import re
from collections.abc import Iterable

Place = tuple[int, int]
"""Start and end of a quote in a text, the end exclusive."""

_ACCENTS = ("\u0300", "\u036f")
"""First and last of Unicode's combining diacritical marks; vowel signs of Asia are no accents."""
_WINDOW_CHARACTERS = 40
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER = re.compile(
    r"\d+"
    r"|\d+\.\d+"  # 3.25
    r"|\d+,\d{1,2}"  # 3,25; but 1856,1857 are two numbers
    r"|\d{1,3}(?:,\d{3})+(?:\.\d+)?"  # 5,000,000.00
    r"|\d{1,3}(?:\.\d{3})+(?:,\d+)?"  # 5.000.000,00
)


def best(text: str, places: Iterable[Place]) -> Place | None:
    """Return the first place that is made of whole words, else the first that cuts no number.

    Scripts without spaces have no whole words to tell, so that the first place counts there.
    """
    inside: Place | None = None
    for start, end in places:
        if _cuts_number(text, start, end) or _cuts_accent(text, end):
            continue
        if not (_joins_letters(text, start) or _joins_letters(text, end)):
            return start, end
        inside = inside or (start, end)
    return inside


def is_inside_number(text: str, place: int) -> bool:
    """Tell whether a cut here would leave a part of a number on either side."""
    first = max(0, place - _WINDOW_CHARACTERS)
    window = text[first : place + _WINDOW_CHARACTERS]
    return any(
        run.start() < place - first < run.end() and _NUMBER.fullmatch(run.group())
        for run in _DIGITS.finditer(window)
    )


def _joins_letters(text: str, place: int) -> bool:
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def _cuts_accent(text: str, end: int) -> bool:
    return _ACCENTS[0] <= text[end : end + 1] <= _ACCENTS[1]


def _cuts_number(text: str, start: int, end: int) -> bool:
    """Tell whether “5 million” was taken out of “15 million”, or “$5” out of “$5.2 billion”."""
    return (text[start].isdecimal() and is_inside_number(text, start)) or (
        text[end - 1].isdecimal() and is_inside_number(text, end)
    )
