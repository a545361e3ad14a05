"""Recognizes typed values by their written form: dates, amounts, addresses, names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import NamedTuple

from chordwise.domain.extractive.answer_context import checkpoint
from chordwise.domain.quantities import CURRENCY, SCALE, SCALED_MONEY
from chordwise.domain.words import LEXICON, STOPWORDS


class ValueKind(StrEnum):
    """A type of value that can be recognized by its written form."""

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


class WrittenValue(NamedTuple):
    """A value as written in a text, with its offset."""

    text: str
    start_char: int


_MONTH_NAME = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_MONTH = rf"(?i:{_MONTH_NAME})\.?"
_DAY = (
    r"(?:(?:3[01]|[12]\d|0?[1-9])(?:\s?(?:s\s?t|n\s?d|r\s?d|t\s?h)\b)?\)?|(?:twenty-|thirty-)?"
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth)"
    r"(?=\s+day\b))"
)
_MONTH_NUMBER = r"(?:1[0-2]|0?[1-9])"
_FIGURES = r"(?:\d+(?:[.,'’]\d+)*+|\.\d\d)"
_UPPER_END = rf"(?:\s?(?:[-–—]|to)\s?(?:{CURRENCY})?{_FIGURES}(?={SCALED_MONEY}))?"  # 1-2 million
_AMOUNT = rf"{_FIGURES}{_UPPER_END}(?:{SCALED_MONEY})?"
_COUNT = (
    r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|eighteen|twenty"
    r"|thirty|forty-five|sixty|ninety)(?:\s*\(\s*\d+\s*\))?"
)
_STATE_WORDS = (
    r"(?:(?i:State|Commonwealth|Province|Republic|Kingdom|People['’]s\s+Republic)\s+of\s+)?"
)
_PROPER = r"[A-Z](?:\w|\.(?=\w))++(?:\s+(?:and\s+|of\s+)?[A-Z](?:\w|\.(?=\w))++){0,3}"
_PATTERNS: dict[ValueKind, re.Pattern[str]] = {
    ValueKind.DATE: re.compile(
        rf"\b{_MONTH}\s+{_DAY}(?:\s*+,)?\s*+\d{{4}}\b"
        rf"|(?<!\d){_DAY}[\s/-]*+(?:day\s+)?(?:of\s+)?{_MONTH}(?:\s*+,)?[\s/-]*+(?:\d{{4}}|\d{{2}})\b"
        rf"|\b\d{{4}}([-/.]){_MONTH_NUMBER}\1{_DAY}\b"
        rf"|(?<![\d./-]){_DAY}([-/.]){_MONTH_NUMBER}\2(?:\d{{4}}|\d{{2}})(?![\d/-])"
        rf"|(?<![\d./-]){_MONTH_NUMBER}([-/.]){_DAY}\3(?:\d{{4}}|\d{{2}})(?![\d/-])"
        rf"|\b{_MONTH}(?:\s*+,)?\s++\d{{4}}\b|\b{_MONTH}\s+{_DAY}\b|\b{_DAY}\s+{_MONTH}(?=\W)"
    ),
    ValueKind.MONEY: re.compile(
        rf"(?=\D{{0,10}}+\d)(?:\b(?:US|CA|AU|HK)\s)?(?!\w?[a-z]{{2}}){CURRENCY}\s?{_AMOUNT}"
        rf"|(?<![\d.,]){_AMOUNT}\.?[\s-]?(?:(?:US\s)?{CURRENCY}|(?:pounds|cents)\b)"
    ),
    ValueKind.PERCENT: re.compile(r"\d[\d.,]*+\s?(?:%|percent\b|per\s?cent\b|percentage points)"),
    ValueKind.EMAIL: re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}\b"),
    ValueKind.PHONE: re.compile(
        r"(?<![\w.,/$€£-])(?!\d{4}-\d\d-\d\d\b)(?:\+\d[\d ()./-]{6,16}\d"
        r"|\(?\d{3,5}\)?[ ./-]\d{3,4}[ ./-]?\d{3,4})(?![\w/-])"
    ),
    ValueKind.URL: re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]+[^\s<>\"')\].,;:!?]"),
    ValueKind.DURATION: re.compile(
        rf"\b{_COUNT}[\s-]+(?:business\s+|calendar\s+|working\s+)?"
        r"(?:days?|weeks?|months?|years?|hours?|minutes?)\b",
        re.IGNORECASE,
    ),
    ValueKind.LAW: re.compile(
        rf"\b(?i:laws?)(?:\s+and\s+\w+)?\s+(?i:of|in\s+force\s+in)\s+(?:the\s+)?{_STATE_WORDS}"
        rf"{_PROPER}|(?<=\b[Bb]y )(?:the\s+)?{_PROPER}\s+[Ll]aws?\b"
    ),
    ValueKind.NUMBER: re.compile(rf"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:[\s-]{SCALE})?(?![\d%])"),
    ValueKind.IDENTIFIER: re.compile(
        r"(?<![\w/-])(?=[A-Z/-]*\d)[A-Z0-9][A-Z0-9/-]{2,29}(?![\w/-])"
    ),
}


def values(
    kind: ValueKind, text: str, ordinary: AbstractSet[str] = frozenset()
) -> Iterator[WrittenValue]:
    """Yield the values of a kind in order; words in `ordinary` are not part of a name."""
    checkpoint()
    if kind in NAMES:
        yield from _names(kind, text, ordinary)
        return
    for match in _PATTERNS[kind].finditer(text):
        yield WrittenValue(match.group(), match.start())


# Capitals identify names; legal forms, titles and prepositions identify their kinds.
NAMES = frozenset({ValueKind.PERSON, ValueKind.ORGANIZATION, ValueKind.PLACE})
_WORD = (
    r"(?:(?:[A-Z]\.)+|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Corp|Ltd|Co)\."
    r"|[A-ZÀ-ÖØ-Þ](?:[\w&-]|['’](?!s\b))*)"
)
_NAME = re.compile(
    rf"(?<![\w@])(?:{_WORD})(?:[ \t](?:(?:of the|de|van|von|der|&)[ \t])?{_WORD}){{0,6}}"
    r"(?:,? (?:Inc|Corp|Ltd|LLC|L\.L\.C|L\.P|LP|Co|B\.V|S\.A|N\.V|PLC|GmbH|AG|plc)\b\.?)?"
)
FORMS = frozenset(LEXICON["words"]["forms_of_organizations"])
_TITLED = re.compile(r"(?:Mr|Mrs|Ms|Dr|Prof|Professor|President|Senator|Sir|Judge)\b\.?\s")
_LOCATIVE = re.compile(r"\b(?:in|at|near)\s+(?:the\s+)?$", re.IGNORECASE)
_CALENDAR = re.compile(rf"\b{_MONTH_NAME}\b|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day")
_LOOK_BACK = 12
_MAX_PERSON_WORDS = 4


def _names(kind: ValueKind, text: str, ordinary: AbstractSet[str]) -> Iterator[WrittenValue]:
    for match in _NAME.finditer(text):
        name = _trimmed(match.group(), ordinary)
        start = match.end() - len(name)
        if name and _kind_of_name(name, text[:start][-_LOOK_BACK:], ordinary) is kind:
            yield WrittenValue(name, start)


def _trimmed(name: str, ordinary: AbstractSet[str]) -> str:
    """Return a name without leading words that are capitalized only at the start of a sentence."""
    first, _, rest = name.partition(" ")
    word = first.lower().strip(".'’")
    if name and (word in STOPWORDS or (rest and word in ordinary)) and not _TITLED.match(name):
        return _trimmed(rest, ordinary)
    return name


def _kind_of_name(name: str, before: str, ordinary: AbstractSet[str]) -> ValueKind | None:
    parts = [part.replace(".", "").strip(",'’").lower() for part in name.split()]
    if len(parts) > 1 and not FORMS.isdisjoint(parts):
        return ValueKind.ORGANIZATION
    if _TITLED.match(name):
        return ValueKind.PERSON
    if name.isupper() or not ordinary.isdisjoint(parts) or _CALENDAR.search(name):
        return None
    if _LOCATIVE.search(before):
        return ValueKind.PLACE
    is_person = 1 < len(parts) <= _MAX_PERSON_WORDS and not before.lower().endswith("the ")
    return ValueKind.PERSON if is_person else None
