"""Finding a model's quotes in the source: a quote counts only where the text really stands.

Matching tolerates what models change without meaning to (white space, typographic quotes and
dashes, case, ligatures, composed and decomposed accents); what is stored is always the source's own
wording, with its character span.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from chordwise.domain.json_values import JsonObject, JsonValue

# The last three are the letters whose lower case is longer, or depends on where they stand.
_TYPOGRAPHY = str.maketrans(
    "‘’‚‛“”„‟«»‐‑‒–—―\u00a0\u202f\u2007\u0130\u03a3\u03c2",
    '\'\'\'\'""""""------   i\u03c3\u03c3',
)
_WORD = re.compile(r"\S+")
# A long quote in a text that repeats it everywhere: the first places are as good as any other.
_MAX_COMPARED_CHARACTERS = 10_000_000
_FRAME = " \t\n\"'.…,;:()[]<>"
_USER_DATA = "data"
# A superscript or a fraction is not the digit that it decomposes to; a ligature is its letters.
_SAME_LETTERS = ("<compat>", "<wide>", "<narrow>", "<noBreak>")
_EVIDENCE_FIELDS = frozenset({"start_char", "end_char", "grounded", "page", "place", "boxes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Characters `start_char` to `end_char` of a document's text, the end exclusive."""

    start_char: int
    end_char: int


@dataclass(frozen=True)
class Source:
    """A text in which quotes are looked up; `offset` is where it starts in its document.

    `known` holds spans found earlier, by quote and in order: a synthesis repeats the quotes of the
    chunks.
    """

    text: str
    offset: int = 0
    known: Mapping[str, Sequence[Span]] = field(default_factory=dict)

    def locate(self, quote: str, mention: int = 1) -> Span | None:
        """Return where the quote stands in the document, or `None` when it does not.

        Of several places the one of this `mention` counts, from 1: equal rows of a list have equal
        quotes, one after the other. Where there are fewer places it is the first. Whole words come
        before parts of words, and a part of a number is not found at all.
        """
        if spans := self.known.get(quote):
            return spans[mention - 1] if mention <= len(spans) else spans[0]
        if not quote.strip():
            return None
        place = (
            self._verbatim(quote, mention)
            or self._folded_place(quote, mention)
            or self._decomposed_place(quote, mention)
        )
        if place is None:
            return None
        return Span(start_char=place[0] + self.offset, end_char=place[1] + self.offset)

    def wording(self, span: Span) -> str:
        """Return the source's own text of a span."""
        return self.text[span.start_char - self.offset : span.end_char - self.offset]

    def _verbatim(self, quote: str, mention: int) -> Place | None:
        return best(self.text, _occurrences(quote, self.text), mention)

    def _folded_place(self, quote: str, mention: int) -> Place | None:
        return best(self.text, self._folded_words.places(_fold(quote)), mention)

    def _decomposed_place(self, quote: str, mention: int) -> Place | None:
        found = list(self._decomposed_words.places(_decompose(_fold(quote))))
        origins = _origins(self._folded) if found else []
        whole = (
            (origins[start], origins[end])
            for start, end in found
            if origins[end] != origins[end - 1]
            and (not start or origins[start] != origins[start - 1])
        )
        return best(self.text, whole, mention)

    @cached_property
    def _folded(self) -> str:
        return _fold(self.text)

    @cached_property
    def _folded_words(self) -> _Words:
        return _Words(self._folded)

    @cached_property
    def _decomposed_words(self) -> _Words:
        plain = self._folded.isascii()
        return self._folded_words if plain else _Words(_decompose(self._folded))


class _Words:
    """The words of a text, one blank between them, in which those of a quote are looked up.

    A pattern with any white space between the words would take time by the length of the text
    times that of the quote, where both repeat themselves.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._joined = " ".join(text.split())

    @cached_property
    def _starts(self) -> tuple[array[int], array[int]]:
        """Where each word starts, in the text and among the joined words."""
        found = [match.span() for match in _WORD.finditer(self._text)]
        lengths = (end - start + 1 for start, end in found)
        joined = array("q", itertools.accumulate(lengths, initial=0))
        return array("q", (start for start, _ in found)), joined

    def places(self, quote: str) -> Iterator[Place]:
        """Yield where the words of a quote follow each other, whatever is between them."""
        words = " ".join(quote.strip(_FRAME).split())
        if words:
            for start, end in _occurrences(words, self._joined):
                yield self._place(start), self._place(end - 1) + 1

    def _place(self, joined: int) -> int:
        starts, joined_starts = self._starts
        word = bisect_right(joined_starts, joined) - 1
        return starts[word] + joined - joined_starts[word]


def _occurrences(quote: str, text: str) -> Iterator[Place]:
    """Yield where a quote stands, as often as comparing it stays affordable."""
    start = text.find(quote)
    for _ in range(max(1, _MAX_COMPARED_CHARACTERS // len(quote))):
        if start < 0:
            break
        yield start, start + len(quote)
        start = text.find(quote, start + 1)


def _fold(text: str) -> str:
    """Lower-case and straighten typography without moving any character."""
    return text.translate(_TYPOGRAPHY).lower()


def _decompose(folded: str) -> str:
    """Take ligatures and accented letters apart, and leave invisible formatting characters out."""
    return folded.translate({ord(char): _parts(char) for char in set(folded) if not char.isascii()})


def _origins(folded: str) -> list[int]:
    """Return for each character of the decomposed text where it came from; the last is the end."""
    lengths = {char: 1 if char.isascii() else len(_parts(char)) for char in set(folded)}
    places = ([place] * lengths[char] for place, char in enumerate(folded))
    return [*itertools.chain.from_iterable(places), len(folded)]


def _parts(char: str) -> str:
    if unicodedata.category(char) == "Cf":
        return ""
    kind = unicodedata.decomposition(char).partition(" ")[0]
    if kind.startswith("<") and kind not in _SAME_LETTERS:
        return char
    return unicodedata.normalize("NFKD", char).translate(_TYPOGRAPHY).lower()


def ground(answer: JsonObject, source: Source) -> JsonObject:
    """Return the answer with the span of every quote, and `grounded` saying whether there is one.

    An object is a finding with evidence when it has a member `quote`. What stands under `data` is
    the user's own schema and stays untouched.
    """
    mentions: Counter[str] = Counter()
    return {
        key: value if key == _USER_DATA else _ground_value(value, source, mentions)
        for key, value in answer.items()
    }


def _ground_value(value: JsonValue, source: Source, mentions: Counter[str]) -> JsonValue:
    if isinstance(value, list):
        return [_ground_value(item, source, mentions) for item in value]
    if not isinstance(value, dict):
        return value
    grounded: JsonObject = {
        key: _ground_value(item, source, mentions) for key, item in value.items()
    }
    if "quote" in value:
        grounded.update(_evidence(value["quote"], source, mentions))
    return grounded


def _evidence(quote: JsonValue, source: Source, mentions: Counter[str]) -> JsonObject:
    span = None
    if isinstance(quote, str):
        mentions[quote] += 1
        span = source.locate(quote, mentions[quote])
    if span is None:
        return {"start_char": None, "end_char": None, "grounded": False}
    wording = source.wording(span) or quote
    return {
        "quote": wording,
        "start_char": span.start_char,
        "end_char": span.end_char,
        "grounded": True,
    }


def quotes(value: JsonValue) -> list[JsonObject]:
    """Return every object with a quote, in order, the user's own data left out."""
    if isinstance(value, list):
        return [found for item in value for found in quotes(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if value.get("quote") else []
    return own + [
        found for key, item in value.items() if key != _USER_DATA for found in quotes(item)
    ]


def grounded_share(answer: JsonObject) -> float:
    """Return the share of quotes that stand in the source, 0 to 1; without quotes it is 1."""
    found = quotes(answer)
    if not found:
        return 1.0
    return sum(item.get("grounded") is True for item in found) / len(found)


def known_spans(answers: tuple[JsonObject, ...]) -> dict[str, list[Span]]:
    """Collect the grounded quotes of earlier answers, each place once, in order."""
    spans: dict[str, list[Span]] = {}
    for answer in answers:
        for item in quotes(answer):
            start, end, quote = item.get("start_char"), item.get("end_char"), item.get("quote")
            if isinstance(quote, str) and isinstance(start, int) and isinstance(end, int):
                places = spans.setdefault(quote, [])
                if (span := Span(start_char=start, end_char=end)) not in places:
                    places.append(span)
    return spans


def without_spans(value: JsonValue) -> JsonValue:
    """Return a grounded answer as a model would have given it."""
    if isinstance(value, list):
        return [without_spans(item) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = _EVIDENCE_FIELDS if "quote" in value else frozenset()
    return {
        key: item if key == _USER_DATA else without_spans(item)
        for key, item in value.items()
        if key not in dropped
    }


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


def best(text: str, places: Iterable[Place], mention: int = 1) -> Place | None:
    """Return a place that is made of whole words, else the first that cuts no number.

    Of those of whole words the one of this mention counts, where there are so many that do not
    overlap, else the first. Scripts without spaces have no whole words to tell, so that the first
    place counts there.
    """
    whole: list[Place] = []
    inside: Place | None = None
    for start, end in places:
        if _cuts_number(text, start, end) or _cuts_accent(text, end):
            continue
        if _joins_letters(text, start) or _joins_letters(text, end):
            inside = inside or (start, end)
        elif not whole or start >= whole[-1][1]:
            whole.append((start, end))
            if len(whole) == mention:
                return start, end
    return whole[0] if whole else inside


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
