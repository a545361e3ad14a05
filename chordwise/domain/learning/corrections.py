"""Apply feedback to an answer: its facts get verdicts, and its output gets corrections."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from chordwise.domain import json_values, value_in_quote
from chordwise.domain.analyses.extraction import FOUND, NOT_MENTIONED
from chordwise.domain.analysis import NO_LABEL, AnalysisDefinition
from chordwise.domain.facts import DATA, Fact, ValuePosition, facts, leaves, scalar_fact, typed_fact
from chordwise.domain.grounding import EVIDENCE_FIELDS, Grounding
from chordwise.domain.json_values import USER_DATA, JsonObject, JsonValue, text_of
from chordwise.domain.learning import fields
from chordwise.domain.learning.truths import Remark, Truth, Verdict, label_in, latest_about
from chordwise.domain.places import Places
from chordwise.domain.schema_nodes import SchemaNode

_FIELDS = "/fields/"
_EVIDENCE = ("quote", *(name for name in EVIDENCE_FIELDS if name != "agreement"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """The facts of an answer, and its corrected output; `None` if it is unchanged."""

    facts: Sequence[Fact]
    output: JsonObject | None = None


def correct(
    output: JsonObject,
    analysis: AnalysisDefinition,
    truth: Truth,
    places: Places | None = None,
    schema: JsonObject | None = None,
) -> Corrected:
    """Apply the truth to an answer: give verdicts, replace wrong values, and add missing ones.

    The fact keeps the original value and its quote, unless the right value was selected in the
    text: `places` are those of the document. By the `schema` of the question, the only right value
    of a list that the answer lacks is one of its rows.
    """
    by_path = {fact.path: fact for fact in facts(output, analysis)}
    work = _Work(copy.deepcopy(output), by_path, SchemaNode.root_of(schema or {}))
    if analysis.label_path:
        work.judge_label(analysis, truth)
    for name, right in truth.fields.items():
        work.correct_field(name, json_values.listed(right))
    for name, wrong in truth.wrong_fields.items():
        work.reject_field(name, wrong)
    for remark in latest_about(output, truth.remarks):
        if remark.path:
            work.judge_path(remark.path, remark.verdict, remark.corrected)
    for remark in truth.quoted:
        work.quote(remark, places or Places())
    listed = work.output.get("fields")
    if work.dropped and isinstance(listed, list):
        kept = [e for index, e in enumerate(listed) if f"{_FIELDS}{index}" not in work.dropped]
        work.output["fields"] = kept
    is_changed = work.output != output
    return Corrected(facts=list(work.facts.values()), output=work.output if is_changed else None)


@dataclass
class _Work:
    """An answer that is being corrected: its current output, and its facts by path."""

    output: JsonObject
    facts: dict[str, Fact]
    schema: SchemaNode
    dropped: set[str] = field(default_factory=set)

    def judge_label(self, analysis: AnalysisDefinition, truth: Truth) -> None:
        path, label = analysis.label_path, label_in(analysis.type, self.output)
        if truth.label is not None:
            is_right = fields.is_same(label, truth.label)
            verdict = Verdict.APPROVED if is_right else Verdict.CORRECTED
            self.judge_path(path, verdict, None if truth.label == NO_LABEL else truth.label)
        elif any(fields.is_same(label, wrong_label) for wrong_label in truth.wrong_labels):
            self.judge_path(path, Verdict.REJECTED, None)

    def judge_path(self, path: str, verdict: Verdict, corrected: JsonValue) -> None:
        if path not in self.facts:
            return
        self.facts[path] = _with_verdict(self.facts[path], verdict, corrected)
        is_scalar = not isinstance(json_values.at(self.output, path), dict | list)
        if verdict is Verdict.CORRECTED and is_scalar:
            _set_at(self.output, path, corrected)

    def correct_field(self, name: str, right: Sequence[JsonValue]) -> None:
        if name.startswith("/"):
            self._correct_data(f"{DATA.path}{name}", right)
        elif entries := fields.entries(self.output, name):
            count = len(json_values.objects(self.output.get("fields")))
            item_facts = [self.facts[entry.path] for entry in entries]
            self._pair(item_facts, right, lambda place: f"{_FIELDS}{count + place}")
            self._settle(name)

    def _correct_data(self, path: str, right: Sequence[JsonValue]) -> None:
        current = json_values.at(self.output, path)
        is_structure = _is_structure(current)
        node = self.schema.at(path.removeprefix(DATA.path))
        is_list = isinstance(current, list) or node.is_list or len(right) > 1
        if is_structure and fields.values(self.output, path.removeprefix(DATA.path)) == right:
            self._judge_below(path, Verdict.APPROVED)
        elif any(isinstance(value, dict | list) for value in right):
            self._replace(path, list(right) if is_list else right[0])
        elif is_structure:
            if not right and isinstance(current, list):
                self._replace(path, [])
        elif current is None and is_list and right:
            self._replace(path, list(right))
        elif isinstance(current, list):
            self._pair(self._below(path), right, lambda place: f"{path}/{len(current) + place}")
            _set_at(self.output, path, list(right))
        else:
            values = self._below(path) or [scalar_fact(self._place(path), None)]
            self._pair(values, right[:1], lambda _: path)
            first = right[0] if right else None
            if not fields.is_same(first, text_of(current)):
                _set_at(self.output, path, first)

    def reject_field(self, name: str, wrong: JsonValue) -> None:
        for path in fields.paths_with(self.output, name, wrong):
            if not self._below(path):
                self.facts[path] = scalar_fact(self._place(path), None)
            self._judge_below(path, Verdict.REJECTED)
            current = json_values.at(self.output, path)
            if path.startswith(DATA.path) and not _is_structure(current):
                _set_at(self.output, path, [] if isinstance(current, list) else None)
        if not name.startswith("/"):
            self._settle(name)

    def quote(self, remark: Remark, places: Places) -> None:
        """Set the quote of a remark's right value to the selected text."""
        said = remark.corrected[-1] if isinstance(remark.corrected, list) else remark.corrected
        for path, fact in self.facts.items():
            is_right = fact.verdict == Verdict.APPROVED
            final = fact.value if is_right else fact.corrected_value
            is_judged = fact.verdict is not None and _is_about(remark, fact)
            if not is_judged or not fields.is_same(said, final):
                continue
            where, (start, end) = places.locate(*remark.span), remark.span
            located = replace(fact, page=where.page, place=where.place, boxes=where.boxes)
            self.facts[path] = replace(
                located,
                quote=remark.quote,
                start_char=start,
                end_char=end,
                grounding=Grounding.EXACT,
                value_in_quote=value_in_quote.occurs_in(said, remark.quote, fact.item),
            )
            entry = json_values.at(self.output, path)
            if isinstance(entry, dict):
                entry.update({name: getattr(self.facts[path], name) for name in _EVIDENCE})
                entry.pop("agreement", None)
            return

    def _settle(self, name: str) -> None:
        """Apply the verdicts on the values of an item to the list of an extraction."""
        entries = json_values.objects(self.output.get("fields"))
        stated = [fact for fact in self.facts.values() if fact.item == name]
        stays = any(
            fact.corrected_value is not None or fact.verdict in (None, Verdict.APPROVED)
            for fact in stated
        )
        for place, fact in enumerate(fact for fact in stated if fact.verdict):
            index = int(fact.path.removeprefix(_FIELDS))
            if index < len(entries):
                entry = entries[index]
            else:
                entry = {"item": name, "quote": None, "confidence": 10}
                entries.append(entry)
            if fact.verdict == Verdict.APPROVED:
                continue
            if fact.corrected_value is not None:
                entry |= {"status": FOUND, "value": fact.corrected_value, "corrected": True}
            elif stays or place:
                self.dropped.add(fact.path)
            else:
                entry |= {"status": NOT_MENTIONED, "value": None, "corrected": True}
        self.output["fields"] = list(entries)

    def _pair(
        self, old_facts: Sequence[Fact], right: Sequence[JsonValue], path_of: Callable[[int], str]
    ) -> None:
        left = list(right)
        wrong: list[Fact] = []
        for fact in old_facts:
            match = next((value for value in left if fields.is_same(value, fact.value)), None)
            if match is not None:
                left.remove(match)
            if match is not None or (fact.value is None and not right):
                self.facts[fact.path] = replace(fact, verdict=Verdict.APPROVED)
            else:
                wrong.append(fact)
        for fact in wrong:
            # A value corrected to nothing is known to be absent.
            verdict = Verdict.CORRECTED if left or not right else Verdict.REJECTED
            self.facts[fact.path] = _with_verdict(fact, verdict, left.pop(0) if left else None)
        rows = [fact.row_index for fact in old_facts if fact.row_index is not None]
        for index, value in enumerate(left):
            first, row = old_facts[0], max(rows) + 1 + index if rows else None
            fact = Fact(path=path_of(index), item=first.item, parent=first.parent, row_index=row)
            self.facts[fact.path] = _with_verdict(fact, Verdict.CORRECTED, value)

    def _replace(self, path: str, right: JsonValue) -> None:
        there = {place.path: (place, value) for place, value in leaves(right, self._place(path))}
        for fact in self._below(path):
            if fact.path not in there:
                self.facts[fact.path] = _with_verdict(fact, Verdict.REJECTED, None)
                continue
            _, value = there.pop(fact.path)
            verdict = Verdict.APPROVED if fields.is_same(value, fact.value) else Verdict.CORRECTED
            self.facts[fact.path] = _with_verdict(fact, verdict, value)
        for place, value in there.values():
            fact = replace(scalar_fact(place, value), value=None)
            self.facts[fact.path] = _with_verdict(fact, Verdict.CORRECTED, value)
        _set_at(self.output, path, right)

    def _judge_below(self, path: str, verdict: Verdict) -> None:
        for fact in self._below(path):
            self.facts[fact.path] = _with_verdict(fact, verdict, None)

    def _below(self, path: str) -> list[Fact]:
        return [f for f in self.facts.values() if json_values.is_within(f.path, path)]

    def _place(self, path: str) -> ValuePosition:
        place, value = DATA, self.output[USER_DATA]
        for step in json_values.steps(path.removeprefix(DATA.path)):
            is_list, value = isinstance(value, list), json_values.member(value, step)
            place = place.element(int(step), value) if is_list else place.member(step)
        return place


def _with_verdict(fact: Fact, verdict: Verdict, corrected: JsonValue) -> Fact:
    if verdict is Verdict.APPROVED and fact.corrected_value is not None:
        fact = replace(typed_fact(fact, fact.value), corrected_value=None)
    if verdict is Verdict.APPROVED:
        return replace(fact, verdict=verdict)
    final = corrected if verdict is Verdict.CORRECTED else None
    typed = replace(typed_fact(fact, final), value=fact.value)
    return replace(typed, corrected_value=text_of(final), verdict=verdict)


def _is_about(remark: Remark, fact: Fact) -> bool:
    if not remark.name:
        return fact.path == remark.path
    if remark.name.startswith("/"):
        return json_values.is_within(fact.path, f"{DATA.path}{remark.name}")
    return fact.item == remark.name


def _is_structure(value: JsonValue) -> bool:
    return any(isinstance(element, dict | list) for element in json_values.listed(value))


def _set_at(value: JsonValue, path: str, new: JsonValue) -> None:
    above, _, _ = path.rpartition("/")
    value, last = json_values.at(value, above), json_values.steps(path)[-1]
    if isinstance(value, dict):
        value[last] = new
    elif isinstance(value, list) and json_values.is_position(last, value):
        value[int(last)] = new
