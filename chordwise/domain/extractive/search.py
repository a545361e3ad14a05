"""Finding the sentence that answers an item, and the value in it."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chordwise.domain.extractive import words
from chordwise.domain.extractive.checkpoints import checkpoint
from chordwise.domain.extractive.item_hints import Hint
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, Sentence, sentences
from chordwise.domain.extractive.value_patterns import Kind, Value, values

MAX_ENTRIES = 5
_KIND_TERM_WEIGHT = 0.4
_LEAST_COVERAGE = 0.5
_LEAST_COVERAGE_WITH_CUE = 0.25
_SURE_COVERAGE = 0.8
_CUE_BONUS = 0.5
_VALUE_BONUS = 0.3
_CANDIDATES = 6
_HEADING_TERMS = 6
_DEFINED = re.compile(
    r"\(\W*(?:hereinafter\s+|herein\s+)?(?:the\s+)?[\"“”']+([^\"“”']{1,40})[\"“”']"
)
_DEFINITION_BONUS = 0.5
_EARLINESS = 0.5
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hit:
    """A sentence that fits an item: how much of the item's terms it has, and its score."""

    place: int
    coverage: float
    score: float


class SearchableText:
    """A text prepared once for many items."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sentences = sentences(text)
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, sentence in enumerate(self._sentences):
            for term in dict.fromkeys(sentence.terms):
                self._places[term].append(place)

    def find(self, hint: Hint, limit: int | None = None) -> list[Match]:
        """Return what answers an item, the best first; nothing where nothing is near enough.

        Without a limit, an item that means a list gets several answers and any other gets one.
        """
        limit = limit or (MAX_ENTRIES if hint.is_list else 1)
        if hint.is_title and (found_title := title(self._sentences)):
            return [Match(value=found_title[0], quote=found_title[1].text, confidence=3)]
        if hint.kinds and not hint.cue and hint.kind_terms.issuperset(hint.terms):
            return self._all_of(hint, limit)
        found = [match for hit in self._hits(hint) for match in self._matches(hint, hit)]
        unlike: dict[str, Match] = {}
        for match in found:
            unlike.setdefault(match.value.casefold(), match)
        ranked = sorted(unlike.values(), key=lambda match: -match.confidence)
        return ranked[:limit]

    def _all_of(self, hint: Hint, limit: int) -> list[Match]:
        """Return the values of a kind, the most frequent first, then by their place."""
        counts: Counter[str] = Counter()
        first: dict[str, tuple[str, Sentence]] = {}
        for kind in hint.kinds[:1]:
            for sentence in self._sentences:
                for value in values(kind, sentence.text):
                    identity = " ".join(value.text.casefold().split())
                    counts[identity] += 1
                    first.setdefault(identity, (value.text, sentence))
        chosen = sorted(counts, key=lambda identity: -counts[identity])
        confidence = 4 if hint.kinds[0] in _PATTERN_KINDS else 2
        return [
            Match(value=first[key][0], quote=first[key][1].text, confidence=confidence)
            for key in chosen[:limit]
        ]

    def _hits(self, hint: Hint) -> list[_Hit]:
        scores = self._coverages(hint)
        if hint.cue:
            for place, sentence in enumerate(self._sentences):
                checkpoint()
                if hint.cue.search(sentence.text):
                    scores.setdefault(place, 0.0)
        hits = (self._hit(hint, place, coverage) for place, coverage in scores.items())
        return sorted((hit for hit in hits if hit), key=lambda hit: (-hit.score, hit.place))[
            :_CANDIDATES
        ]

    def _coverages(self, hint: Hint) -> dict[int, float]:
        weights = {
            term: self._weight(term) * (_KIND_TERM_WEIGHT if term in hint.kind_terms else 1.0)
            for term in hint.terms
        }
        total = sum(weights.values()) or 1.0
        coverages: dict[int, float] = defaultdict(float)
        for term, weight in weights.items():
            for place in self._places.get(term, ()):
                coverages[place] += weight / total
        return dict(coverages)

    def _weight(self, term: str) -> float:
        return math.log(1 + (len(self._sentences) + 1) / (len(self._places.get(term, ())) + 0.5))

    def _hit(self, hint: Hint, place: int, coverage: float) -> _Hit | None:
        checkpoint()
        sentence = self._sentences[place]
        has_cue = bool(hint.cue and hint.cue.search(sentence.text))
        has_value = any(True for kind in hint.kinds for _ in values(kind, sentence.text))
        least = _LEAST_COVERAGE_WITH_CUE if has_cue else _LEAST_COVERAGE
        if coverage < least and not (has_cue and has_value):
            return None
        bonus = _CUE_BONUS * has_cue + _VALUE_BONUS * has_value
        bonus += _DEFINITION_BONUS * (_definition(hint, sentence.text) is not None)
        lateness = _EARLINESS * has_cue * place / len(self._sentences)
        length = len(sentence.terms) / 1000
        return _Hit(place=place, coverage=coverage, score=coverage + bonus - length - lateness)

    def _matches(self, hint: Hint, hit: _Hit) -> Iterator[Match]:
        sentence = self._sentences[hit.place]
        labelled = _labelled_value(sentence.text, hint.terms)
        if labelled:
            typed = next(_typed(hint, labelled), None)
            value = typed.text if typed else labelled
            yield Match(value=value, quote=sentence.text, confidence=5)
        elif hint.kinds:
            yield from self._typed_matches(hint, hit)
        else:
            confidence = 3 if hit.coverage >= _SURE_COVERAGE else 2
            yield Match(value=sentence.text, quote=sentence.text, confidence=confidence)

    def _typed_matches(self, hint: Hint, hit: _Hit) -> Iterator[Match]:
        sentence = self._sentences[hit.place]
        found = _nearest_first(hint, sentence.text)
        quote = sentence.text
        if not found:
            quote = self._with_next(hit.place)
            found = _nearest_first(hint, quote)
        sure = 1 + (hit.coverage >= _LEAST_COVERAGE) + (hit.coverage >= _SURE_COVERAGE)
        if found:
            confidence = min(4, sure + (hint.kinds[0] in _PATTERN_KINDS))
            for value in found if hint.is_list else found[:1]:
                yield Match(value=value.text, quote=quote, confidence=confidence)
        elif hit.coverage >= _SURE_COVERAGE and not hint.is_list:
            yield Match(value=sentence.text, quote=sentence.text, confidence=1)

    def _with_next(self, place: int) -> str:
        """Return a heading together with the line after it, where its value may stand."""
        one = self._sentences[place]
        if place + 1 == len(self._sentences) or len(one.terms) > _HEADING_TERMS:
            return one.text
        following = self._sentences[place + 1]
        joined = self._text[one.start_char : following.start_char + len(following.text)]
        return joined if len(joined) <= MAX_QUOTE_CHARACTERS else one.text


def _labelled_value(text: str, terms: Sequence[str]) -> str:
    """Return what stands after a label that has an item's terms; empty where there is none."""
    match = _LABEL.match(text)
    if not match or not terms:
        return ""
    label = set(words.terms(match.group(1)))
    if not label.issuperset(terms) or len(set(terms)) < len(label) * _LABEL_SHARE:
        return ""
    return match.group(2).strip()


def _typed(hint: Hint, text: str) -> Iterator[Value]:
    for kind in hint.kinds:
        yield from values(kind, text)


def _nearest_first(hint: Hint, text: str) -> list[Value]:
    """Return a sentence's values of the first kind that it has, by nearness to the item's words."""
    defined = _definition(hint, text)
    anchor = _anchor(hint, text) if defined is None else defined
    for kind in hint.kinds:
        found = list(values(kind, text))
        earlier = [value for value in found if defined is not None and value.start_char < defined]
        if earlier:
            return earlier[::-1]
        if found:
            return sorted(found, key=lambda value: _distance(value, anchor))
    return []


def _definition(hint: Hint, text: str) -> int | None:
    """Return where a sentence defines the item in brackets, as contracts do: (the “Term”)."""
    for match in _DEFINED.finditer(text) if hint.terms else ():
        if set(words.terms(match.group(1))).issuperset(hint.terms):
            return match.start()
    return None


def _anchor(hint: Hint, text: str) -> int:
    """Return where the words end that announce the value."""
    if hint.cue and (match := hint.cue.search(text)):
        return match.end()
    ends = [
        match.end()
        for match in words.WORD.finditer(text)
        if words.stem(match.group().lower()) in hint.terms
    ]
    return max(ends, default=0)


def _distance(value: Value, anchor: int) -> int:
    """Measure in characters; a value before its announcement counts as twice as far."""
    gap = value.start_char - anchor
    return gap if gap >= -1 else -2 * (gap + len(value.text))


_WITHIN = 12
_FORM = (
    r"(?:AGREEMENT|Agreement|CONTRACT|Contract|REPORT|Report|ADDENDUM|Addendum|PLAN|Plan|POLICY"
    r"|Policy|MEMORANDUM|Memorandum|LEASE|Lease|INVOICE|Invoice|STATEMENT|Statement|ADDRESS|Address)"
)
_HEADING_WORD = r"(?:[A-Z0-9]\S*+|(?:of|and|the|for|in|to|a)(?!\S))"
_HEADING = re.compile(
    r"(?=.{4,120}$)(?!.*[.:;,]$)(?!(?i:exhibit|ex-|source|page|confidential|appendix|execution)\b)"
    rf"(?:[^a-z]+|{_HEADING_WORD}(?:\s++{_HEADING_WORD})*+)$"
)
_NAMES_FORM = re.compile(_FORM)
_NAMED = re.compile(rf"(?:[A-Z][\w&/-]*,?\s+(?:and\s+|of\s+|for\s+)?){{1,8}}{_FORM}\b")
_ARTICLE = re.compile(r"^(?:This|THIS|The|THE|Exhibit\s+\S+|EXHIBIT\s+\S+)\s+")


def title(sentences: Sequence[Sentence]) -> tuple[str, Sentence] | None:
    """Return the title with the sentence that it stands in; `None` where no line looks like one.

    A line written like a heading that names a form of document goes first, then the name of a form
    anywhere at the top, then any heading.
    """
    top = sentences[:_WITHIN]
    headings = [one for one in top if _HEADING.match(one.text) and len(one.terms) > 1]
    formal = [one for one in headings if _NAMES_FORM.search(one.text)]
    if formal:
        return formal[0].text, formal[0]
    named = ((match.group(), one) for one in top if (match := _NAMED.search(one.text)))
    for name, sentence in named:
        return _ARTICLE.sub("", name), sentence
    return (headings[0].text, headings[0]) if headings else None
