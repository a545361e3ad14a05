"""Recognizing typed values in a text: dates, amounts, addresses, names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from chordwise.domain.extractive import names
from chordwise.domain.extractive.checkpoints import checkpoint


class Kind(StrEnum):
    """A type of value that can be told by how it is written."""

    DATE = "date"
    MONEY = "money"
    PERCENT = "percent"
    EMAIL = "email"
    PHONE = "phone"
    URL = "url"
    DURATION = "duration"
    LAW = "law"
    NUMBER = "number"
    IDENTIFIER = "identifier"
    PERSON = "person"
    ORGANIZATION = "organization"
    PLACE = "place"


class Value(NamedTuple):
    """A value as it stands in a text, with its place there."""

    text: str
    start_char: int


_LONGEST_ABBREVIATION = 3
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_AMOUNT = r"\d[\d,]*+(?:\.\d+)?(?:\s?(?:million|billion|trillion|thousand|bn)\b)?"
_CURRENCY = r"(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|INR|CNY|Rs\.?)"
_COUNT = (
    r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|eighteen|twenty"
    r"|thirty|forty-five|sixty|ninety)(?:\s*\(\s*\d+\s*\))?"
)
_STATE_WORDS = r"(?:(?:State|Commonwealth|Province|Republic|Kingdom|People['’]s Republic)\s+of\s+)?"
_PROPER = r"[A-Z][\w.]+(?:\s+(?:and\s+)?[A-Z][\w.]+){0,3}"

_PATTERNS: dict[Kind, re.Pattern[str]] = {
    Kind.DATE: re.compile(
        rf"\b{_MONTH}\s+{_DAY}(?:\s*+,)?\s++\d{{4}}\b"
        rf"|\b{_DAY}\s+(?:day\s+of\s+)?{_MONTH}(?:\s*+,)?\s++\d{{4}}\b"
        r"|\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}[/.]\d{1,2}[/.](?:\d{4}|\d{2})\b"
        rf"|\b{_MONTH}(?:\s*+,)?\s++\d{{4}}\b|\b{_MONTH}\s+{_DAY}\b|\b{_DAY}\s+{_MONTH}(?=\W)"
        r"|(?:(?<=\b[Ii]n )|(?<=\bof )|(?<=\bby )|(?<=\b[Ss]ince )|(?<=\buntil )|(?<=\bfrom )"
        r"|(?<=\byear )|(?<=\bto ))(?:1[5-9]|20)\d\d\b(?!\s*[%,.]?\d)"
    ),
    Kind.MONEY: re.compile(
        rf"(?:\b(?:US|CA|AU|HK)\s?)?[$€£¥₹]\s?{_AMOUNT}|\b{_CURRENCY}\s?{_AMOUNT}"
        rf"|\b{_AMOUNT}\s?(?:(?:US\s)?dollars\b|euros?\b|pounds\b|cents\b|€|{_CURRENCY}\b)"
    ),
    Kind.PERCENT: re.compile(r"\d[\d.,]*+\s?(?:%|percent\b|per\s?cent\b|percentage points)"),
    Kind.EMAIL: re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}\b"),
    Kind.PHONE: re.compile(
        r"(?<![\w.,/$€£-])(?!\d{4}-\d\d-\d\d\b)(?:\+\d[\d ()./-]{6,16}\d"
        r"|\(?\d{3,5}\)?[ ./-]\d{3,4}[ ./-]?\d{3,4})(?![\w/-])"
    ),
    Kind.URL: re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]+[^\s<>\"')\].,;:!?]"),
    Kind.DURATION: re.compile(
        rf"\b{_COUNT}[\s-]+(?:business\s+|calendar\s+|working\s+)?"
        r"(?:days?|weeks?|months?|years?|hours?|minutes?)\b",
        re.IGNORECASE,
    ),
    Kind.LAW: re.compile(rf"\blaws?\s+(?:of|in\s+force\s+in)\s+(?:the\s+)?{_STATE_WORDS}{_PROPER}"),
    Kind.NUMBER: re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\d%])"),
    Kind.IDENTIFIER: re.compile(r"(?<![\w/-])(?=[A-Z/-]*\d)[A-Z0-9][A-Z0-9/-]{2,29}(?![\w/-])"),
}
_NAMES = {
    Kind.PERSON: names.Bearer.PERSON,
    Kind.ORGANIZATION: names.Bearer.ORGANIZATION,
    Kind.PLACE: names.Bearer.PLACE,
}


def values(kind: Kind, text: str) -> Iterator[Value]:
    """Yield the values of a kind in order."""
    checkpoint()
    if kind in _NAMES:
        yield from (
            Value(name.text, name.start_char)
            for name in names.names(text)
            if name.bearer is _NAMES[kind]
        )
        return
    for match in _PATTERNS[kind].finditer(text):
        yield Value(_without_full_stop(match.group()), match.start())


def _without_full_stop(text: str) -> str:
    """Drop the full stop of the sentence, but not that of an abbreviation."""
    bare = text.removesuffix(".")
    return bare if len(bare.split()[-1]) > _LONGEST_ABBREVIATION else text
