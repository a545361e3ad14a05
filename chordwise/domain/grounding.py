"""Grounding: finding the quotes of a model in the source text.

Matching tolerates harmless changes by models (white space, typographic quotes and dashes, case,
ligatures, composed and decomposed accents) and layout that does not belong to the wording (see
`layout`). Parts of a quote separated by an ellipsis must be near each other, in order. The stored
quote is always the wording of the source, with its character span.
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
from enum import StrEnum
from functools import cached_property
from itertools import islice

from chordwise.domain import json_values, layout, mentions
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.layout import Place, Plain
from chordwise.domain.words import denies

# The lower case of the last three letters is longer, or depends on their position.
_TYPOGRAPHY = str.maketrans(
    "‘’‚‛\u2039\u203a\u2032\u00b4“”„‟«»″‐‑‒–—―\u2212\u00a0\u202f\u2007\u0130\u03a3\u03c2",
    "''''''''\"\"\"\"\"\"\"-------   i\u03c3\u03c3",
)
_WORD = re.compile(r"\S+")
_PLAIN_WORD = re.compile(r"[a-z0-9]+")
_PARTED = re.compile(r"-[ \t]*+\n")
# For a long quote in a text that repeats it everywhere, the first places are sufficient.
_MAX_COMPARED_CHARACTERS = 10_000_000
_MAX_MENTIONS = 10_000
_CLOSE_MARK = re.compile(r"([,;:])(?<=([^\W\d_])[,;:])(?=([^\W\d_]))")
_SPACED_MARK = re.compile(r"([^\W\d_])([,;:])\s+(?=([^\W\d_]))")
_FRAME = " \t\n\"'.…,;:()[]<>"
# A superscript or a fraction differs from the digit it decomposes to; a ligature is its letters.
_SAME_LETTERS = ("<compat>", "<wide>", "<narrow>", "<noBreak>")
SPAN_FIELDS = ("start_char", "end_char", "grounded", "grounding")
"""The members of a finding that say where its quote is in the text."""
EVIDENCE_FIELDS = (
    *(*SPAN_FIELDS, "value_in_quote", "agreement", "page", "place", "boxes"),
    *("mentions", "scale", "currency"),
)
"""The members of a finding that Chordwise adds to the answer of a model."""


class Grounding(StrEnum):
    """How a quote was found in the document; the values of `facts.grounding`.

    EXACT: verbatim. NORMALIZED: the same words, except for typography, case, and layout. JOINED:
    parts separated by ellipses, all in order and near each other.
    """

    EXACT = "exact"
    NORMALIZED = "normalized"
    JOINED = "joined"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Characters `start_char` to `end_char` of the text of a document, the end exclusive."""

    start_char: int
    end_char: int
    grounding: Grounding = Grounding.EXACT


@dataclass(frozen=True)
class Source:
    """A text that is searched for quotes; `offset` is its position in its document.

    `known` holds spans found earlier, by quote and in order: a synthesis repeats quotes. The
    `header` of a table that the text continues is searched for quotes that are not in the text.
    """

    text: str
    offset: int = 0
    known: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    header: Source | None = None

    def locate(self, quote: str) -> Span | None:
        """Return the first mention of the quote in the document, or `None`."""
        return next(self.mentions(quote), None)

    def mentions(self, quote: str) -> Iterator[Span]:
        """Yield the mentions of the quote in the document, in order.

        Whole words take precedence over parts of words, and a part of a number is never found. A
        quote with an ellipsis spans everything from its first part to its last.
        """
        if known := self.known.get(quote):
            yield from known
            return
        for how, places in self._ways(quote):
            spans = (
                Span(start_char=start + self.offset, end_char=end + self.offset, grounding=how)
                for start, end in places
                if not _leaves_negation(self.text, start, end)
            )
            if first := next(spans, None):
                yield first
                yield from spans
                return

    def _ways(self, quote: str) -> Iterator[tuple[Grounding, Iterator[Place]]]:
        """Yield the results of each way of matching a quote, the strictest first."""
        if not quote.strip():
            return
        yield Grounding.EXACT, whole_words(self.text, _occurrences(quote, self.text))
        folded = "" if "&" in quote else self._plainly_folded
        if folded and not all(word in folded for word in _PLAIN_WORD.findall(_fold(quote))):
            return  # most quotes that a model made up
        for reading in self._readings:
            for places in reading.find(quote):
                yield Grounding.NORMALIZED, places
        for reading in self._readings if (parts := _parts_of(quote)) else ():
            yield Grounding.JOINED, reading.find_joined(parts)

    def wording(self, span: Span) -> str:
        """Return the text of a span in the source."""
        return self.text[span.start_char - self.offset : span.end_char - self.offset]

    @cached_property
    def _plainly_folded(self) -> str:
        """The folded text; empty if its words may contain accents, entities or hyphens."""
        is_plain = self.text.isascii() and "&" not in self.text
        return "" if not is_plain or _PARTED.search(self.text) else _fold(self.text)

    @property
    def _readings(self) -> Iterator[_Reading]:
        yield self._as_it_is
        if self._without_markup.text != self.text:
            yield self._without_markup
        if self._without_insertions.text != self._without_markup.text:
            yield self._without_insertions

    @cached_property
    def _as_it_is(self) -> _Reading:
        return _Reading(Plain(self.text))

    @cached_property
    def _without_markup(self) -> _Reading:
        return _Reading(layout.without_markup(self.text))

    @cached_property
    def _without_insertions(self) -> _Reading:
        return _Reading(layout.without_insertions(self.text))


class _Reading:
    """A text that is searched for the words of quotes; places are those of the source."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self.text = plain.text
        self._gaps_left = _MAX_GAPS

    def find(self, quote: str) -> Iterator[Iterator[Place]]:
        for spelling in self._spellings(quote):
            yield self._origins_of(self._folded_words.places(_fold(spelling)))
            yield self._origins_of(self._decomposed_places(spelling))

    def find_joined(self, parts: Sequence[str]) -> Iterator[Place]:
        """Yield the spans from the first to the last part, for parts that follow each other."""
        by_part = [self._places_of_part(part) for part in parts]
        chains = by_part[0]
        for places, following in itertools.pairwise(by_part):
            distance = self._distance(max(len(places), len(following)))
            chains = self._continued(chains, following, distance)
        starts = dict(reversed(chains))  # the nearest of several ends
        yield from self._origins_of(sorted(starts.items()))

    def _origins_of(self, places: Iterable[Place]) -> Iterator[Place]:
        return (self._plain.origin(*place) for place in whole_words(self.text, places))

    def _places_of_part(self, part: str) -> list[Place]:
        whole: list[Place] = []
        for spelling in self._spellings(part):
            places = itertools.islice(self._decomposed_places(spelling), _MAX_PLACES_OF_PART)
            whole = [place for place in places if not _cuts_word(self.text, *place)]
            if whole:
                break
        return whole

    def _distance(self, count: int) -> float:
        """Return the maximum distance between two parts; less if the text repeats one of them."""
        if count < _FEWEST_REPETITIONS:
            return _MAX_LEFT_OUT
        usual = len(self.text) / count
        return min(_MAX_LEFT_OUT, max(_MAX_LEFT_OUT_OF_REPEATED, usual * _NEAR))

    def _continued(
        self, chains: Sequence[Place], places: Sequence[Place], distance: float
    ) -> list[Place]:
        """Return the chains that continue at one of these places, each as one span."""
        ends = [end for _, end in chains]
        spans: list[Place] = []
        for start, end in places:
            nearest = bisect_right(ends, start) - 1
            if nearest < 0 or start - ends[nearest] > distance:
                continue
            if not self._gaps_left:
                break
            self._gaps_left -= 1
            if _may_be_left_out(self.text, ends[nearest], start):
                spans.append((chains[nearest][0], end))
        return spans

    def _spellings(self, quote: str) -> Iterable[str]:
        plain = layout.without_markup(quote).text.replace(" | ", " ")
        spellings = [quote, plain, layout.respelled(plain, self._plain)]
        if "," in plain or ";" in plain or ":" in plain:
            spellings.append(_CLOSE_MARK.sub(r"\1 ", plain))
            if self._close_marks:
                spellings.append(_SPACED_MARK.sub(self._closed, plain))
        return dict.fromkeys(spellings)

    def _closed(self, match: re.Match[str]) -> str:
        is_close = (match[2], match[1], match[3]) in self._close_marks
        return f"{match[1]}{match[2]}" if is_close else match[0]

    @cached_property
    def _close_marks(self) -> frozenset[tuple[str, ...]]:
        return frozenset(_CLOSE_MARK.findall(self.text))

    def _decomposed_places(self, quote: str) -> Iterator[Place]:
        places = self._decomposed_words.places(_decompose(_fold(quote)))
        if self._decomposed_words is self._folded_words:
            yield from places
            return
        for start, end in places:
            origins = self._decomposed_origins
            begins = not start or origins[start] != origins[start - 1]
            if begins and origins[end] != origins[end - 1]:
                yield origins[start], origins[end]

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

    @cached_property
    def _decomposed_origins(self) -> Sequence[int]:
        sizes = {char: len(_parts(char)) for char in set(self._folded) if not char.isascii()}
        resized = {char for char, size in sizes.items() if size != 1}
        origins, following = array("q"), 0
        for place, char in enumerate(self._folded) if resized else ():
            if char in resized:
                origins.extend(range(following, place))
                origins.extend([place] * sizes[char])
                following = place + 1
        origins.extend(range(following, len(self._folded) + 1))
        return origins


class _Words:
    """The words of a text joined by blanks: a pattern with any white space takes quadratic time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._joined = " ".join(text.split())

    @cached_property
    def _starts(self) -> tuple[array[int], array[int]]:
        spans = [match.span() for match in _WORD.finditer(self._text)]
        lengths = (end - start + 1 for start, end in spans)
        joined = array("q", itertools.accumulate(lengths, initial=0))
        return array("q", (start for start, _ in spans)), joined

    def places(self, quote: str) -> Iterator[Place]:
        """Yield the places where the words of a quote follow each other, ignoring white space."""
        words = " ".join(quote.strip(_FRAME).split())
        if words:
            for start, end in _occurrences(words, self._joined):
                yield self._place(start), self._place(end - 1) + 1

    def _place(self, joined: int) -> int:
        starts, joined_starts = self._starts
        word = bisect_right(joined_starts, joined) - 1
        return starts[word] + joined - joined_starts[word]


# A quote with ellipses

_ELLIPSIS = re.compile(
    r"\[\s*+(?:\.{3,}+|…)\s*+\]|\(\s*+(?:\.{3,}+|…)\s*+\)|\.{3,}+|…|\.(?: \.){2,}+"
)
_MAX_PARTS = 12
_MIN_WORDS, _MIN_LETTERS = 3, 10
_SPACELESS = "\u0e00"
_SYLLABIC = "\u0900"
"""From Devanagari on, the letters of scripts without case are syllables or words."""
_MAX_LEFT_OUT, _MAX_LEFT_OUT_OF_REPEATED = 1_000, 200
_FEWEST_REPETITIONS, _NEAR = 2, 0.1
_MAX_PLACES_OF_PART = 2_000
# Many quotes with ellipses, about a repetitive text, would otherwise take hours.
_MAX_GAPS = 20_000
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*+\s++(?=[\"'“‘(\[]?[A-Z])|[\u3002\uff01\uff1f\u0964]")
_SHORTEST_WORD, _LONGEST_WORD = 3, 20
_LONGEST_BRACKET = 500


def _parts_of(quote: str) -> list[str]:
    """Return the parts of a quote between its ellipses; empty if one could match by chance."""
    parts = list(filter(None, (part.strip(_FRAME) for part in _ELLIPSIS.split(quote))))
    is_long = 1 < len(parts) <= _MAX_PARTS and all(map(_is_telling, parts))
    return parts if is_long else []


def _is_telling(part: str) -> bool:
    """Return whether a part has enough words and letters; a syllable counts as two letters."""
    letters = [char for char in part if char.isalnum()]
    syllables = sum(char >= _SYLLABIC and char.lower() == char.upper() for char in letters)
    is_long = len(letters) + syllables >= _MIN_LETTERS
    return is_long and (any(map(_is_spaceless, letters)) or len(part.split()) >= _MIN_WORDS)


def _is_spaceless(char: str) -> bool:
    return char >= _SPACELESS and char.lower() == char.upper()


def _may_be_left_out(text: str, start: int, end: int) -> bool:
    """An ellipsis must not replace a negation in a sentence that is quoted in part."""
    spans = (match.span() for match in _SENTENCE_END.finditer(text, start, end + 2))
    ends = [
        place
        for place in spans
        if place[1] <= end and (place[0] == start or _ends_sentence(text, place[0]))
    ]
    cut = [(start, ends[0][0]), (ends[-1][1], end)] if ends else [(start, end)]
    plain = (layout.without_insertions(text[slice(*place)]).text for place in cut)
    return not any(denies(_decompose(_fold(part))) for part in plain)


def _leaves_negation(text: str, start: int, end: int) -> bool:
    """Return whether a place begins inside brackets, after a negation, and goes beyond them."""
    close = text.find(")", start, end)
    if close < 0 or text.find("(", start, close) >= 0:
        return False
    first = max(0, start - _LONGEST_BRACKET)
    opened = text.rfind("(", first, start)
    is_inside = opened > text.rfind(")", first, start)
    return is_inside and denies(_decompose(_fold(text[opened:start])))


def _ends_sentence(text: str, index: int) -> bool:
    """A mark ends a sentence after a word in lower case, not after an abbreviation or a number."""
    words = text[max(0, index - _LONGEST_WORD) : index].split()
    word = words[-1].rstrip("\"'”’)]") if words else ""
    is_word = len(word) >= _SHORTEST_WORD and word.isalpha() and word.islower()
    return text[index] not in ".!?" or is_word


def _occurrences(quote: str, text: str) -> Iterator[Place]:
    """Yield the places of a quote, up to a limit on the number of compared characters."""
    start = text.find(quote)
    for _ in range(max(1, _MAX_COMPARED_CHARACTERS // len(quote))):
        if start < 0:
            break
        yield start, start + len(quote)
        start = text.find(quote, start + 1)


def _fold(text: str) -> str:
    return text.translate(_TYPOGRAPHY).lower()


def _decompose(folded: str) -> str:
    return folded.translate({ord(char): _parts(char) for char in set(folded) if not char.isascii()})


def _parts(char: str) -> str:
    if unicodedata.category(char) == "Cf":
        return ""
    kind = unicodedata.decomposition(char).partition(" ")[0]
    if kind.startswith("<") and kind not in _SAME_LETTERS:
        return char
    return unicodedata.normalize("NFKD", char).translate(_TYPOGRAPHY).lower()


def ground(answer: JsonObject, source: Source) -> JsonObject:
    """Return the answer with the span of every quote, and in `grounded` whether one was found."""
    findings = list(json_values.findings(answer))
    said = Counter(json_values.text(finding["quote"]) for finding in findings)
    has_rows = any("path" in finding for finding in findings)
    spans = {
        quote: list(islice(source.mentions(quote), _MAX_MENTIONS if has_rows else number))
        for quote, number in said.items()
    }
    places = {
        quote: [(span.start_char - source.offset, span.end_char - source.offset) for span in listed]
        for quote, listed in spans.items()
    }
    meant = iter(mentions.choose_mentions(findings, places, source.text))

    def located(finding: JsonObject) -> JsonObject:
        quote, mention = json_values.text(finding["quote"]), next(meant)
        if mention is not None:
            return finding | _grounded_item(quote, spans[quote][mention], source)
        if source.header and (span := source.header.locate(quote)):
            return finding | _grounded_item(quote, span, source.header)
        grounded, how = (False, Grounding.NONE.value) if finding["quote"] else (None, None)
        nowhere: JsonObject = {"start_char": None, "end_char": None}
        return finding | nowhere | {"grounded": grounded, "grounding": how}

    return json_values.with_findings(answer, located)


def regrounded(answer: JsonObject, source: Source) -> JsonObject:
    """Return an answer about a part of the source with its other quotes located in the source."""

    def is_lost(finding: JsonObject) -> bool:
        return finding.get("grounded") is False

    lost: list[JsonValue] = [*filter(is_lost, json_values.findings(answer))]
    located = iter(json_values.objects(ground({"evidence": lost}, source)["evidence"]))
    return json_values.with_findings(
        answer, lambda finding: next(located) if is_lost(finding) else finding
    )


def _grounded_item(quote: str, span: Span, source: Source) -> JsonObject:
    return {
        "quote": source.wording(span) or quote,
        "start_char": span.start_char,
        "end_char": span.end_char,
        "grounded": True,
        "grounding": span.grounding.value,
    }


def quotes(value: JsonValue) -> list[JsonObject]:
    """Return every object with a quote, in order, without the data of the user's schema."""
    return [finding for finding in json_values.findings(value) if finding.get("quote")]


def grounded_share(answer: JsonObject) -> float:
    """Return the share of grounded quotes, 0 to 1; 1 if there are no quotes."""
    items = quotes(answer)
    return sum(item.get("grounded") is True for item in items) / len(items) if items else 1.0


def spans_by_quote(answers: tuple[JsonObject, ...]) -> dict[str, list[Span]]:
    """Return the spans of the grounded quotes of earlier answers, each span once, in order."""
    spans: dict[str, list[Span]] = {}
    for answer in answers:
        for item in quotes(answer):
            quote = item["quote"]
            if isinstance(quote, str) and (place := json_values.span_of(item)):
                places = spans.setdefault(quote, [])
                how = Grounding(json_values.text(item.get("grounding")) or Grounding.EXACT)
                span = Span(start_char=place[0], end_char=place[1], grounding=how)
                if span not in places:
                    places.append(span)
    return spans


def without_spans(answer: JsonObject) -> JsonObject:
    """Return a grounded answer in the form in which a model gives it."""
    return json_values.with_findings(
        answer,
        lambda finding: {name: finding[name] for name in finding if name not in EVIDENCE_FIELDS},
    )


def differences(before: JsonObject, after: JsonObject) -> list[str]:
    """Return the paths at which two answers differ, except in the places of their quotes."""
    old, new = (
        {
            path: type(value).__name__ if isinstance(value, dict | list) else value
            for path, value in json_values.walk(without_spans(answer))
        }
        for answer in (before, after)
    )
    return [path or "/" for path in {**old, **new} if old.get(path) != new.get(path)]


_ACCENTS = ("\u0300", "\u036f")
"""The range of combining diacritical marks in Unicode; Asian vowel signs are not accents."""
_WINDOW_CHARACTERS = 40
_SIGN = re.compile(r"[ \t\u00a0\u202f|,;(][-\u2212][$€£¥₹]?\d")
"""A minus; other hyphens are within words, in ranges, or begin an item of a list."""
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER = re.compile(
    r"\d+"
    r"|\d+\.\d+"  # 3.25
    r"|\d+,\d{1,2}"  # 3,25; 1856,1857 are two numbers
    r"|\d{1,3}(?:,\d{3})+(?:\.\d+)?"  # 5,000,000.00
    r"|\d{1,3}(?:\.\d{3})+(?:,\d+)?"  # 5.000.000,00
)


def whole_words(text: str, places: Iterable[Place]) -> Iterator[Place]:
    """Yield the places that consist of whole words, otherwise those within words.

    No place splits a number. Within words of scripts with spaces only the first place counts.
    """
    inside: list[Place] = []
    last = -1
    for start, end in places:
        if _cuts_number(text, start, end) or _cuts_accent(text, end):
            continue
        cuts = [place for place in (start, end) if _joins_letters(text, place)]
        if cuts:
            is_further = not inside or all(_is_spaceless(text[cut]) for cut in cuts)
            if last < 0 and is_further and (not inside or start >= inside[-1][1]):
                inside.append((start, end))
        elif start >= last:
            last = end
            yield start, end
    if last < 0:
        yield from inside


def is_inside_number(text: str, place: int) -> bool:
    """Return whether a cut here splits a number, and not two numbers of a CSV record."""
    first = max(0, place - _WINDOW_CHARACTERS)
    window = text[first : place + _WINDOW_CHARACTERS]
    run = next((run for run in _DIGITS.finditer(window) if run.end() > place - first), None)
    if run is None or run.start() >= place - first or not _NUMBER.fullmatch(run.group()):
        return False
    before, after = window[: run.start()][-2:], window[run.end() :][:2]
    is_record = _is_comma_alone(before[::-1]) or _is_comma_alone(after)
    return not (is_record and "," in text[max(0, place - 1) : place + 1])


def _is_comma_alone(beside: str) -> bool:
    return len(beside) > 1 and beside[0] == "," and not beside[1].isspace()


def _cuts_word(text: str, start: int, end: int) -> bool:
    inside = (place for place in (start, end) if _joins_letters(text, place))
    is_within = any(not _is_spaceless(text[place]) for place in inside)
    return is_within or _cuts_number(text, start, end) or _cuts_accent(text, end)


def _joins_letters(text: str, place: int) -> bool:
    """Return whether a place is inside of a word, or between letters of a script without spaces."""
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    is_inside = before.isalnum() and after.isalnum()
    return is_inside and _is_spaceless(before) == _is_spaceless(after)


def _cuts_accent(text: str, end: int) -> bool:
    return _ACCENTS[0] <= text[end : end + 1] <= _ACCENTS[1]


def _cuts_number(text: str, start: int, end: int) -> bool:
    """Return whether “5” is a part of “15” or “−5”, or “$5” of “$5.2 billion”."""
    return (
        (text[start].isdecimal() and is_inside_number(text, start))
        or (text[end - 1].isdecimal() and is_inside_number(text, end))
        or _SIGN.match(text, max(0, start - 2), start + 2) is not None
    )
