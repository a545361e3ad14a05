"""Judging: compare an answer, and the confidence that it claims, with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from chordwise.domain import json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.facts import facts
from chordwise.domain.json_values import USER_DATA, JsonObject, JsonValue
from chordwise.domain.learning import fields
from chordwise.domain.learning.fields import Comparing, FieldValue
from chordwise.domain.learning.leaves import Leaf
from chordwise.domain.learning.truths import Truth, Verdict, label_in, latest_about, verdict_on_all


class JudgedPart(StrEnum):
    """The part that a confidence was claimed for: a whole answer, or one value of an extraction."""

    RESULT = "result"
    FIELD = "field"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWithConfidence:
    """A stored answer with its claimed confidence (0 to 1)."""

    analysis_type: AnalysisType
    output: JsonObject
    confidence: float
    needs_review: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """Whether a value is right; `confidence` is the claimed one, or `None`."""

    part: JudgedPart
    path: str = ""
    confidence: float | None
    is_right: bool
    expected: JsonValue = None
    found: JsonValue = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen label and the right one, which is `None` if only a wrong one is known.

    Without an answer, `chosen` is empty.
    """

    expected: str | None
    chosen: str
    is_abstaining: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldScore:
    """The numbers of matching and differing values of one field.

    `rows_found` counts the expected objects of a list that the answer has with all values, and
    `pages_found` the pages of expected values that facts of the answer name. `leaves` are the
    single values of a member of a user's own schema. Without an answer, no field is right.
    """

    name: str
    shared: int
    only_found: int
    only_expected: int
    is_exact: bool
    rows: int = 0
    rows_found: int = 0
    pages: int = 0
    pages_found: int = 0
    leaves: tuple[Leaf, ...] = ()
    is_answered: bool = True

    @property
    def is_right(self) -> bool:
        """Return whether no value is missing and none is superfluous."""
        return self.is_answered and not self.only_found and not self.only_expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judgments of one answer; empty if the truth does not cover it."""

    judgments: tuple[Judgment, ...] = ()
    choice: Choice | None = None
    scores: tuple[FieldScore, ...] = ()


def judge(answer: AnswerWithConfidence, truth: Truth) -> Judged:
    """Compare an answer with the truth."""
    if analysis_for(answer.analysis_type).label_path:
        return _judge_label(answer, truth)
    if answer.analysis_type == AnalysisType.EXTRACTION:
        return _judge_fields(answer, truth)
    return _judge_by_remarks(answer, truth)


def unanswered(kind: AnalysisType, truth: Truth) -> Judged:
    """Return the judgment of a document that has no answer, which is wrong in every part."""
    if analysis_for(kind).label_path:
        return Judged(choice=Choice(expected=truth.label, chosen="", is_abstaining=True))
    answer = AnswerWithConfidence(analysis_type=kind, output={USER_DATA: {}}, confidence=0.0)
    wrong = replace(_of_result(answer, is_right=False), confidence=None)
    scores = judge(answer, truth).scores
    return Judged(
        judgments=(wrong,) if scores else (),
        scores=tuple(replace(score, is_answered=False, is_exact=False) for score in scores),
    )


def correct_by_field(answer: AnswerWithConfidence, truth: Truth) -> dict[str, bool]:
    """Return whether each field is right, or the whole answer under the empty name.

    Fields that the truth does not cover are left out. A list or an object is wrong if a value in it
    is wrong. If a whole extraction was rejected, so is each field without a verdict.
    """
    judged = judge(answer, truth)
    if answer.analysis_type != AnalysisType.EXTRACTION:
        verdicts = [judgment.is_right for judgment in judged.judgments]
        return {"": all(verdicts)} if verdicts else {}
    wrong = [*_refuted(answer, truth), *_rejected_with_it(answer, truth)]
    wrong += [score.name for score in judged.scores if not score.is_right]
    right = [score.name for score in judged.scores if score.is_right]
    return dict.fromkeys(right, True) | dict.fromkeys(map(fields.top, wrong), False)


def is_refuted(answer: AnswerWithConfidence, truth: Truth, field: str = "") -> bool:
    """Return whether an answer, or one field of it, is known to be wrong, whatever is right."""
    if answer.analysis_type == AnalysisType.EXTRACTION:
        rejected = _rejected_with_it(answer, truth)
        return (field in rejected if field else _is_rejected(answer, truth)) or any(
            field in {"", fields.top(name)}
            for name in _refuted(answer, truth)
            if fields.top(name) not in truth.fields
        )
    return truth.label is None and correct_by_field(answer, truth).get("") is False


def _is_rejected(answer: AnswerWithConfidence, truth: Truth) -> bool:
    return verdict_on_all(answer.output, truth.remarks) is Verdict.REJECTED


def _rejected_with_it(answer: AnswerWithConfidence, truth: Truth) -> Sequence[str]:
    if not _is_rejected(answer, truth):
        return ()
    known = {fields.top(name) for name in (*truth.fields, *truth.wrong_fields)}
    return [name for name in fields.names(answer.output) if name not in known]


def difference(
    before: AnswerWithConfidence, after: AnswerWithConfidence, truth: Truth
) -> Mapping[str, int]:
    """Compare two answers about one document with each other and with the truth, field by field.

    Returns the numbers of `fields`, of `changed` ones, and of those `checked` in both answers, of
    which the new ones are `better` or `worse`.
    """
    old, new = _by_field(before), _by_field(after)
    names = {*old, *new}
    was_right, is_right = correct_by_field(before, truth), correct_by_field(after, truth)
    checked = was_right.keys() & is_right.keys()
    return {
        "fields": len(names),
        "changed": sum(old.get(name, frozenset()) != new.get(name, frozenset()) for name in names),
        "checked": len(checked),
        "better": sum(is_right[name] and not was_right[name] for name in checked),
        "worse": sum(was_right[name] and not is_right[name] for name in checked),
    }


def _by_field(answer: AnswerWithConfidence) -> dict[str, frozenset[fields.Key]]:
    if answer.analysis_type == AnalysisType.EXTRACTION:
        names = fields.names(answer.output)
        return {name: fields.keys(fields.values(answer.output, name)) for name in names}
    analysis = analysis_for(answer.analysis_type)
    if analysis.label_path:
        return {"": fields.keys(json_values.at(answer.output, analysis.label_path))}
    stated = facts(answer.output, analysis)
    return {"": frozenset((fact.item, fields.normalized(fact.value)) for fact in stated)}


def _judge_label(answer: AnswerWithConfidence, truth: Truth) -> Judged:
    chosen = label_in(answer.analysis_type, answer.output)
    is_wrong = any(fields.is_same(chosen, label) for label in truth.wrong_labels)
    if truth.label is None and not is_wrong:
        return Judged()
    is_right = truth.label is not None and fields.is_same(truth.label, chosen)
    path = analysis_for(answer.analysis_type).label_path
    result = _of_result(answer, is_right=is_right)
    judgment = replace(result, path=path, expected=truth.label, found=chosen)
    choice = Choice(expected=truth.label, chosen=chosen, is_abstaining=answer.needs_review)
    return Judged(judgments=(judgment,), choice=choice)


def _judge_fields(answer: AnswerWithConfidence, truth: Truth) -> Judged:
    judgments: list[Judgment] = []
    scores: list[FieldScore] = []
    listed = facts(answer.output, analysis_for(answer.analysis_type)) if truth.pages else []
    page_at = {fact.path: fact.page for fact in listed}
    is_of_schema = USER_DATA in answer.output
    for name, expected in truth.fields.items():
        comparing = truth.comparing(name)
        entries = comparing.aligned(fields.entries(answer.output, name), expected)
        judgments += (_of_entry(entry, expected) for entry in entries)
        score = _score(name, entries, expected, comparing)
        pages = truth.pages.get(name, frozenset())
        quoted_pages = {page_at.get(entry.path) for entry in entries if entry.key}
        leaves = comparing.leaves(answer.output, name, expected) if is_of_schema else []
        score = replace(score, pages=len(pages), pages_found=len(pages & quoted_pages))
        scores.append(replace(score, leaves=tuple(leaves)))
    refuted = _refuted(answer, truth)
    for name in refuted:
        # With several values it is unknown which one is wrong.
        if len(entries := fields.entries(answer.output, name)) == 1:
            judgments.append(replace(_of_entry(entries[0], None), is_right=False))
    verdicts = [score.is_right for score in scores] + [False] * len(refuted)
    if not verdicts:
        return _judge_by_remarks(answer, truth)
    expected_fields: JsonObject = dict(truth.fields)
    said: JsonObject = {
        name: fields.values(answer.output, name) for name in (*truth.fields, *refuted)
    }
    is_right = all(verdicts) and not _is_rejected(answer, truth)
    result = _of_result(answer, is_right=is_right)
    whole = replace(result, expected=expected_fields or None, found=said)
    return Judged(judgments=(whole, *judgments), scores=tuple(scores))


def _judge_by_remarks(answer: AnswerWithConfidence, truth: Truth) -> Judged:
    """Apply the verdicts on answers with the same content; a corrected value is wrong."""
    verdicts = [
        remark.verdict is Verdict.APPROVED
        for remark in latest_about(answer.output, truth.remarks)
        if not remark.path or remark.verdict is not Verdict.APPROVED
    ]
    if not verdicts:
        return Judged()
    return Judged(judgments=(_of_result(answer, is_right=all(verdicts)),))


def _of_result(answer: AnswerWithConfidence, *, is_right: bool) -> Judgment:
    part, confidence = JudgedPart.RESULT, answer.confidence
    return Judgment(part=part, confidence=confidence, is_right=is_right)


def _of_entry(entry: FieldValue, expected: JsonValue) -> Judgment:
    """Judge one value: it has to be an expected one, or empty if none is expected."""
    right = fields.keys(expected)
    return Judgment(
        part=JudgedPart.FIELD,
        path=entry.path,
        confidence=entry.confidence,
        is_right=entry.key in right if entry.key else not right,
        expected=expected,
        found=entry.value,
    )


def _refuted(answer: AnswerWithConfidence, truth: Truth) -> list[str]:
    wrong = truth.wrong_fields.items()
    return [name for name, value in wrong if fields.paths_with(answer.output, name, value)]


def _score(
    name: str, entries: list[FieldValue], expected: JsonValue, comparing: Comparing
) -> FieldScore:
    right = fields.keys(expected)
    answer_keys = {entry.key for entry in entries if entry.key is not None}
    values: list[JsonValue] = [entry.value for entry in entries if entry.key]
    right_rows = fields.rows(expected)
    return FieldScore(
        name=name,
        shared=len(right & answer_keys),
        only_found=len(answer_keys - right),
        only_expected=len(right - answer_keys),
        is_exact=right == answer_keys and comparing.is_exact(values, expected),
        rows=right_rows.total(),
        rows_found=(right_rows & fields.rows_of(entries, name)).total(),
    )
