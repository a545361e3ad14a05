"""How far a value can be trusted: the states of a value, and the reasons to check it.

The function `trust` of the database computes the state from what is stored with a value; the
reasons are collected here, when an answer is stored.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from chordwise.domain import grounding, json_values, value_in_quote
from chordwise.domain.analyses import extraction
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType
from chordwise.domain.facts import DATA, Fact
from chordwise.domain.items import cue_of, kind_in
from chordwise.domain.items import of as items_of
from chordwise.domain.json_values import USER_DATA, JsonObject, JsonValue
from chordwise.domain.typed_values import TypedValue, dates_in, typed
from chordwise.domain.words import STOPWORDS

_WORD = re.compile(r"\w+")
WHOLE = ""
"""The path of an answer as a whole."""
MIN_AGREEMENT = 0.8
"""A value that a smaller share of the samples of a vote supports should be checked."""


class Trust(StrEnum):
    """The state of a value; a cell with several values has the first state of any of them.

    CHECK: there is a reason to check it. UNREAD: no value was found, and a part of the document
    was not read. SILENT: all was read, and the document does not mention it. SUPPORTED: nothing
    speaks against the value. CERTIFIED: accepted by a certificate. CORRECTED and CONFIRMED: a
    person changed, removed or approved it.
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
    OTHER_TYPE = "not of the declared type"
    LOW_CONFIDENCE = "low confidence"


_SHOWN_BY_EVIDENCE = {Reason.QUOTE_NOT_FOUND, Reason.VALUE_NOT_IN_QUOTE}
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


def disagreements(
    parts: Sequence[JsonObject], output: JsonObject, task: AnalysisTask
) -> Iterator[str]:
    """Yield the paths of single values for which the chunks of a document give different ones."""
    if task.analysis_type != AnalysisType.EXTRACTION or len(parts) < 2:  # noqa: PLR2004 - two chunks
        return
    if USER_DATA in output:
        for path, value in _single_values(output[USER_DATA], DATA.path):
            if _differ(value, (json_values.at(part, path) for part in parts)):
                yield path
        return
    for item, values in _mentions(output).items():
        first, *others = values.values()
        if not kind_in(task.options, item).is_list and _differ(first, others):
            yield from values


def of_other_type(output: JsonObject, options: AnalysisOptions) -> list[str]:
    """Return the paths of values that are not a number or date, as their items declare."""
    declared = {name: item.kind for name, item in items_of(options).items() if item.type}
    paths = []
    for item, values in _mentions(output).items() if USER_DATA not in output else ():
        name = {"date": "date", "money": "number", "number": "number"}.get(declared.get(item, ""))
        if name is not None:
            paths += [path for path, one in values.items() if getattr(typed(one), name) is None]
    return paths


def _single_values(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    """Yield the values outside of lists."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _single_values(member, json_values.pointer(path, name))
    elif value is not None and not isinstance(value, list):
        yield path, value


def _mentions(output: JsonObject) -> Mapping[str, dict[str, JsonValue]]:
    """Return the values of each item by path."""
    mentions: dict[str, dict[str, JsonValue]] = defaultdict(dict)
    for number, field in enumerate(json_values.objects(output.get("fields"))):
        if field.get("status") == extraction.FOUND:
            path = json_values.pointer("/fields", number)
            mentions[json_values.text(field.get("item"))][path] = field.get("value")
    return mentions


def _differ(value: JsonValue, others: Iterable[JsonValue]) -> bool:
    return not all(_agree(value, other) for other in others if json_values.is_filled(other))


def _agree(one: JsonValue, other: JsonValue) -> bool:
    """Return whether two values are the same, or one says the same in more words."""
    if isinstance(one, dict | list) or isinstance(other, dict | list):
        return True
    first, second = typed(one), typed(other)
    if first.date and second.date:
        return first.date == second.date
    if first.number is not None and second.number is not None:
        return first.number == second.number
    words, further = (
        set(_WORD.findall(json_values.encoded(value).casefold())) for value in (one, other)
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
    docs/quality.md has the shares of right and of wrong values of which this is true.
    """
    if task.analysis_type != AnalysisType.EXTRACTION:
        return []
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
        return self._has_cue(around) or any(prefix in around for prefix in self.prefixes)

    def _has_cue(self, passage: str) -> bool:
        return self.cue is not None and self.cue.search(passage) is not None

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


def _single_item(path: str, entry: JsonObject, options: AnalysisOptions) -> _Item | None:
    """Return the item that an entry is about, unless it is a list or has no word of its own."""
    steps = json_values.steps(path)
    is_in_row = steps[0] == USER_DATA and any(map(str.isdecimal, steps))
    item = json_values.text(entry.get("item")) or " ".join(steps[1:]).replace("_", " ")
    prefixes = [
        word[:_PREFIX]
        for word in _WORD_OF_ITEM.findall(item.lower())
        if word not in _OF_KINDS and word not in STOPWORDS
    ]
    is_single = bool(prefixes) and not is_in_row and not kind_in(options, item).is_list
    return _Item(prefixes=prefixes, cue=cue_of(item)) if is_single else None


def _has_other(passage: str, value: TypedValue) -> bool:
    """Return whether a passage has another value of the kind of this one, if it has a kind."""
    if value.date is not None:
        return bool(dates_in(passage) - {value.date})
    return value.number is None or any(map(str.isdecimal, passage))
