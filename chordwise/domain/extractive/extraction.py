"""Extraction by search: for each item the best matching sentence, and the value in it."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from operator import itemgetter
from typing import NamedTuple

from chordwise.domain import (
    dates,
    grounding,
    items,
    json_values,
    typed_values,
    validation,
    words,
)
from chordwise.domain.analyses.extraction import FOUND, NOT_MENTIONED, Extraction
from chordwise.domain.analysis import claimed_number
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask
from chordwise.domain.extractive import forms, ranking
from chordwise.domain.extractive.answer_context import checkpoint, similarities
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, Sentence, sentences
from chordwise.domain.extractive.values import NAMES, ValueKind, WrittenValue, values
from chordwise.domain.items import ColumnKind, cue_of, kind_of
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.outline import cells, record_tables
from chordwise.domain.schema_nodes import MAX_DEPTH, SchemaNode
from chordwise.domain.words import LEXICON

_UNANNOUNCED = 1
_DENIAL: JsonObject = {"status": NOT_MENTIONED, "value": None, "quote": None, "confidence": 3}


def analyze(task: AnalysisTask) -> JsonObject:
    """Search for each item, or fill in the user's own schema."""
    searchable = SearchableText(task.text, task.header)
    if task.options.schema is not None:
        walk = _Walk(root=task.options.schema, searchable=searchable)
        data = walk.members(SchemaNode.root_of(walk.root), "", 0)
        answer: JsonObject = {"data": data, "evidence": list(walk.evidence)}
        return Extraction().with_counts(answer, task.options)
    declared = items.of(task.options).values()
    return {"fields": [field for item in declared for field in _fields(item, searchable)]}


def synthesize(task: AnalysisTask) -> JsonObject:
    """Keep the distinct values of a list, and the most confident value of any other item."""
    merged = surest(Extraction().merge(task.answers, task.options), task.options)
    return grounding.without_spans(merged)


def surest(joined: JsonObject, options: AnalysisOptions) -> JsonObject:
    """Return joined answers of this model with one value for each item that is not a list."""
    if options.schema is not None:
        return joined
    kept: list[JsonValue] = []
    for name, item in items.of(options).items():
        entries = [one for one in json_values.objects(joined["fields"]) if one.get("item") == name]
        kept += entries if item.kind.is_list else [max(entries, key=claimed_number)]
    return {**joined, "fields": kept}


def unsupported(text: str, output: JsonObject, options: AnalysisOptions) -> list[str]:
    """Return the paths of items without a value that a text may have all the same.

    Only organizations with a legal form are found, and dates that a known phrase announces: of 23
    contracts without a value for their expiration date, 14 say when they end.
    """
    if options.schema is not None:
        return []
    has_dates = any(dates.written_dates(text))
    paths = []
    for number, entry in enumerate(json_values.objects(output["fields"])):
        item = item_of(json_values.text(entry.get("item")))
        is_date = has_dates and item.needs_cue and ValueKind.DATE in item.kinds
        if entry.get("status") == NOT_MENTIONED:
            is_uncertain = is_date or ValueKind.ORGANIZATION in item.kinds[:1]
            paths += [json_values.pointer("/fields", number)] * is_uncertain
    return paths


def guessed(output: JsonObject, quotes: Iterable[tuple[str, JsonObject]]) -> list[str]:
    """Return the paths of yes or no that their quotes do not say; `quotes` are by path.

    A quote says it in a cell, or after a label; “no” in a sentence may belong to another word.
    """
    paths = []
    for path, entry in quotes:
        value = entry["value"] if "value" in entry else json_values.at(output, path)
        truth = typed_values.TRUTHS.get(str(value).lower())
        said = _TRUTH.findall(json_values.text(entry.get("quote")))
        if truth and truth not in {typed_values.TRUTHS[word.lower()] for word in said}:
            paths.append(path)
    return paths


def unannounced(quotes: Iterable[tuple[str, JsonObject]]) -> list[str]:
    """Return the paths of organizations that no phrase announces as what a list asks for.

    `quotes` are the entries of an answer by path. Only values of a list that also has announced
    ones count: of such parties of 58 contracts three of five were wrong, of the others one of four.
    """
    claims: dict[str, dict[str, float]] = defaultdict(dict)
    for path, entry in quotes:
        steps = json_values.steps(path)
        of_list = steps[-2] if len(steps) > 1 and steps[-1].isdecimal() else ""
        name = json_values.text(entry.get("item")) or of_list
        claims[name][path] = claimed_number(entry)
    return [
        path
        for name, by_path in claims.items()
        if (item := item_of(name)).cue is not None and ValueKind.ORGANIZATION in item.kinds[:1]
        for path, claim in by_path.items()
        if claim == _UNANNOUNCED < max(by_path.values())
    ]


def unfilled_lists(options: AnalysisOptions) -> list[str]:
    """Return the names of the lists of objects in a schema, for which no rows are searched."""
    root = SchemaNode.root_of(options.schema or {})
    return list(_lists_of_objects(root, 0))


def _lists_of_objects(node: SchemaNode, depth: int) -> Iterator[str]:
    for name in node.properties if depth < MAX_DEPTH else ():
        member = node.member(name)
        kind = _type_of(member)
        if kind == "array" and _type_of(member.items) in ("object", "array"):
            yield name
        elif kind == "object":
            yield from _lists_of_objects(member, depth + 1)


def _fields(declared: items.DeclaredItem, searchable: SearchableText) -> Iterator[JsonObject]:
    is_open = declared.kind is ColumnKind.BOOLEAN
    item = replace(item_of(declared.name), is_list=declared.kind.is_list)
    if declared.type:
        item = replace(item, kinds=_KINDS.get(declared.kind, () if is_open else item.kinds))
    matches = searchable.find(item)
    if declared.kind in _KINDS:  # a whole sentence is no number
        matches = [match for match in matches if (match.value, 1) != match[1:]]
    entries: list[JsonObject] = [
        {
            "status": FOUND,
            "value": _yes_or_no(match) if is_open else match.value,
            "quote": match.quote,
            "confidence": match.confidence,
        }
        for match in matches
        if match.value  # the cell of a form may be empty
    ]
    for entry in entries or [_DENIAL]:
        yield {"item": declared.name, **entry}


def _yes_or_no(match: Match) -> str:
    """Return the value if it is yes or no; else, whether its sentence has a negation."""
    if match.value.lower() in typed_values.TRUTHS:
        return match.value.lower()
    return "no" if _NEGATION.search(match.quote) else "yes"


# The kind of an item's value, and its cues in texts, derived from the item's words
@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """The properties of an item that its name and description imply.

    `terms` are its words, `known` those and the words of its description; `specific` are the words
    that distinguish it from others of its kind. It `is_pure` if it has a kind, but no such words
    and no cue. `cue` matches sentences with such a value; if `needs_cue`, values without it do not
    count. `layout` names a place in a form. `question` is the item's text if a whole sentence may
    be the answer.
    """

    kinds: tuple[ValueKind, ...]
    terms: tuple[str, ...]
    known: frozenset[str]
    specific: frozenset[str]
    is_pure: bool
    is_list: bool
    cue: re.Pattern[str] | None
    needs_cue: bool
    layout: str
    question: str

    def is_named(self, label: Sequence[str]) -> bool:
        """Return whether a label has all words of the item, and no other."""
        return bool(label) and frozenset(label) == frozenset(self.terms)

    def distance(self, label: Sequence[str]) -> int | None:
        """Return the number of words in which a label and the item differ; `None` if unrelated."""
        stems, item_terms = set(label), set(self.terms)
        foreign = stems - self.known - (_OWN if ValueKind.DATE in self.kinds else set())
        described = self.known - item_terms - _PURE
        is_named = self.specific <= stems and (self.is_pure or not stems.isdisjoint(item_terms))
        is_label = self.is_pure or len(stems - foreign) >= len(stems) * _LABEL_SHARE
        fits = is_label and (is_named or (not foreign and stems & described))
        return len(foreign) + len(item_terms - stems) if fits else None


_KINDS_BY_TERM: dict[str, list[ValueKind]] = {}
for _kind, _listed in LEXICON["kinds"].items():
    for _word in _listed:
        _KINDS_BY_TERM.setdefault(words.stem(_word), []).append(ValueKind(_kind))
# Words that only name a kind; the others also occur beside the value.
_PURE = frozenset(words.stem(word) for word in LEXICON["words"]["naming_kinds"])
# Words that name the document itself; the label of its date may contain any of them.
_OWN = frozenset(
    words.terms("invoice receipt purchase transaction order letter bill issue document")
)
_NEEDING_CUE = frozenset({ValueKind.DATE, ValueKind.LAW})
_QUESTION_WORDS = frozenset({"when", "who", "where", "many"})
_IDENTIFIER = re.compile(r"\b(?:number|no\.?|id|code|reference|identifier)\s*$", re.IGNORECASE)
_EMAIL = re.compile(r"\be-mail", re.IGNORECASE)
_ISSUER = r"(?:company|vendor|seller|merchant|store|shop|issuer|supplier)"
_LAYOUTS = {
    name: re.compile(rf"^(?:{items})$", re.IGNORECASE)
    for name, items in {
        "title": r"(?:document|contract|agreement|report|paper) (?:name|title)|title|headline"
        r"|subject|(?:name|title) of the \w+",
        "total": r"(?:grand |invoice )?total(?: amount| price| sum)?(?: due| paid)?|amount due",
        "issuer": rf"{_ISSUER}(?: name)?",
        "address": rf"(?:{_ISSUER}(?:['’]s)? |business )?address",
    }.items()
}


def item_of(name: str, description: str = "") -> Item:
    """Return the item for a name and a description written by the user."""
    spelled = words.JOINTS.sub(" ", _EMAIL.sub("email", name)).strip().removeprefix("the ")
    listed = words.words(spelled)
    described = words.terms(description)
    terms = words.terms(spelled) or described
    question_words = [words.stem(word) for word in listed if word in _QUESTION_WORDS]
    kinds = _kinds(question_words + terms) or _kinds(described)
    if _IDENTIFIER.search(spelled):
        kinds.pop(ValueKind.NUMBER, None)
        kinds = kinds or {ValueKind.IDENTIFIER: None}
    cue = cue_of(f"{spelled} {description}")
    specific = frozenset(terms) - _PURE - (_OWN if ValueKind.DATE in kinds else set())
    return Item(
        kinds=tuple(kinds),
        terms=tuple(dict.fromkeys(terms)),
        known=frozenset(terms + described),
        specific=specific,
        is_pure=bool(kinds) and cue is None and not specific,
        is_list=kind_of(spelled).is_list,
        cue=cue,
        needs_cue=cue is not None and not _NEEDING_CUE.isdisjoint(kinds),
        question=spelled if question_words or spelled.endswith(("?", "\uff1f", "\u061f")) else "",
        layout=next((name for name, known in _LAYOUTS.items() if known.match(spelled)), ""),
    )


def _kinds(terms: Sequence[str]) -> dict[ValueKind, None]:
    return dict.fromkeys(kind for term in terms for kind in _KINDS_BY_TERM.get(term, ()))


# Search for the sentence with the value of an item
_READINGS = 5
"""The number of matches of which the first valid one fills a single value of a schema."""
_LEAST_COVERAGE = 0.5
_LEAST_COVERAGE_OF_QUESTION = 0.3
_SURE_COVERAGE = 0.8
_CUE_BONUS = 1.0
_VALUE_BONUS = 0.3
_EARLINESS = 0.5
_CANDIDATES = 6
_COMPARED = 8
_UNRELATED = 0.3
_SURE = 5
_HEADING_TERMS = 6
_LABEL_SHARE = 0.5
_LABEL_ENDS = " \t\n:=#"
_LABEL = re.compile(r"^\W*+([^:=\t\n]{1,60}?)(?:\s*+[:=|]|[^\S\t]*+\t)\s*+(?=\S)(.+)$", re.DOTALL)
_ITEM_MARK = re.compile(r"\s*[*•·▪–-]\s+")
_CAPTION = re.compile(r"\([^()]{3,}\)")
_SET_OFF = re.compile(r"[:=#|\t]\s*$")
_SEGMENT = re.compile(r"[.;|,(]\s|\t|\n|\s{3}")
_PATTERN_KINDS = {
    ValueKind.EMAIL,
    ValueKind.URL,
    ValueKind.MONEY,
    ValueKind.DATE,
    ValueKind.PERCENT,
    ValueKind.LAW,
}
_SHOWN_BY_FORM = _PATTERN_KINDS - {ValueKind.LAW}
_MARKS_OF_ITEMS = "*•·▪–-"
_LONGEST_PLACE = 4


class Match(NamedTuple):
    """A value, its quote from the text, and a confidence from 1 to 5."""

    value: str
    quote: str
    confidence: int


class SearchableText:
    """A text that is prepared once for searching many items.

    `header` is that of the table that continues at its beginning.
    """

    def __init__(self, text: str, header: str = "") -> None:
        self._text = text
        self._sentences = sentences(text)
        self._above = list(_places_above(self._sentences))
        self._with_header = f"{header}\n{_from_whole_row(text, header)}" if header else text
        self._record_tables = list(record_tables(self._with_header))
        self._rarity = ranking.inverse_document_frequencies([one.terms for one in self._sentences])
        # A capitalized word that the text also has in lower case is not a name.
        bare = (word.strip('.,;:()"“”') for word in text.split())
        self._ordinary = frozenset(word for word in bare if word.islower())

    def find(self, item: Item, limit: int = 1) -> list[Match]:
        """Return the matches of an item, best first: several for a list, else one.

        Labels take precedence over sentences; an exact issuer label also over the layout.
        """
        if of_records := self._of_records(item):
            return of_records[: None if item.is_list else limit]
        labelled = self._labelled(item)
        is_labelled = item.layout == "issuer" and labelled[:1] and labelled[0].confidence == _SURE
        if not is_labelled and (pair := forms.find(item.layout, self._text, self._sentences)):
            return [Match(*pair, confidence=3)]
        if item.is_list and item.is_pure:
            counts = Counter(match.value for match in labelled)
            labelled.sort(key=lambda match: -counts[match.value])
        hits = self._hits(item) if not item.is_pure and (item.is_list or not labelled) else []
        near: list[Match] = []
        for place, coverage in hits:
            near += self._matches(item, place, coverage)
        near.sort(key=lambda match: 0 if item.question else -match.confidence)
        unlike: dict[str, Match] = {}
        for match in [*labelled, *near]:
            value = _bare(item, match.value)
            unlike.setdefault(" ".join(value.casefold().split()), match._replace(value=value))
        return list(unlike.values())[: None if item.is_list else limit]

    def passages(self, item: Item, limit: int) -> list[Sentence]:
        """Return the sentences nearest to an item, best first: those with its words or its cue."""
        scores = self._coverages(item)
        for place, sentence in enumerate(self._sentences):
            if item.cue and item.cue.search(sentence.text):
                scores[place] += _CUE_BONUS
        nearest = sorted(scores, key=lambda place: (-scores[place], place))
        return [self._sentences[place] for place in nearest[:limit]]

    def _coverages(self, item: Item) -> dict[int, float]:
        """Return the weighted shares of the words of an item, by sentences that have any."""
        terms = item.terms if self._rarity.keys() & item.terms else item.known
        unseen = math.log(1 + 2 * len(self._sentences))
        weights = {term: self._rarity.get(term, unseen) for term in terms}
        coverages: dict[int, float] = defaultdict(float)
        for place, sentence in enumerate(self._sentences):
            if shared := weights.keys() & sentence.terms:
                coverages[place] = sum(map(weights.__getitem__, shared)) / sum(weights.values())
        return coverages

    def _of_records(self, item: Item) -> list[Match]:
        """Return the distinct cells of the columns of tables that have the name of an item."""
        unlike: dict[str, Match] = {}
        for table in self._record_tables:
            are_named = [item.is_named(words.terms(name)) for name in table.names]
            for row, (start, end) in table.rows if any(are_named) else ():
                quote = self._with_header[start:end].strip()
                for cell in filter(None, compress(row, are_named)):
                    unlike.setdefault(cell.casefold(), Match(cell, quote, _SURE))
        return list(unlike.values())

    def _labelled(self, item: Item) -> list[Match]:
        hits: list[tuple[int, Match]] = []
        unlabelled = 2 + 2 * (not _PATTERN_KINDS.isdisjoint(item.kinds[:1]))
        for index in range(len(self._sentences)):
            for label, value, quote in (*self._captioned(item, index), *self._pairs(item, index)):
                distance = item.distance(words.terms(label))
                if distance is not None:
                    hits.append((distance, Match(value, quote, unlabelled if distance else _SURE)))
        return [match for _, match in sorted(hits, key=itemgetter(0))]

    def _pairs(self, item: Item, place: int) -> Iterator[tuple[str, str, str]]:
        """After a colon a value may be any words, unless its kind has a written pattern."""
        text, end = self._sentences[place].text, 0
        is_loose = not item.needs_cue and NAMES.isdisjoint(item.kinds)
        plain = (ValueKind.NUMBER,) * (ValueKind.MONEY in item.kinds and not item.is_pure)
        for value in self._values((*item.kinds, *plain), text):
            before = text[end : value.start_char]
            end = value.end_char
            last = " ".join(before.split()[-1:])
            if item.is_pure or _SET_OFF.search(before) or (is_loose and words.terms(last)):
                yield _SEGMENT.split(before.rstrip(_LABEL_ENDS))[-1], value.text, text
            place_above = self._above[place] if item.is_list else place - 1
            above = self._sentences[place_above].text if place else ""
            is_label = above and not _CAPTION.fullmatch(above)
            if is_label and not text[: value.start_char].strip(_LABEL_ENDS + _MARKS_OF_ITEMS):
                joined = self._joined(place_above) if place_above + 1 == place else ""
                yield above, value.text, joined or text
        if not end and _SHOWN_BY_FORM.isdisjoint(item.kinds):
            quote = text if not text.endswith(":") else self._joined(place)
            match = _LABEL.match(quote)
            label = words.terms(match[1]) if match else []
            if match and label and item.known.issuperset(label):
                value_text = _SEGMENT.split(match[2])[0].strip(" |")
                if ValueKind.LAW not in item.kinds or len(value_text.split()) <= _LONGEST_PLACE:
                    yield match[1], value_text, quote

    def _captioned(self, item: Item, place: int) -> Iterator[tuple[str, str, str]]:
        """Yield captions in brackets on a line below their value, as in forms."""
        sentence = self._sentences[place]
        if _CAPTION.fullmatch(sentence.text):
            start = sentence.start_char
            before = self._text[max(0, start - MAX_QUOTE_CHARACTERS // 2) : start]
            above = before.rstrip().rpartition("\n")[2].strip()
            is_line = not item.kinds or not (item.is_pure or NAMES.isdisjoint(item.kinds))
            texts = [above] if is_line else [one.text for one in self._values(item.kinds, above)]
            if above and "\n" in before[len(before.rstrip()) :]:
                quote = f"{before[before.rindex(above) :]}{sentence.text}"
                yield from ((sentence.text, value, quote) for value in texts[:1])

    def _hits(self, item: Item) -> list[tuple[int, float]]:
        """Return the places of the best sentences, for a list of all that match."""
        coverages = self._coverages(item)
        if item.question:  # only the best sentences are compared by meaning
            best = sorted(coverages, key=lambda place: (-coverages[place], place))[:_COMPARED]
            texts = [self._sentences[place].text for place in best]
            near = zip(best, similarities(item.question, texts), strict=False)
            compared = {place: coverages[place] + one - _UNRELATED for place, one in near}
            coverages = defaultdict(float, compared or coverages)
        scores: dict[int, float] = {}
        for place, sentence in enumerate(self._sentences):
            checkpoint()
            has_cue = bool(item.cue and item.cue.search(sentence.text))
            if not has_cue and (item.needs_cue or place not in coverages):
                continue
            has_value = bool(self._values(item.kinds, self._with_next(place)))
            least = _LEAST_COVERAGE_OF_QUESTION if item.question or has_cue else _LEAST_COVERAGE
            if coverages[place] >= least or (has_cue and has_value):
                lateness = _EARLINESS * has_cue * place / len(self._sentences)
                bonus = _CUE_BONUS * has_cue + _VALUE_BONUS * has_value
                scores[place] = coverages[place] + bonus - lateness
        ranked = sorted(scores, key=lambda place: (-scores[place], place))
        count = len(ranked) if item.is_list else _CANDIDATES
        return [(place, coverages[place]) for place in ranked[:count]]

    def _matches(self, item: Item, place: int, coverage: float) -> Iterator[Match]:
        sentence = self._sentences[place]
        if captioned := list(self._captioned(item, place)):
            yield from (Match(value, quote, confidence=3) for _, value, quote in captioned)
            return
        sure = 1 + (coverage >= _LEAST_COVERAGE) + (coverage >= _SURE_COVERAGE)
        if item.cue is not None:  # its phrases say more than the words of the item
            sure = 3 if item.cue.search(sentence.text) else _UNANNOUNCED
        for quote in (sentence.text, self._with_next(place)):
            if nearest := self._nearest_first(item, quote):
                confidence = min(4, sure + (item.kinds[0] in _PATTERN_KINDS))
                for value in nearest if item.is_list else nearest[:1]:
                    yield Match(value.text, quote, confidence)
                return
        is_whole = coverage >= _SURE_COVERAGE and not item.is_list and not item.needs_cue
        if not item.kinds or item.question or is_whole:
            confidence = 1 if item.kinds else max(2, sure)
            question, text = item.question, sentence.text
            phrase = _phrase(question, text) if question else text
            yield Match(phrase, text, confidence)

    def _values(self, kinds: Sequence[ValueKind], text: str) -> list[WrittenValue]:
        by_kind = (list(values(kind, text, self._ordinary)) for kind in kinds)
        return next((written for written in by_kind if written), [])

    def _with_next(self, place: int) -> str:
        one = self._sentences[place]
        is_whole = len(one.terms) > _HEADING_TERMS and one.text.endswith((".", ";", ":"))
        return one.text if is_whole else self._joined(place) or one.text

    def _joined(self, place: int) -> str:
        """Return two adjacent sentences as one text; empty if they are too long to be quoted."""
        start, following = self._sentences[place].start_char, self._sentences[place + 1 : place + 2]
        ends = [sentence.start_char + len(sentence.text) for sentence in following]
        joined = self._text[start : ends[0]] if ends else ""
        return joined if len(joined) <= MAX_QUOTE_CHARACTERS else ""

    def _nearest_first(self, item: Item, text: str) -> list[WrittenValue]:
        """Return values by distance from the cue or the item's words, those after it first."""
        cue = item.cue and item.cue.search(text)
        matches = (m for m in words.WORD.finditer(text) if words.stem(m[0].lower()) in item.terms)
        anchor = (cue.end() if cue else max((match.end() for match in matches), default=0)) - 1
        by_kind = (list(values(kind, text, self._ordinary)) for kind in item.kinds)
        written = next(filter(None, (_of_item(item, listed, text) for listed in by_kind)), [])
        if not written and ValueKind.MONEY in item.kinds:
            plain = values(ValueKind.NUMBER, text, self._ordinary)
            written = [value for value in plain if _is_stated_amount(item, value, text)]
        return sorted(
            written, key=lambda value: (value.start_char < anchor, abs(value.start_char - anchor))
        )


def _of_item(item: Item, written: Sequence[WrittenValue], text: str) -> list[WrittenValue]:
    """Leave out the beginnings of periods for an item that is an end, and ends for a beginning."""
    is_end, is_start = (not one.isdisjoint(item.terms) for one in (_ENDS, _STARTS))
    if is_end == is_start:
        return list(written)
    other = _AT_START if is_end else _AT_END
    gaps = [text[one.end_char : following.start_char] for one, following in pairwise(written)]
    return [
        value
        for value, gap in zip(written, [*gaps, ""], strict=False)
        if not (is_end and _TO.fullmatch(gap)) and not other.search(text, 0, value.start_char)
    ]


def _is_stated_amount(item: Item, value: WrittenValue, text: str) -> bool:
    """Return whether a number is a sum without a currency: “the annual fee is 1,250.00”."""
    before = _STATED.search(text, 0, value.start_char)
    is_stated = before is not None and words.stem(before[1].lower()) in item.terms
    return is_stated and _AMOUNT.fullmatch(value.text) is not None


def _bare(item: Item, value: str) -> str:
    """Return a value without the mark of an item in a list, and without the name of its item."""
    bare = value[mark.end() :] if (mark := _ITEM_MARK.match(value)) else value
    label = _LABEL.match(bare)
    return label[2] if label and item.is_named(words.terms(label[1])) else bare


def _from_whole_row(text: str, header: str) -> str:
    """Return a text from its first line with the columns of a header; a row may be cut before."""
    first, _, rest = text.partition("\n")
    names = cells(header.partition("\n")[0])
    is_whole = len(cells(first)) == len(names) and first.count('"') % 2 == 0
    return text if not names or is_whole else rest


def _places_above(listed: Sequence[Sentence]) -> Iterator[int]:
    """Yield for each sentence the place of the one above it, or above the list that it is in."""
    above, was_item = -1, False
    for place, sentence in enumerate(listed):
        is_item = _ITEM_MARK.match(sentence.text) is not None
        above = above if is_item and was_item else place - 1
        was_item = is_item
        yield above


_ENDS = frozenset(words.terms("end ends ending expiration expiry expires termination until"))
_STARTS = frozenset(words.terms("effective start starts beginning begins commencement"))
_TO = re.compile(r",?\s*(?:to|through|until|till|and\s+end\w+(?:\s+on)?|[-–])\s*", re.IGNORECASE)
_BETWEEN = r"(?:\s+(?:as|of|on|the|date|day|and|is)\b)*\W*\Z"
_AT_START = re.compile(
    rf"\b(?:commenc\w+|begin\w*|start\w*|effective|from|dated|since){_BETWEEN}", re.IGNORECASE
)
_AT_END = re.compile(rf"\b(?:until|through|expir\w+|end\w*|terminat\w+){_BETWEEN}", re.IGNORECASE)
_STATED = re.compile(r"(\w+)\s+(?:is|are|was|were|of)\s+\Z")
_AMOUNT = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+\.\d\d")

# The phrase of a sentence that answers a question: a run of words which the question lacks
_TOKEN = re.compile(r"\w+(?:[-'’.,/–]\w+)*|[$€£%]|[^\w\s]")
# Tokens: a word of the question, c other content, l a word that links, s function word, p mark.
_PHRASE = re.compile(r"c(?:l?c)*+")
_LINKS = frozenset(("of", "and", "or"))
_NUMERIC = re.compile(
    r"\b(?:how (?:many|much|long|old|far|often|large|big|tall)|years?|when|percent\w*|number|date"
    r"|amount|cost|population|century|decade)\b",
    re.IGNORECASE,
)
_NEAR, _MARK = 2, 2
_OF_KIND = 3.0
_CAPITALIZED = 1.5
_SINGLE_WORD = 0.5


def _phrase(question: str, sentence: str) -> str:
    """Return the likeliest phrase, near the question's words; not in English the whole sentence."""
    if not words.is_english(words.words(f"{question} {sentence}")):
        return sentence
    terms = frozenset(words.terms(question))
    tokens = list(_TOKEN.finditer(sentence))
    kinds = "".join(_kind_of_word(token[0], terms) for token in tokens)

    def score(phrase: re.Match[str]) -> float:
        start, end = phrase.span()
        text = sentence[tokens[start].start() : tokens[end - 1].end()]
        is_number = any(map(str.isdigit, text))
        weight = _OF_KIND ** (is_number or -1) if _NUMERIC.search(question) else 1.0
        weight *= _CAPITALIZED if start and text != text.lower() else 1.0
        return weight * (_SINGLE_WORD if end - start == 1 else 1.0) * _nearness(kinds, start, end)

    best = max(_PHRASE.finditer(kinds), key=score, default=None)
    if best is None:
        return sentence
    return sentence[tokens[best.start()].start() : tokens[best.end() - 1].end()]


def _kind_of_word(written: str, terms: AbstractSet[str]) -> str:
    if not (written[0].isalnum() or written in "$€£%"):
        return "p"
    if written.lower() in _LINKS:
        return "l"
    if written.lower() in words.STOPWORDS:
        return "s"
    return "c" if terms.isdisjoint(words.terms(written)) else "a"


def _nearness(kinds: str, start: int, end: int) -> float:
    """Return the sum of the inverse distances to the words of the question."""
    nearness = 0.0
    for place, kind in enumerate(kinds):
        if kind == "a":
            between = kinds[place:start] or kinds[end - 1 : place]
            nearness += 1 / (_NEAR + len(between) + _MARK * between.count("p"))
    return nearness


# A user's own schema
_FORMAT_KINDS = {
    "date": ValueKind.DATE,
    "email": ValueKind.EMAIL,
    "phone": ValueKind.PHONE,
    "uri": ValueKind.URL,
}
_KINDS = {
    ColumnKind.DATE: (ValueKind.DATE,),
    ColumnKind.MONEY: (ValueKind.MONEY,),
    ColumnKind.NUMBER: (ValueKind.NUMBER, ValueKind.PERCENT),
}
_NUMBER_KINDS = (ValueKind.MONEY, ValueKind.PERCENT, ValueKind.NUMBER)
_TRUTH = re.compile(
    rf"(?:^|[:=|,;\t])\s*({'|'.join(typed_values.TRUTHS)})\s*(?=[|,;\t.]|$)", re.IGNORECASE
)
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|without|none)\b|n['’]t\b", re.IGNORECASE)
_TYPES = ("object", "array", "boolean", "integer", "number", "string")
_PROBE = "chordwise_probe"


@dataclass(slots=True, kw_only=True)
class _Walk:
    """The data filled into a schema; required values that were not found are left out."""

    root: JsonObject
    searchable: SearchableText
    evidence: list[JsonObject] = field(default_factory=list)

    def members(self, node: SchemaNode, path: str, depth: int) -> JsonObject:
        filled: JsonObject = {}
        for name in node.properties:
            member = node.member(name)
            value = self._value(name, member, json_values.pointer(path, name), depth)
            if value is None and self._is_valid(None, member):
                filled[name] = None
            elif value is not None and (name in node.required or value not in ("", [], {})):
                filled[name] = value
        return filled

    def _value(self, name: str, node: SchemaNode, path: str, depth: int) -> JsonValue:
        if len(node.choices) == 1:
            return node.choices[0]
        kind = _type_of(node)
        if kind == "object":
            return self.members(node, path, depth + 1) if depth < MAX_DEPTH else {}
        is_list = kind == "array"
        item = item_of(name, node.description)
        item = replace(item, is_list=is_list or item.is_list)
        limit = node.max_items if is_list else 1
        matches = self._valid_matches(item, node.items if is_list else node, limit)
        for index, (_, match) in enumerate(matches):
            at = json_values.pointer(path, index) if is_list else path
            self.evidence.append({"path": at, "quote": match.quote, "confidence": match.confidence})
        filled = [value for value, _ in matches]
        if is_list or filled:
            return filled if is_list else filled[0]
        return "" if kind == "string" and self._is_valid("", node) else None

    def _valid_matches(
        self, item: Item, node: SchemaNode, limit: int | None
    ) -> list[tuple[JsonValue, Match]]:
        """Return the first valid reading of each match, each value once; none for nested types."""
        if _type_of(node) in ("object", "array"):
            return []
        by_value: dict[str, tuple[JsonValue, Match]] = {}
        for match in self.searchable.find(_narrowed(item, node), _READINGS):
            value = next((one for one in _readings(match, node) if self._is_valid(one, node)), None)
            if value is not None:
                by_value.setdefault(json_values.encoded(value), (value, match))
        return list(by_value.values())[:limit]

    def _is_valid(self, value: JsonValue, node: SchemaNode) -> bool:
        properties = json_values.as_object(self.root.get("properties") or {})
        probe: JsonObject = {**properties, _PROBE: {"allOf": list(node.schemas)}}
        whole: JsonObject = {**self.root, "required": [], "properties": probe}
        try:
            return not validation.problems({_PROBE: value}, whole)
        except ValueError:  # a reference points to a part of the schema that was left out
            return False


def _type_of(node: SchemaNode) -> str:
    types = {"object"} if node.properties else node.types
    return next((name for name in _TYPES if name in types), "string")


def _narrowed(item: Item, node: SchemaNode) -> Item:
    if by_format := _FORMAT_KINDS.get(node.format):
        return replace(item, kinds=(by_format,))
    kind = _type_of(node)
    if kind in ("number", "integer"):
        numeric = [value_kind for value_kind in item.kinds if value_kind in _NUMBER_KINDS]
        return replace(item, kinds=tuple(dict.fromkeys([*numeric, *_NUMBER_KINDS])))
    return replace(item, kinds=()) if kind == "boolean" or node.choices else item


def _readings(match: Match, node: SchemaNode) -> Iterator[JsonValue]:
    """Yield the possible values of a match under a schema, the likeliest first, unvalidated."""
    kind = _type_of(node)
    if node.choices:
        yield from (choice for choice in node.choices if _mentions(match.quote, choice))
    elif kind == "boolean":
        yield _yes_or_no(match) == "yes"
    elif kind in ("number", "integer"):
        number = typed_values.typed(match.value).number
        if number is not None:
            is_whole = number == int(number) and (kind == "integer" or "." not in match.value)
            yield int(number) if is_whole else float(number)
    else:
        if node.format == "date":
            for date in values(ValueKind.DATE, f"{match.value}\n{match.quote}"):
                if day := typed_values.typed(date.text).date:
                    yield day.isoformat()
        yield match.value


def _mentions(quote: str, choice: JsonValue) -> bool:
    terms = words.terms(json_values.text(choice))
    return bool(terms) and set(terms).issubset(words.terms(quote))
