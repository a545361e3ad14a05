"""How far a value can be trusted: the states of a value, and the reasons to check it.

The function `trust` of the database computes the state from what is stored with a value; the
reasons are collected here, when an answer is stored.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from chordwise.domain import grounding, json_values, outline, value_in_quote
from chordwise.domain.analyses import extraction
from chordwise.domain.analysis import analysis_for, claimed_number
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType
from chordwise.domain.dates import dates_in
from chordwise.domain.facts import DATA, Fact
from chordwise.domain.items import cue_of, kind_in
from chordwise.domain.items import of as items_of
from chordwise.domain.json_values import USER_DATA, JsonObject, JsonValue, text_of
from chordwise.domain.typed_values import TypedValue, is_of_kind, typed
from chordwise.domain.words import JOINTS, STOPWORDS, stem, terms

_WORD = re.compile(r"\w+")
WHOLE = ""
"""The path of an answer as a whole."""
MIN_AGREEMENT = 0.8
"""A value that a smaller share of the samples of a vote supports should be checked."""


class Trust(StrEnum):
    """The state of a value; a cell with several values has the first state of any of them.

    CHECK: there is a reason to check it. UNREAD: no value was found, and a part of the document
    was not read, or the built-in model cannot find all such values. SILENT: all was read, and the
    document does not mention it. SUPPORTED: nothing speaks against the value. CERTIFIED: accepted
    by a certificate. CORRECTED and CONFIRMED: a person changed, removed or approved it.
    """

    CHECK = "check"
    UNREAD = "unread"
    SILENT = "silent"
    SUPPORTED = "supported"
    CERTIFIED = "certified"
    CORRECTED = "corrected"
    CONFIRMED = "confirmed"


class Reason(StrEnum):
    """Why a person should check a value; the values in `facts.doubts`."""

    QUOTE_NOT_FOUND = "quote not found"
    VALUE_NOT_IN_QUOTE = "value not in quote"
    NO_QUOTE = "no quote"
    CHECK_FAILED = "check failed"
    CHUNKS_DISAGREE = "chunks disagree"
    VOTES_DISAGREE = "votes disagree"
    NAMED_ELSEWHERE = "another passage names it"
    ONE_OF_ROWS = "one of several rows"
    OTHER_TYPE = "not of the declared type"
    LOW_CONFIDENCE = "low confidence"
    NOT_SUPPORTED = "not supported"


class KeptBecause(StrEnum):
    """Why a value was kept, and another value of the document was not."""

    SURER = "higher confidence"
    FIRST = "first in the document"
    MODEL = "decided by the model"


_SHOWN_BY_EVIDENCE = {Reason.QUOTE_NOT_FOUND, Reason.VALUE_NOT_IN_QUOTE}
_MAX_CONTRADICTIONS = 20
_FIRST_PAGE = 2_500
_VALUES = ("/fields/", f"{DATA.path}/")
Doubts: TypeAlias = JsonObject
"""Lists of reasons to check the values at or below JSON Pointers, and, at `WHOLE`, of sentences
about the answer as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A sentence about an answer, and the values to check for that reason.

    Without paths, it is the answer as a whole that should be checked.
    """

    sentence: str
    reason: str = ""
    paths: Sequence[str] = ()


def by_path(all_doubts: Iterable[Doubt], output: JsonObject, kind: AnalysisType) -> Doubts:
    """Return the reasons by the paths of values, or of the label, that people decide on.

    Those that the evidence of a value shows by itself are left out, as there can be many.
    """
    doubts: dict[str, list[JsonValue]] = {}
    for doubt in all_doubts:
        decided = {_decided_at(path, output, kind) for path in doubt.paths} or {WHOLE}
        for path in sorted(decided):
            is_shown = path.startswith(_VALUES) and doubt.reason in _SHOWN_BY_EVIDENCE
            if not is_shown:
                doubts.setdefault(path, []).append(doubt.reason if path else doubt.sentence)
    return dict(doubts)


def _decided_at(path: str, output: JsonObject, kind: AnalysisType) -> str:
    if kind != AnalysisType.EXTRACTION:
        return analysis_for(kind).label_path or WHOLE
    steps = json_values.steps(path)
    if steps[:1] == ["fields"]:
        return json_values.pointer("/fields", int(steps[1]))
    is_value = steps[:1] == [USER_DATA] and path != DATA.path
    return path if is_value and json_values.at(output, path) is not None else WHOLE


def with_doubts(stated: Iterable[Fact], doubts: Doubts) -> Iterator[Fact]:
    """Yield facts with the reasons to check them."""
    for fact in stated:
        above = json_values.upward(fact.path) if doubts else ()
        reasons = [reason for path in above for reason in json_values.strings(doubts.get(path))]
        if fact.path.startswith(_VALUES) and fact.grounded is False:
            reasons.append(Reason.QUOTE_NOT_FOUND)
        elif fact.path.startswith(_VALUES) and fact.value_in_quote is False:
            reasons.append(Reason.VALUE_NOT_IN_QUOTE)
        yield replace(fact, doubts=list(dict.fromkeys(reasons))) if reasons else fact


def is_to_check(value: object, doubts: object) -> bool:
    """Return whether the list of doubts of a value is a reason to check it.

    A value that the built-in model has not found is `unread`.
    """
    return bool(doubts) and (value is not None or doubts != [Reason.NOT_SUPPORTED])


def quotes_by_path(output: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Yield every object with a quote, with the path of the value that it supports.

    Quotes that support an answer as a whole have the path `WHOLE`.
    """
    if USER_DATA in output:
        for entry in json_values.objects(output.get("evidence")):
            yield f"{DATA.path}{json_values.text(entry.get('path'))}", entry
    elif "fields" in output:
        for number, field in enumerate(json_values.objects(output["fields"])):
            if field.get("quote"):
                yield json_values.pointer("/fields", number), field
    else:
        yield from ((WHOLE, finding) for finding in grounding.quotes(output))


def contradictions(
    parts: Sequence[JsonObject], output: JsonObject, task: AnalysisTask, *, is_by_rule: bool
) -> list[JsonObject]:
    """Return the values of chunks that differ from the single values that an output keeps.

    A row has the `path` of the kept value, the other `value` as text, its `quote` with its span,
    and `kept_because`. The same value in another form is left out, and so are further values than
    20 of a path. `is_by_rule` says that no model has joined the answers of the chunks.
    """
    if task.analysis_type != AnalysisType.EXTRACTION or len(parts) < 2:  # noqa: PLR2004 - two chunks
        return []
    is_of_schema = USER_DATA in output
    rivals = _members(parts, output) if is_of_schema else _fields(parts, output, task.options)
    rows: list[JsonObject] = []
    for path, kept, others in rivals:
        for other in _different(kept, others):
            is_surer = not is_of_schema and claimed_number(kept) > claimed_number(other)
            by_model = KeptBecause.MODEL if is_of_schema and not is_by_rule else KeptBecause.FIRST
            evidence = {name: other.get(name) for name in ("quote", "start_char", "end_char")}
            reason = KeptBecause.SURER if is_surer else by_model
            value = text_of(other["value"])
            rows.append({"path": path, "value": value, **evidence, "kept_because": reason})
    return rows


def disagreements(rows: Iterable[JsonObject], output: JsonObject) -> Iterator[str]:
    """Yield the paths of the values of an output to check for its `contradictions`.

    The built-in model keeps one value of an item. It is not one of them if the model was surer of
    it, or if it is on the first page, where a document has its own dates. Of 18 dates of contracts
    that were kept as the first in the document, the 16 on the first page were right, and the other
    2 wrong.
    """
    reasons: dict[str, set[JsonValue]] = defaultdict(set)
    for row in rows:
        reasons[json_values.text(row["path"])].add(row["kept_because"])
    if USER_DATA in output:
        yield from reasons
        return
    for fields in _mentions(output).values():
        contradicted = fields.keys() & reasons.keys()
        if len(fields) == 1:
            contradicted = {
                path
                for path in contradicted
                if KeptBecause.FIRST in reasons[path] and not _is_on_first_page(fields[path])
            }
        if contradicted:
            yield from fields


def _is_on_first_page(field: JsonObject) -> bool:
    span = json_values.span_of(field)
    return span is not None and span[0] < _FIRST_PAGE


def _members(
    parts: Sequence[JsonObject], output: JsonObject
) -> Iterator[tuple[str, JsonObject, Iterable[JsonObject]]]:
    """Yield the single values of a user's data by path, with those of the chunks."""
    evidence = [dict(quotes_by_path(part)) for part in parts]
    for path, value in _single_values(output[USER_DATA], DATA.path):
        others = []
        for part, entries in zip(parts, evidence, strict=True):
            if json_values.is_filled(other := json_values.at(part, path)):
                above = (entries[outer] for outer in json_values.upward(path) if outer in entries)
                others.append({**next(above, {}), "value": other})
        yield path, {"value": value}, others


def _fields(
    parts: Sequence[JsonObject], output: JsonObject, options: AnalysisOptions
) -> Iterator[tuple[str, JsonObject, Iterable[JsonObject]]]:
    """Yield the surest value of each item with one value by path, with those of the chunks."""
    of_parts = [_mentions(part) for part in parts]
    for item, fields in _mentions(output).items():
        if not kind_in(options, item).is_list:
            path = max(fields, key=lambda path: claimed_number(fields[path]))
            others = [field for part in of_parts for field in part.get(item, {}).values()]
            yield path, fields[path], others


def _different(kept: JsonObject, others: Iterable[JsonObject]) -> list[JsonObject]:
    """Return the first of each of the values that differ from a value and from each other."""
    known = [kept]
    for other in others:
        if len(known) > _MAX_CONTRADICTIONS:
            break
        if not any(_agree(one["value"], other["value"]) for one in known):
            known.append(other)
    return known[1:]


def of_other_type(output: JsonObject, options: AnalysisOptions) -> list[str]:
    """Return the paths of values that the columns of the declared types of items cannot hold."""
    declared = {name: item.kind for name, item in items_of(options).items() if item.type}
    return [
        path
        for item, values in _mentions(output).items()
        if USER_DATA not in output and item in declared
        for path, one in values.items()
        if not is_of_kind(one["value"], declared[item])
    ]


def _single_values(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    """Yield the values outside of lists."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _single_values(member, json_values.pointer(path, name))
    elif value is not None and not isinstance(value, list):
        yield path, value


def _mentions(output: JsonObject) -> Mapping[str, dict[str, JsonObject]]:
    """Return the fields with a value of each item by path."""
    mentions: dict[str, dict[str, JsonObject]] = defaultdict(dict)
    for number, field in enumerate(json_values.objects(output.get("fields"))):
        if field.get("status") == extraction.FOUND:
            path = json_values.pointer("/fields", number)
            mentions[json_values.text(field.get("item"))][path] = field
    return mentions


def _agree(one: JsonValue, other: JsonValue) -> bool:
    """Return whether two values are the same, or one says the same in more words."""
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        return True
    difference = typed(one).difference(typed(other))
    if difference is not None:
        return not difference
    words, further = (
        {
            word.casefold() if word[0].isupper() else stem(word)
            for word in _WORD.findall(json_values.encoded(value))
        }
        for value in (one, other)
    )
    return words <= further or further <= words


# A single value whose quote does not mention what was asked for, while another passage does.

_BEFORE, _AFTER = 120, 60
_AROUND = 60
# The first lines of a document have its date and title without naming them.
_HEAD = 600
_PREFIX = 5
_MAX_PASSAGES = 200
_MAX_SEARCHED = 5_000_000
# Words that name the kind of a value, which any value of the kind may be near.
_OF_KINDS = {
    *("date", "day", "name", "amount", "number", "document", "value", "period", "term", "total"),
    *("type", "kind", "code"),
}
_WORD_OF_ITEM = re.compile(r"[^\W\d_]{3,}")


def named_elsewhere(text: str, output: JsonObject, task: AnalysisTask) -> list[str]:
    """Return the paths of single values whose quotes speak of something else.

    Nothing near the quote names the item, and another passage with a value of its kind does. Only
    values that occur in their quotes are compared, and none from the first lines of the document.
    benchmarks/quality.md has the shares of right and of wrong values of which this is true.
    """
    lowered = text[:_MAX_SEARCHED].lower()
    paths = []
    for path, entry in quotes_by_path(output):
        item, span = _single_item(path, entry, task.options), json_values.span_of(entry)
        if item is None or span is None or value_in_quote.mark_at(entry, "") is not True:
            continue
        if not _HEAD <= span[0] <= span[1] <= _MAX_SEARCHED or item.is_near(lowered, *span):
            continue
        parsed = typed(entry["value"] if "value" in entry else json_values.at(output, path))
        if any(_has_other(passage, parsed) for passage in item.passages(lowered, span)):
            paths.append(path)
    return paths


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """What names an item in a text: the beginnings of its words, or a phrase."""

    prefixes: Sequence[str]
    cue: re.Pattern[str] | None

    def is_near(self, lowered: str, start: int, end: int) -> bool:
        around = lowered[max(0, start - _BEFORE) : end + _AFTER]
        has_cue = self.cue is not None and self.cue.search(around) is not None
        return has_cue or any(prefix in around for prefix in self.prefixes)

    def passages(self, lowered: str, span: tuple[int, int]) -> Iterator[str]:
        """Yield the passages outside of a span that name the item, each within a paragraph."""
        rarest, place = max(self.prefixes, key=len), -1
        for _ in range(_MAX_PASSAGES):
            place = lowered.find(rarest, place + 1)
            if place < 0:
                return
            before = lowered[max(0, place - _AROUND) : place].rpartition("\n\n")[2]
            around = before + lowered[place : place + _AROUND].partition("\n\n")[0]
            is_elsewhere = not span[0] <= place < span[1]
            is_word = is_elsewhere and not lowered[place - 1 : place].isalpha()
            if is_word and all(prefix in around for prefix in self.prefixes):
                yield around


def _single_name(path: str, entry: JsonObject, options: AnalysisOptions) -> str:
    """Return the name of the item that an entry is about; empty if it is a list."""
    steps = json_values.steps(path)
    is_in_row = steps[:1] == [USER_DATA] and any(map(str.isdecimal, steps))
    item = json_values.text(entry.get("item")) or " ".join(steps[1:]).replace("_", " ")
    return "" if is_in_row or kind_in(options, item).is_list else item


def _single_item(path: str, entry: JsonObject, options: AnalysisOptions) -> _Item | None:
    """Return the item that an entry is about, unless it is a list or has no word of its own."""
    item = _single_name(path, entry, options)
    prefixes = [
        word[:_PREFIX]
        for word in _WORD_OF_ITEM.findall(item.lower())
        if word not in _OF_KINDS and word not in STOPWORDS
    ]
    return _Item(prefixes=prefixes, cue=cue_of(item)) if prefixes else None


def _has_other(passage: str, value: TypedValue) -> bool:
    """Return whether a passage has another value of the kind of this one, if it has a kind."""
    if value.date is not None:
        return bool(dates_in(passage) - {value.date})
    return value.number is None or any(map(str.isdecimal, passage))


_MOST_ROWS = 1_000


def chosen_from_rows(text: str, output: JsonObject, task: AnalysisTask) -> list[str]:
    """Return the paths of single values from records that give different values for them.

    A table has a column with the name of the item. A value is not meant if its row is named like
    the item, as the row of a total. In JSON, objects of a list have members of that name, and no
    object outside of lists has one.
    """
    singles = [
        (path, json_values.text(entry.get("quote")), names, span)
        for path, entry in quotes_by_path(output)
        if (names := frozenset(terms(_single_name(path, entry, task.options))))
        and (span := json_values.span_of(entry))
    ]
    if not singles:
        return []
    searched = text[:_MAX_SEARCHED]
    listed = list(outline.record_tables(searched, _MOST_ROWS))
    by_name = _values_of_lists(searched)
    return [
        path
        for path, quote, names, span in singles
        if any(_is_chosen_from_rows(table, names, span) for table in listed)
        or (len(values := by_name.get(names, ())) > 1 and any(value in quote for value in values))
    ]


def _parsed(text: str) -> JsonValue:
    """Return the value of a text of JSON, or the list of those of its lines."""
    with suppress(ValueError):
        value: JsonValue = json.loads(text)
        return value
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _values_of_lists(text: str) -> Mapping[frozenset[str], AbstractSet[str]]:
    """Return the values of members that only objects in lists of JSON have, by their words."""
    try:
        members = list(json_values.scalars(_parsed(text)))
    except (ValueError, RecursionError):  # no JSON, or nested too deeply
        return {}
    in_lists: dict[frozenset[str], set[str]] = defaultdict(set)
    outside: set[frozenset[str]] = set()
    words_of: dict[str, frozenset[str]] = {}
    for path, value in members:
        *above, name = json_values.steps(path) or [""]
        if name not in words_of:
            words_of[name] = frozenset(terms(JOINTS.sub(" ", name)))
        if any(map(str.isdecimal, above)):
            in_lists[words_of[name]].add(text_of(value) or "")
        else:
            outside.add(words_of[name])
    return {name: values - {""} for name, values in in_lists.items() if name not in outside}


def _is_chosen_from_rows(
    table: outline.RecordTable, item_terms: frozenset[str], span: tuple[int, int]
) -> bool:
    is_meant = any(
        start < span[1] and span[0] < end and item_terms.isdisjoint(terms(row[0]))
        for row, (start, end) in table.rows
    )
    columns = [at for at, name in enumerate(table.names) if item_terms.issubset(terms(name))]
    values = [{row[at].casefold() for row, _ in table.rows} - {""} for at in columns]
    return is_meant and any(len(different) > 1 for different in values)
