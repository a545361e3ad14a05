"""The truth about a document, from a gold file or from feedback."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from chordwise.domain import json_values
from chordwise.domain.analysis import NO_LABEL, analysis_for
from chordwise.domain.analysis_tasks import AnalysisType, options_from
from chordwise.domain.dates import DateOrder
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import fields
from chordwise.domain.learning.fields import Comparing, Rule


def label_in(kind: AnalysisType, output: JsonObject) -> str:
    """Return the label in an output of a type that chooses one; `NO_LABEL` if none fits."""
    return json_values.text(json_values.at(output, analysis_for(kind).label_path)) or NO_LABEL


class Verdict(StrEnum):
    """A person's verdict on a value; stored in `feedback.verdict`.

    SEEN is about an answer as a whole: the reasons to check it were read, and nothing is judged.
    """

    APPROVED = "approved"
    CORRECTED = "corrected"
    REJECTED = "rejected"
    SEEN = "seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A person's verdict on the value at a path; the empty path is the whole answer.

    `name` is the field of an extraction; `judged` and `corrected` are then lists of its values.
    `quote` and `span` are the text that was selected for the right value, empty if none was, and
    `confidence` is what the answer claimed for the judged value.
    """

    path: str
    name: str = ""
    verdict: Verdict
    judged: JsonValue
    corrected: JsonValue = None
    quote: str = ""
    span: tuple[int, int] = (0, 0)
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What an answer is compared with; unknown parts are left out.

    `rules` define when a value of a field counts as right, by default if it is equal, `dates` how
    ambiguous dates are read, and with `alternatives` the texts of `fields` may state several
    acceptable ones, parted by a bar. `pages` are those of the values of a field. `remarks` apply to
    answers with the same value as the one they were made on. `quoted` are the remarks whose right
    value was selected in the text, the latest last.
    """

    label: str | None = None
    wrong_labels: frozenset[str] = frozenset()
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
    wrong_fields: Mapping[str, JsonValue] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    dates: DateOrder | None = None
    alternatives: bool = False
    pages: Mapping[str, frozenset[int]] = field(default_factory=dict)
    reference: str | None = None
    remarks: tuple[Remark, ...] = ()
    quoted: tuple[Remark, ...] = ()

    def comparing(self, name: str) -> Comparing:
        """Return how the values of a field are compared."""
        rule = self.rules.get(name, Rule.EQUAL)
        return Comparing(rule=rule, dates=self.dates, alternatives=self.alternatives)


def holds_for(kind: AnalysisType, remark: Remark, origin: JsonObject, question: JsonObject) -> bool:
    """Return whether a remark on an answer to the question `origin` also applies to a `question`.

    It does if both ask for the field, or have the label, in the same way; the instructions may
    differ for schemas and labels.
    """
    if origin == question:
        return True
    if kind == AnalysisType.EXTRACTION:
        options = options_from(origin), options_from(question)
        return bool(remark.name) and fields.is_same_field(remark.name, *options)
    path = analysis_for(kind).label_path
    if not path or remark.path != path:
        return False
    if kind != AnalysisType.CLASSIFICATION:
        return True
    said = remark.corrected if remark.verdict is Verdict.CORRECTED else remark.judged
    label, requests = json_values.text(said), (origin, question)
    one, other = (json_values.texts(request.get("label_descriptions")) for request in requests)
    is_known = all(label in json_values.strings(request.get("labels")) for request in requests)
    return is_known and one.get(label, "") == other.get(label, "")


def from_remarks(kind: AnalysisType, remarks: Sequence[Remark]) -> Truth:
    """Return the truth that remarks on answers to one question imply; the latest comes last."""
    remarks = [remark for remark in remarks if remark.verdict is not Verdict.SEEN]
    if path := analysis_for(kind).label_path:
        truth = _label(path, remarks)
    elif kind == AnalysisType.EXTRACTION:
        truth = _fields(remarks)
    else:
        truth = Truth(remarks=tuple(remarks))
    return replace(truth, quoted=tuple(remark for remark in remarks if remark.quote))


def verdict_on_all(output: JsonObject, remarks: Iterable[Remark]) -> Verdict | None:
    """Return the last verdict on an answer as a whole, or `None`."""
    on_all = (one for one in remarks if not (one.path or one.name) and one.judged == output)
    return next((remark.verdict for remark in reversed([*on_all])), None)


def latest_about(output: JsonObject, remarks: Iterable[Remark]) -> list[Remark]:
    """Return the last remark on each value that an output has."""
    latest = {(remark.path, str(remark.judged)): remark for remark in remarks}.values()
    return [remark for remark in latest if json_values.at(output, remark.path) == remark.judged]


def _label(path: str, remarks: Sequence[Remark]) -> Truth:
    label: str | None = None
    wrong: set[str] = set()
    for remark in remarks:
        if remark.path != path:
            continue
        judged = json_values.text(remark.judged) or NO_LABEL
        match remark.verdict:
            case Verdict.APPROVED:
                label = label or judged  # a known label is the corrected one, which the person saw
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
    names = {remark.name for remark in remarks}
    for remark in remarks:
        _take_back(right, remark, names)
        for name, judged in _judged_fields(remark).items():
            wrong.pop(name, None)
            if remark.verdict is Verdict.APPROVED:
                # a known value is the corrected one, which the person saw, as a whole or in part
                if not any(other.startswith(f"{name}/") for other in corrected & right.keys()):
                    right.setdefault(name, judged)
                continue
            for known in [other for other in right if json_values.is_within(other, name)]:
                right.pop(known)
            match remark.verdict:
                case Verdict.CORRECTED:
                    right[name] = remark.corrected
                    corrected.add(name)
                case Verdict.REJECTED:
                    wrong[name] = judged
    return Truth(fields=right, wrong_fields=wrong, remarks=tuple(r for r in remarks if not r.name))


def _take_back(right: dict[str, JsonValue], remark: Remark, names: Collection[str]) -> None:
    if remark.name or remark.verdict is not Verdict.REJECTED:
        return
    for name, judged in _fields_of(remark.judged).items():
        if name not in names and right.get(name) == judged:
            del right[name]


def _judged_fields(remark: Remark) -> JsonObject:
    """A rejected whole judges none: it is unknown which of its values are wrong."""
    if remark.name:
        return {remark.name: remark.judged}
    return _fields_of(remark.judged) if remark.verdict is Verdict.APPROVED else {}


def _fields_of(output: JsonValue) -> JsonObject:
    if not isinstance(output, dict):
        return {}
    return {name: fields.values(output, name) for name in fields.names(output)}
