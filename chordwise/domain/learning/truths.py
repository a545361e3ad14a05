"""What is known to be true of a document: out of a gold file, or from what people said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from chordwise.domain import json_values
from chordwise.domain.analyses.classification import NO_LABEL
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import fields
from chordwise.domain.learning.fields import Rule
from chordwise.domain.tasks import AnalysisType, options_from
from chordwise.domain.typed_values import DateOrder

LABEL_PATHS = {
    AnalysisType.CLASSIFICATION: "/primary_label",
    AnalysisType.SENTIMENT: "/label",
}
"""Where the types that choose a label have it."""


class Verdict(StrEnum):
    """What a person said of a value; the values stand in `feedback.verdict`."""

    APPROVED = "approved"
    CORRECTED = "corrected"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A person's verdict on what an answer said at a path; the empty path is the whole answer.

    `name` is the field of an extraction, whose values `judged` and `corrected` then hold as lists.
    `quote` is what was selected in the text for the right value, which is the last one of a list,
    and `span` where that begins and ends; both are empty where nothing was selected.
    """

    path: str
    name: str = ""
    verdict: Verdict
    judged: JsonValue
    corrected: JsonValue = None
    quote: str = ""
    span: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What an answer is compared with; what is not known is left out.

    `fields` holds the right values of each field of an extraction, and `wrong_fields` values that
    are not; likewise the labels. `rules` say of fields when a value counts as the right one, if not
    when it is equal, and `dates` how ambiguous ones are read for `typed`. `pages` holds the numbers
    of the pages on which the values of a field stand. `reference` is a summary that a person wrote.
    `remarks` say something of an answer that says the same as the one that they were made of, and
    `quoted` are those whose right value was selected in the text, the latest last.
    """

    label: str | None = None
    wrong_labels: frozenset[str] = frozenset()
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
    wrong_fields: Mapping[str, JsonValue] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    dates: DateOrder | None = None
    pages: Mapping[str, frozenset[int]] = field(default_factory=dict)
    reference: str | None = None
    remarks: tuple[Remark, ...] = ()
    quoted: tuple[Remark, ...] = ()


def holds_for(kind: AnalysisType, remark: Remark, asked: JsonObject, question: JsonObject) -> bool:
    """Return whether a remark on an answer to what was `asked` says what is right for a question.

    It does for the same question, for a field that both ask for in the same way, and for a label
    that both have with the same meaning; instructions for schemas and labels may differ.
    """
    if asked == question:
        return True
    if kind is AnalysisType.EXTRACTION:
        options = options_from(asked), options_from(question)
        return bool(remark.name) and fields.is_asked_alike(remark.name, *options)
    if kind is not AnalysisType.CLASSIFICATION:
        return remark.path == LABEL_PATHS.get(kind)
    said = remark.corrected if remark.verdict is Verdict.CORRECTED else remark.judged
    label = json_values.text(said)
    meanings = [
        json_values.texts(each.get("label_descriptions")).get(label, "")
        for each in (asked, question)
        if label in json_values.strings(each.get("labels"))
    ]
    is_label = remark.path == LABEL_PATHS[kind]
    return is_label and len(meanings) == 2 and meanings[0] == meanings[1]  # noqa: PLR2004 - both


def from_remarks(kind: AnalysisType, remarks: Sequence[Remark]) -> Truth:
    """Return what people's remarks on answers to one question say, the latest given last."""
    if kind in LABEL_PATHS:
        truth = _label(kind, remarks)
    elif kind is AnalysisType.EXTRACTION:
        truth = _fields(remarks)
    else:
        truth = Truth(remarks=tuple(remarks))
    return replace(truth, quoted=tuple(each for each in remarks if each.quote))


def latest(remarks: Iterable[Remark]) -> Iterable[Remark]:
    """Return the last remark on each value."""
    return {(remark.path, str(remark.judged)): remark for remark in remarks}.values()


def _label(kind: AnalysisType, remarks: Sequence[Remark]) -> Truth:
    label: str | None = None
    wrong: set[str] = set()
    for remark in remarks:
        if remark.path != LABEL_PATHS[kind]:
            continue
        judged = json_values.text(remark.judged) or NO_LABEL
        match remark.verdict:
            case Verdict.APPROVED:
                label = label or judged  # what is shown by then is the correction
            case Verdict.CORRECTED:
                label = json_values.text(remark.corrected) or NO_LABEL
            case Verdict.REJECTED:
                wrong.add(judged)
                label = None if label == judged else label
    return Truth(label=label, wrong_labels=frozenset(wrong - {label}))


def _fields(remarks: Sequence[Remark]) -> Truth:
    right: dict[str, JsonValue] = {}
    wrong: dict[str, JsonValue] = {}
    corrected: set[str] = set()
    for remark in remarks:
        for name, judged in _judged_fields(remark).items():
            wrong.pop(name, None)
            if remark.verdict is Verdict.APPROVED:
                # what is shown by then is the correction, of the whole or of a value in it
                if not any(each.startswith(f"{name}/") for each in corrected & right.keys()):
                    right.setdefault(name, judged)
                continue
            for known in [each for each in right if f"{each}/".startswith(f"{name}/")]:
                right.pop(known)
            match remark.verdict:
                case Verdict.CORRECTED:
                    right[name] = remark.corrected
                    corrected.add(name)
                case Verdict.REJECTED:
                    wrong[name] = judged
    return Truth(fields=right, wrong_fields=wrong, remarks=tuple(r for r in remarks if not r.name))


def _judged_fields(remark: Remark) -> JsonObject:
    """Return the fields that a remark is about; a wrong whole says nothing of one."""
    if remark.name:
        return {remark.name: remark.judged}
    output = remark.judged
    if remark.verdict is not Verdict.APPROVED or not isinstance(output, dict):
        return {}
    return {name: fields.values(output, name) for name in fields.names(output)}
