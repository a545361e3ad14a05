"""Finding the sentence that answers an item, and the value in it."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chordwise.domain.extractive import forms, words
from chordwise.domain.extractive.checkpoints import checkpoint
from chordwise.domain.extractive.items import Item
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, sentences
from chordwise.domain.extractive.values import Kind, Value, values

MAX_ENTRIES = 5
_LEAST_COVERAGE = 0.5
_LEAST_COVERAGE_WITH_CUE = 0.25
_SURE_COVERAGE = 0.8
_CUE_BONUS = 1.0
_VALUE_BONUS = 0.3
_EARLINESS = 0.5
_CANDIDATES = 6
_HEADING_TERMS = 6
_LABEL_SHARE = 0.5
_LABEL = re.compile(
    r"^\W*+([^:=\t\n]{1,60}?)(?:\s*+[:=]|(?=\s{3}|[^\S\t]*+\t))\s*+(?=\S)(.+)$", re.DOTALL
)
_PATTERN_KINDS = {Kind.EMAIL, Kind.URL, Kind.MONEY, Kind.DATE, Kind.PERCENT, Kind.LAW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A value, the words of the text that it stands in, and how sure that is, 1 to 5."""

    value: str
    quote: str
    confidence: int


class SearchableText:
    """A text prepared once for many items."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sentences = sentences(text)
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, sentence in enumerate(self._sentences):
            for term in dict.fromkeys(sentence.terms):
                self._places[term].append(place)
        # A word that the text also writes in lower case is no name where it has a capital.
        bare = (word.strip('.,;:()"“”') for word in text.split())
        self._ordinary = frozenset(word for word in bare if word.islower())

    def find(self, item: Item, limit: int | None = None) -> list[Match]:
        """Return what answers an item, the best first: several for a list or a limit, else one."""
        if found := forms.find(item.layout, self._text, self._sentences):
            return [Match(value=found[0], quote=found[1], confidence=3)]
        near = [match for hit in self._hits(item) for match in self._matches(item, *hit)]
        near.sort(key=lambda match: -match.confidence)
        unlike: dict[str, Match] = {}
        for match in self._all_of(item) if item.is_pure else near:
            unlike.setdefault(" ".join(match.value.casefold().split()), match)
        return list(unlike.values())[: limit or (MAX_ENTRIES if item.is_list else 1)]

    def _all_of(self, item: Item) -> list[Match]:
        """Return the values of a kind: of a list the frequent ones first, else what is labelled."""
        kind = item.kinds[0]
        confidence = 4 if kind in _PATTERN_KINDS else 2
        found = [
            Match(value=value.text, quote=sentence.text, confidence=confidence)
            for sentence in self._sentences
            for value in values(kind, sentence.text, self._ordinary)
        ]
        if not item.is_list:
            return sorted(found, key=lambda match: _strangeness(item, match))
        counts = Counter(match.value for match in found)
        return sorted(found, key=lambda match: -counts[match.value])

    def _hits(self, item: Item) -> list[tuple[int, float]]:
        """Return the places of the sentences that fit best, with how much of the item they have."""
        coverages: dict[int, float] = defaultdict(float)
        total = sum(self._weight(term) for term in item.terms) or 1.0
        for term in item.terms:
            for place in self._places.get(term, ()):
                coverages[place] += self._weight(term) / total
        if item.cue:
            for place, sentence in enumerate(self._sentences):
                checkpoint()
                if item.cue.search(sentence.text):
                    coverages.setdefault(place, 0.0)
        scores = {place: self._score(item, place, share) for place, share in coverages.items()}
        ranked = sorted(scores, key=lambda place: (-scores[place], place))[:_CANDIDATES]
        return [(place, coverages[place]) for place in ranked if scores[place] > 0]

    def _weight(self, term: str) -> float:
        return math.log(1 + (len(self._sentences) + 1) / (len(self._places.get(term, ())) + 0.5))

    def _score(self, item: Item, place: int, coverage: float) -> float:
        checkpoint()
        sentence = self._sentences[place]
        has_cue = bool(item.cue and item.cue.search(sentence.text))
        has_value = bool(self._values(item, self._with_next(place)))
        least = _LEAST_COVERAGE_WITH_CUE if has_cue else _LEAST_COVERAGE
        is_near = coverage >= least or (has_cue and has_value)
        if not is_near or (item.needs_cue and not has_cue):
            return 0.0
        lateness = _EARLINESS * has_cue * place / len(self._sentences)
        bonus = _CUE_BONUS * has_cue + _VALUE_BONUS * has_value
        return 1 + coverage + bonus - lateness - len(sentence.terms) / 1000

    def _matches(self, item: Item, place: int, coverage: float) -> Iterator[Match]:
        sentence = self._sentences[place]
        sure = 1 + (coverage >= _LEAST_COVERAGE) + (coverage >= _SURE_COVERAGE)
        labelled = "" if item.needs_cue else _labelled_value(sentence.text, item.terms)
        if labelled:
            value = next((each.text for each in self._values(item, labelled)), labelled)
            yield Match(value=value, quote=sentence.text, confidence=5)
            return
        for quote in (sentence.text, self._with_next(place)):
            if found := self._nearest_first(item, quote):
                confidence = min(4, sure + (item.kinds[0] in _PATTERN_KINDS))
                for each in found if item.is_list else found[:1]:
                    yield Match(value=each.text, quote=quote, confidence=confidence)
                return
        is_sure = coverage >= (_LEAST_COVERAGE if item.is_question else _SURE_COVERAGE)
        if not item.kinds or (is_sure and not item.is_list and not item.needs_cue):
            confidence = 1 if item.kinds else max(2, sure)
            yield Match(value=sentence.text, quote=sentence.text, confidence=confidence)

    def _values(self, item: Item, text: str) -> list[Value]:
        """Return the values of the first kind of an item that a text has."""
        found = (list(values(kind, text, self._ordinary)) for kind in item.kinds)
        return next((each for each in found if each), [])

    def _with_next(self, place: int) -> str:
        """Return a line that is no whole sentence with the one after it, where its value may be."""
        one = self._sentences[place]
        is_whole = len(one.terms) > _HEADING_TERMS and one.text.endswith((".", ";", ":"))
        if is_whole or place + 1 == len(self._sentences):
            return one.text
        following = self._sentences[place + 1]
        joined = self._text[one.start_char : following.start_char + len(following.text)]
        return joined if len(joined) <= MAX_QUOTE_CHARACTERS else one.text

    def _nearest_first(self, item: Item, text: str) -> list[Value]:
        """Return values by nearness to what announces them; one before it is twice as far."""
        cue = item.cue and item.cue.search(text)
        own = (m for m in words.WORD.finditer(text) if words.stem(m[0].lower()) in item.terms)
        ends = (match.end() for match in own)
        anchor = cue.end() if cue else max(ends, default=0)

        def distance(value: Value) -> int:
            gap = value.start_char - anchor
            return gap if gap >= -1 else -2 * (gap + len(value.text))

        return sorted(self._values(item, text), key=distance)


def _strangeness(item: Item, match: Match) -> int:
    """Count the words before a value, where a label of none but the item's words is the best."""
    before = words.terms(match.quote.partition(match.value)[0])
    return -1 if before and set(before).issubset(item.terms) else len(before)


def _labelled_value(text: str, terms: Sequence[str]) -> str:
    """Return what stands after a label that has an item's terms; empty where there is none."""
    match = _LABEL.match(text)
    label = set(words.terms(match.group(1))) if match and terms else set()
    if not match or not label.issuperset(terms) or len(set(terms)) < len(label) * _LABEL_SHARE:
        return ""
    return match.group(2).strip()
