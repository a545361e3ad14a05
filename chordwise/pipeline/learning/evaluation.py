"""Evaluation: stored results are compared with the truth, and the metrics are stored."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

from sqlalchemy.orm import Session

from chordwise.domain import grounding, json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisType, options_from
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import fields, measures
from chordwise.domain.learning.judgments import Judged, JudgedPart, judge
from chordwise.domain.learning.measures import Measure
from chordwise.domain.learning.truths import Truth
from chordwise.domain.states import DeliveryEvent
from chordwise.errors import RegressionError, UsageError
from chordwise.pipeline.learning import judgeable
from chordwise.pipeline.learning.gold import Gold, covers
from chordwise.pipeline.learning.judgeable import Judgeable, Listed
from chordwise.pipeline.learning.scope import Scope
from chordwise.pipeline.runtime.occurrence import Occurrence
from chordwise.relations.results import ResultSelection
from chordwise.storage import evaluations, judgments
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.database import Database
from chordwise.storage.evaluations import Drop, Evaluation
from chordwise.storage.feedback import Feedback
from chordwise.storage.judgments import JudgedBy, JudgedResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The metrics of all results of a type, of one group of them, or of held-out documents.

    Where learned examples were shown, only held-out documents, which never become examples, show
    their effect without bias.
    """

    analysis_type: AnalysisType
    group: Group | None
    is_whole: bool
    is_held_out: bool
    judged: int
    unjudged: int
    measures: Sequence[Measure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The results of one analysis type compared with the truth, and their metrics.

    `drops` are the metrics that fell since the previous evaluation.
    """

    comparison: Comparison
    measured: Sequence[Measured]
    drops: Sequence[Drop] = ()


def evaluate(
    database: Database, scope: Scope, occurrence: Occurrence | None = None
) -> Sequence[Evaluated]:
    """Compare the results of a scope with the truth, and store the metrics.

    Returns an empty sequence if there is no feedback yet. No transaction is open during the
    computation. The random seed is fixed, so repeated evaluations give the same intervals.

    The outcome of an `occurrence` is stored in the transaction that stores the metrics. A process
    that resumes it after a crash reports the same drop, and evaluates nothing.

    Raises:
        RegressionError: The answers of an `occurrence` are worse than at the previous evaluation.
        UsageError: A gold file matches no result, or its labels could belong to two types.
    """
    if occurrence is not None and occurrence.outcome() is not None:
        _require_no_drop(occurrence)
        return ()
    with database.read() as session:
        comparisons = compare(session, scope)
    random = Random(0)  # noqa: S311 - statistics, not secrets
    found = [Evaluated(comparison=each, measured=measure(each, random)) for each in comparisons]
    done: list[Evaluated] = []

    def store(session: Session) -> int:
        done.clear()
        for each in found:
            ids = _store(session, scope, each)
            done.append(replace(each, drops=evaluations.drops(session, ids)))
        if occurrence is not None:
            _record(occurrence, session, scope, done)
        return len(done)

    if occurrence is None:
        database.commit(store)
    else:
        occurrence.write(store)
        _require_no_drop(occurrence)
    return done


def _record(
    occurrence: Occurrence, session: Session, scope: Scope, done: Sequence[Evaluated]
) -> None:
    outcome: JsonObject = {
        "judged": sum(len(each.comparison.compared) for each in done),
        "missing": sum(len(each.comparison.missing) for each in done),
    }
    drops = [drop_in_words(drop) for each in done for drop in each.drops]
    if drops:
        outcome |= {"profile": scope.profile, "fell": list[JsonValue](drops)}
    occurrence.record_in(session, outcome, DeliveryEvent.ANSWERS_REGRESSED if drops else "")


def _require_no_drop(occurrence: Occurrence) -> None:
    if drops := json_values.strings((occurrence.outcome() or {}).get("fell")):
        raise RegressionError(f"Answers are worse than before: {'; '.join(drops)}.")


def drop_in_words(drop: Drop) -> str:
    """Return a sentence about a metric that fell, with the interval of the change."""
    return (
        f"{drop.metric} of {drop.analysis_type} fell from {drop.earlier_value:.3f} to "
        f"{drop.value:.3f} (by {-drop.change_high:.3f} to {-drop.change_low:.3f})"
    )


def measure(comparison: Comparison, random: Random) -> Sequence[Measured]:
    """Measure all results together and, if several models or prompts answered, each group."""
    groups: dict[Group, list[ComparedResult]] = defaultdict(list)
    for each in comparison.compared:
        groups[each.group].append(each)
    only = next(iter(groups)) if len(groups) == 1 else None
    whole = comparison.compared
    parts = [(only, whole), *(sorted(groups.items()) if len(groups) > 1 else ())]
    held_out = [each for each in whole if each.is_held_out]
    if held_out and any(each.saw_examples for each in whole):
        parts.append((only, held_out))
    return [
        Measured(
            analysis_type=comparison.kind,
            group=group,
            is_whole=found is whole,
            is_held_out=found is held_out,
            judged=len(found),
            unjudged=comparison.unjudged if found is whole else 0,
            measures=list(_measures(found, random)),
        )
        for group, found in parts
    ]


def _store(session: Session, scope: Scope, evaluated: Evaluated) -> Sequence[uuid.UUID]:
    """Store the metrics, and each judgment with the evaluation of the whole.

    Returns the ids of the evaluations.
    """
    ids, gold = [], scope.gold
    for each in evaluated.measured:
        provider, model, prompt_version = each.group or (None, None, None)
        evaluation = Evaluation(
            run_id=scope.selection.run_id,
            run=scope.run_name or None,
            profile=scope.profile or None,
            analysis_type=each.analysis_type,
            is_whole=each.is_whole,
            is_held_out=each.is_held_out,
            provider=provider,
            model=model,
            prompt_version=prompt_version,
            gold_file=gold.name if gold else None,
            gold_sha256=gold.sha256 if gold else None,
            judged=each.judged,
            unjudged=each.unjudged,
            missing=len(evaluated.comparison.missing),
        )
        evaluations.store(session, evaluation, each.measures)
        ids.append(evaluation.id)
        if each.is_whole:
            judged = [(c.result, c.judged.judgments) for c in evaluated.comparison.compared]
            source = JudgedBy.GOLD if gold else JudgedBy.FEEDBACK
            judgments.store(session, judged, source, evaluation.id)
    return ids


def _measures(found: Sequence[ComparedResult], random: Random) -> Iterator[Measure]:
    all_judged = [each.judged for each in found]
    whole = [j for judged in all_judged for j in judged.judgments if j.part is JudgedPart.RESULT]
    values = [j for judged in all_judged for j in judged.judgments if j.part is JudgedPart.FIELD]
    choices = [judged.choice for judged in all_judged if judged.choice]
    yield from measures.measure_choices(choices, random)
    if whole and not choices:
        yield measures.share("accuracy", sum(j.is_right for j in whole), len(whole))
    yield from measures.measure_fields([s for judged in all_judged for s in judged.scores], random)
    named = {name for each in found for name in each.means}
    means = {n: [each.means[n] for each in found if n in each.means] for n in sorted(named)}
    yield from measures.measure_means(means, random)
    yield from measures.measure_confidence(whole)
    yield from measures.measure_confidence(values, "values")


Group: TypeAlias = tuple[str, str, str]
"""Provider, model and prompt version."""
_CONTRADICTION = "another line about the same content contradicts it"
_UNASKED = "a field that no question asks for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A document or a field of a gold file that matches no result."""

    document: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedResult:
    """A result compared with the truth; `means` are numbers to be averaged, by metric.

    `saw_examples` and `is_held_out` are those of the result (`Judgeable`).
    """

    result: JudgedResult
    judged: Judged
    means: Mapping[str, float]
    saw_examples: bool
    is_held_out: bool

    @property
    def group(self) -> Group:
        """The provider, model and prompt version of the result."""
        return self.result.provider, self.result.model, self.result.prompt_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The results of one analysis type compared with the truth.

    The truth about `unjudged` results is unknown.
    """

    kind: AnalysisType
    compared: Sequence[ComparedResult]
    unjudged: int
    missing: Sequence[Missing]


def compare(session: Session, scope: Scope) -> Sequence[Comparison]:
    """Compare the results of a scope with the truth; without any feedback there are none.

    Answers are read in batches, and the session's transaction ends after each.

    Raises:
        UsageError: A gold file matches no result, or its labels could belong to two types.
    """
    wanted, gold = scope.selection, scope.gold
    results = judgeable.listed(session, wanted, scope.questions)
    if gold is None:
        found = _with_feedback(session, results)
        return [comparison for comparison in found if comparison.compared]
    names = judgeable.names(session, results, wanted.run_id)
    kinds = _kinds(wanted, results, gold)
    found = [_of_kind(session, kind, results, gold, names) for kind in kinds]
    if not any(comparison.compared for comparison in found):
        raise UsageError(
            f"{gold.name} has no right answers for any result.",
            "It names other documents, or covers other analysis types.",
        )
    return found


def _with_feedback(session: Session, results: Sequence[Listed]) -> Sequence[Comparison]:
    feedback = stored_feedback.by_document(session, (result.document_id for result in results))
    return [
        _with_feedback_on(session, [r for r in results if r.analysis_type == kind], feedback)
        for kind in dict.fromkeys(r.analysis_type for r in results if r.document_id in feedback)
    ]


def _with_feedback_on(
    session: Session, results: Sequence[Listed], feedback: Mapping[uuid.UUID, Sequence[Feedback]]
) -> Comparison:
    truth_of: dict[uuid.UUID, Truth] = {}
    for result in results:
        of_document = feedback.get(result.document_id, ())
        about = stored_feedback.applicable(of_document, result.analysis_type, result.question)
        if about:
            truth_of[result.result_id] = judgeable.truth_of(result.analysis_type, about)
    compared = _compared(session, [r for r in results if r.result_id in truth_of], truth_of)
    return Comparison(
        kind=results[0].analysis_type,
        compared=compared,
        unjudged=len(results) - len(compared),
        missing=(),
    )


def _kinds(
    wanted: ResultSelection, results: Sequence[Listed], gold: Gold
) -> Sequence[AnalysisType]:
    """Return the analysis types that occur in the results and that the gold file covers."""
    there = {result.analysis_type for result in results}
    kinds = [kind for kind in AnalysisType if kind in there and gold.names_of(kind)]
    labeled = [f"--type {kind}" for kind in kinds if analysis_for(kind).label_path]
    if len(labeled) > 1:
        raise UsageError(
            "The results have labels of several types, and the file does not state its type.",
            f"Use {' or '.join(labeled)}.",
        )
    return kinds or [kind for kind in wanted.types if gold.names_of(kind)]


def _of_kind(
    session: Session,
    kind: AnalysisType,
    results: Sequence[Listed],
    gold: Gold,
    names: judgeable.Names,
) -> Comparison:
    of_kind = [result for result in results if result.analysis_type == kind]
    by_document: dict[uuid.UUID, list[Listed]] = defaultdict(list)
    for result in of_kind:
        by_document[result.document_id].append(result)
    truth_of: dict[uuid.UUID, Truth] = {}
    missing = list(_unasked(of_kind, gold)) if kind == AnalysisType.EXTRACTION else []
    for name in gold.names_of(kind):
        documents, truth = names.find(name), gold.truths[name]
        own = {r.result_id: _asked(r, truth) for d in documents for r in by_document.get(d, ())}
        if len(documents) != 1 or not own:
            missing.append(Missing(document=name, reason=_why_missing(len(documents))))
        elif any(truth_of.get(each, known) != known for each, known in own.items()):
            missing.append(Missing(document=name, reason=_CONTRADICTION))
        else:
            truth_of |= own
    compared = _compared(session, [r for r in of_kind if r.result_id in truth_of], truth_of)
    unjudged = len(of_kind) - len(compared)
    return Comparison(kind=kind, compared=compared, unjudged=unjudged, missing=missing)


def _asked(result: Listed, truth: Truth) -> Truth:
    """Return the truth without the fields that the result's question does not ask for."""
    if result.analysis_type != AnalysisType.EXTRACTION:
        return truth
    options = options_from(result.question)
    named = {
        name: asked for name in truth.fields if (asked := fields.requested_field(name, options))
    }
    return replace(
        truth,
        fields={asked: truth.fields[name] for name, asked in named.items()},
        rules={named[name]: rule for name, rule in truth.rules.items() if name in named},
        pages={named[name]: pages for name, pages in truth.pages.items() if name in named},
    )


def _unasked(results: Sequence[Listed], gold: Gold) -> Iterator[Missing]:
    """Yield the fields of a gold file that no question asks for."""
    questions = {repr(r.question): options_from(r.question) for r in results}.values()
    for name in dict.fromkeys(name for truth in gold.truths.values() for name in truth.fields):
        if not any(fields.requested_field(name, options) for options in questions):
            yield Missing(document=name, reason=_UNASKED)


def _why_missing(documents: int) -> str:
    if documents > 1:
        return f"{documents} documents have this name; give the hash or a longer path"
    return "no result of this type" if documents else "no such document"


def _compared(
    session: Session, results: Sequence[Listed], truth_of: Mapping[uuid.UUID, Truth]
) -> Sequence[ComparedResult]:
    found = []
    for some in judgeable.batches(results):
        answers = list(judgeable.read(session, some))
        session.commit()  # the computation may take a minute, during which no transaction is open
        found += [_compared_one(each, truth_of[each.listed.result_id]) for each in answers]
    return [each for each in found if each is not None]


def _compared_one(each: Judgeable, truth: Truth) -> ComparedResult | None:
    judged = judge(each.answer, truth)
    if not judged.judgments and not covers(truth, each.answer.analysis_type):
        return None
    return ComparedResult(
        result=each.result,
        judged=judged,
        means=dict(_means(each, truth)),
        saw_examples=each.saw_examples,
        is_held_out=each.is_held_out,
    )


def _means(each: Judgeable, truth: Truth) -> Iterator[tuple[str, float]]:
    output = each.answer.output
    if truth.reference is not None and each.answer.analysis_type == AnalysisType.SUMMARY:
        text = measures.summary_text(output)
        yield "rouge_1", measures.rouge_1(text, truth.reference)
        yield "rouge_l", measures.rouge_l(text, truth.reference)
    if grounding.quotes(output):
        yield "grounded", grounding.grounded_share(output)
    for name, taken in (("seconds", each.seconds), ("cost_usd", each.cost_usd)):
        if taken is not None:
            yield name, taken
