"""Recognizes typed values by their written form: dates, amounts, addresses, names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import NamedTuple

from chordwise.domain import words
from chordwise.domain.dates import written_dates
from chordwise.domain.extractive.answer_context import checkpoint
from chordwise.domain.extractive.proper_names import FORMS, name_lists, names
from chordwise.domain.quantities import DURATION, MONEY, NUMBER, PERCENT, VALUE_WORDS, pattern_of
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

    @property
    def end_char(self) -> int:
        """The offset of its end."""
        return self.start_char + len(self.text)


_STATE_WORDS = (
    r"(?:(?i:State|Commonwealth|Province|Republic|Kingdom|People['’]s\s+Republic)\s+(?i:of)\s+)?"
)
_CAPITALIZED = r"[A-Z](?:[\w'’]|\.(?=\w))++"
_PROPER = rf"{_CAPITALIZED}(?:\s+(?:and\s+|of\s+)?{_CAPITALIZED}){{0,4}}"
_PATTERNS: dict[ValueKind, re.Pattern[str]] = {
    ValueKind.MONEY: MONEY,
    ValueKind.PERCENT: PERCENT,
    ValueKind.EMAIL: re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}\b"),
    ValueKind.PHONE: re.compile(
        r"(?<![\w.,/$€£-])(?!\d{4}-\d\d-\d\d\b)(?:\+\d[\d ()./-]{6,16}\d"
        r"|\(?\d{3,5}\)?[ ./-]\d{3,4}[ ./-]?\d{3,4})(?![\w/-])"
    ),
    ValueKind.URL: re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]+[^\s<>\"')\].,;:!?]"),
    ValueKind.DURATION: DURATION,
    ValueKind.LAW: re.compile(
        rf"\b(?i:laws?)(?:\s+and\s+\w+)?\s+(?i:of|in\s+force\s+in)\s+(?i:the\s+)?{_STATE_WORDS}"
        rf"(?P<place>{_PROPER}(?:\s+of\s+the\s+{_PROPER})?)"
        rf"|(?<=\b[Bb]y )(?:the\s+)?{_PROPER}\s+[Ll]aws?\b"
    ),
    ValueKind.NUMBER: NUMBER,
    ValueKind.IDENTIFIER: re.compile(
        r"(?<![\w/-])(?=[A-Z/-]*\d)[A-Z0-9][A-Z0-9/-]{2,29}(?![\w/-])"
    ),
}
# The number of a clause or of an item in a list, which counts nothing.
_NUMBER_OF_HEADING = re.compile(
    r"^[^\S\n]*(?P<number>\d{1,2}(?:\.\d+)*)(?:[.)][^\S\n]+(?=\S)"
    r"|[^\S\n]+(?=(?:The|This|Each|Any|No|If|In|All)\b))"
    r"|\b(?:[Ss]ection|[Cc]lause|[Pp]aragraph|Article|Schedule|Exhibit|Annex|Appendix)s?\s+"
    r"(?P<reference>\d+(?:\.\d+)*)"
    r"|\b(?:SECTION|CLAUSE|PARAGRAPH|ARTICLE|SCHEDULE|EXHIBIT|ANNEX|APPENDIX)\s+"
    r"(?P<capitals>\d+(?:\.\d+)*)",
    re.MULTILINE,
)


def values(
    kind: ValueKind, text: str, ordinary: AbstractSet[str] = frozenset()
) -> Iterator[WrittenValue]:
    """Yield the values of a kind in order; words in `ordinary` are not part of a name."""
    checkpoint()
    if kind in NAMES:
        yield from _names(kind, text, ordinary)
        return
    if kind is ValueKind.DATE:
        spans = written_dates(text)
    elif kind is ValueKind.LAW:
        spans = ((one.start(), _end_of_law(one)) for one in _PATTERNS[kind].finditer(text))
    else:
        spans = map(re.Match.span, _PATTERNS[kind].finditer(text))
    if kind is ValueKind.NUMBER:
        headings = {one.start(one.lastgroup or 0) for one in _NUMBER_OF_HEADING.finditer(text)}
        spans = (span for span in spans if span[0] not in headings)
    yield from (WrittenValue(text[start:end], start) for start, end in spans)


def _end_of_law(law: re.Match[str]) -> int:
    """Return where the place of a law ends, if capitals do not tell: “OF NEW YORK EXCLUDING …”."""
    place = law["place"]
    if not (place and place.isupper()):
        return law.end()
    words_of_place = list(_UNSPACED.finditer(place))
    for last in reversed(words_of_place):
        if " ".join(place[: last.end()].lower().split()) in name_lists().places:
            return law.start("place") + last.end()
    stops = (one.start() for one in words_of_place if one[0].lower() in _ENDING_PLACE)
    kept = len(_CONNECTED.sub("", place[: next(stops, None)].rstrip()))
    return law.start("place") + kept if kept else law.end()


# Capitals identify names; legal forms and prepositions identify organizations and places.
NAMES = frozenset({ValueKind.PERSON, ValueKind.ORGANIZATION, ValueKind.PLACE})
_WORD = (
    r"(?:(?:[A-Z]\.)+|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Corp|Ltd|Co)\."
    r"|[A-ZÀ-ÖØ-Þ](?:[\w&-]|['’](?!s\b))*)"
)
_NAME = re.compile(
    rf"(?<![\w@])(?:{_WORD})(?:[ \t](?:(?:of the|de|van|von|der|&)[ \t])?{_WORD}){{0,6}}"
    r"(?:,? (?:Inc|Corp|Ltd|LLC|L\.L\.C|L\.P|LP|Co|B\.V|S\.A|N\.V|PLC|GmbH|AG|plc)\b\.?)?"
)
_LOCATIVE = re.compile(r"\b(?:in|at|near)\s+(?:the\s+)?$", re.IGNORECASE)
_CALENDAR = re.compile(
    rf"\b(?:{pattern_of(name for names in VALUE_WORDS['months'].values() for name in names[:2])})\b"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day",
    re.IGNORECASE,
)
_LOOK_BACK = 12
_UNSPACED = re.compile(r"\S+")
_CONNECTED = re.compile(r"(?:\s+(?:AND|OF|THE))+$")
_BEFORE_NAMES = STOPWORDS | frozenset(LEXICON["words"]["before_names"])
_DOCUMENTS = frozenset(
    ("act", "addendum", "agreement", "amendment", "code", "contract", "exhibit", "lease", "license")
)
"""The last words of names of documents, which may begin like companies."""
_ENDING_PLACE = STOPWORDS - {"and", "of", "the"}


def _names(kind: ValueKind, text: str, ordinary: AbstractSet[str]) -> Iterator[WrittenValue]:
    known: dict[int, str] = {}
    if kind is not ValueKind.ORGANIZATION:
        spans = (one[1:] for one in names(text, ordinary) if one[0] == kind)
        written = ((start, text[start:end]) for start, end in spans)
        known = {start: name for start, name in written if not _CALENDAR.fullmatch(name)}
    for match in _NAME.finditer(text) if kind is not ValueKind.PERSON else ():
        name = _trimmed(match.group(), ordinary)
        start = match.end() - len(name)
        if name and _kind_of_name(name, text[:start], ordinary) is kind:
            if kind is ValueKind.ORGANIZATION:
                start = _with_ordinary_word(text, match.start(), start)
            known.setdefault(start, text[start : match.end()])
    yield from (WrittenValue(known[start], start) for start in sorted(known))


def _trimmed(name: str, ordinary: AbstractSet[str]) -> str:
    """Return a name without leading words that are capitalized only at the start of a sentence."""
    first, _, rest = name.partition(" ")
    word = first.lower().strip(".'’")
    is_before = word in STOPWORDS or (rest and (word in ordinary or _CALENDAR.fullmatch(first)))
    if name and is_before:
        return _trimmed(rest, ordinary)
    return name


def _with_ordinary_word(text: str, first: int, start: int) -> int:
    """Return where a name starts, with an ordinary word before it: “General Electric Company”."""
    word = text[first:start].rstrip().rpartition(" ")[2]
    is_other = word.lower().strip(".'’") in _BEFORE_NAMES or _CALENDAR.fullmatch(word)
    return start if is_other else text.rindex(word, first, start)


def _kind_of_name(name: str, before: str, ordinary: AbstractSet[str]) -> ValueKind | None:
    listed = [part.replace(".", "").strip(",'’").lower() for part in name.split()]
    parts = set(listed)
    if listed[-1] in _DOCUMENTS:
        return None
    if len(parts) > 1 and not parts.isdisjoint(FORMS):
        # “a Delaware Corporation” is no name.
        proper = " ".join(part for part in listed if part not in FORMS)
        return None if proper in name_lists().states else ValueKind.ORGANIZATION
    is_located = _LOCATIVE.search(before[-_LOOK_BACK:]) and not name.isupper()
    if not is_located or not parts.isdisjoint(ordinary | name_lists().words):
        return None
    # “in” introduces any noun in German.
    is_place = not _CALENDAR.search(name) and words.is_english(words.words(before))
    return ValueKind.PLACE if is_place else None
