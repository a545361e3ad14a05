"""Evaluation: stored results are compared with the truth, and the metrics are stored."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random

from sqlalchemy.orm import Session

from chordwise.domain import grounding, json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisType, options_from
from chordwise.domain.answer_tables import BASE_COLUMNS
from chordwise.domain.identifiers import sql_identifier
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning import fields, measures
from chordwise.domain.learning.judgments import Judged, JudgedPart, judge, unanswered
from chordwise.domain.learning.measures import Measure
from chordwise.domain.learning.truths import Truth
from chordwise.domain.states import DeliveryEvent
from chordwise.errors import RegressionError, UsageError
from chordwise.pipeline.learning import scope as scopes
from chordwise.pipeline.learning.gold import Gold, covers
from chordwise.pipeline.learning.scope import Scope
from chordwise.pipeline.runtime.context import Occurrence
from chordwise.relations.judgments import DROPS
from chordwise.relations.relation import Row
from chordwise.relations.results import ResultSelection
from chordwise.storage import feedback as stored_feedback
from chordwise.storage import judgments
from chordwise.storage.database import Database, driver
from chordwise.storage.judgments import Evaluation, JudgedBy


def evaluate(
    database: Database, scope: Scope, occurrence: Occurrence | None = None
) -> Sequence[Row]:
    """Compare the results of a scope with the truth, and store the metrics; none without feedback.

    A row has those of one analysis type: `measured` all together and by groups, what of a gold file
    is `missing`, the `manners` in which fields were compared, and the `drops` of metrics. An
    `occurrence` that is resumed after a crash reports the same drop, and evaluates nothing.

    Raises:
        RegressionError: The answers of an `occurrence` are worse than at the previous evaluation.
        UsageError: A gold file matches no result, or its labels could belong to two types.
    """
    if occurrence is not None and occurrence.outcome() is not None:
        _require_no_drop(occurrence)
        return ()
    with database.read() as session:
        comparisons = _compared_by_kind(session, scope)
    random = Random(0)  # noqa: S311 - repeated evaluations give the same intervals
    measured = [_measured(comparison, random) for comparison in comparisons]
    rows: list[Row] = []

    def store(session: Session) -> int:
        rows.clear()
        for comparison, parts in zip(comparisons, measured, strict=True):
            ids = _store(session, scope, comparison, parts)
            row = {
                **{name: comparison[name] for name in ("analysis_type", "missing", "manners")},
                "measured": parts,
                "drops": DROPS.read(driver(session), {"evaluation_ids": ids}),
            }
            rows.append(row)
        if occurrence is not None:
            outcome: JsonObject = {
                "judged": sum(len(comparison["compared"]) for comparison in comparisons),
                "missing": sum(len(row["missing"]) for row in rows),
            }
            if drops := [drop_in_words(drop) for row in rows for drop in row["drops"]]:
                outcome |= {"profile": scope.profile, "fell": list[JsonValue](drops)}
            event = DeliveryEvent.ANSWERS_REGRESSED if drops else ""
            occurrence.record_in(session, outcome, event)
        return len(rows)

    if occurrence is None:
        database.commit(store)
    else:
        occurrence.write(store)
        _require_no_drop(occurrence)
    return rows


def _require_no_drop(occurrence: Occurrence) -> None:
    if drops := json_values.strings((occurrence.outcome() or {}).get("fell")):
        raise RegressionError(f"Answers are worse than before: {'; '.join(drops)}.")


def drop_in_words(drop: Row) -> str:
    """Return a sentence about a metric that fell, with the interval of the change."""
    return (
        f"{drop['metric']} of {drop['analysis_type']} fell from {drop['earlier_value']:.3f} to "
        f"{drop['value']:.3f} (by {-drop['change_high']:.3f} to {-drop['change_low']:.3f})"
    )


def _measured(comparison: Row, random: Random) -> Sequence[Row]:
    """Measure all results together and, if several models or prompts answered, each group.

    Where learned examples were shown, the held-out documents are measured as well: as these never
    become examples, only they show the effect without bias.
    """
    whole: Sequence[Row] = [*comparison["compared"], *comparison["unanswered"]]
    groups: dict[tuple[str | None, ...], list[Row]] = defaultdict(list)
    for result in comparison["compared"]:
        groups[tuple(result[column] for column in _GROUP)].append(result)
    only = next(iter(groups)) if len(groups) == 1 else (None,) * len(_GROUP)
    parts = [(only, whole), *(sorted(groups.items()) if len(groups) > 1 else ())]
    held_out = [result for result in comparison["compared"] if result["is_held_out"]]
    if held_out and any(result["saw_examples"] for result in comparison["compared"]):
        parts.append((only, held_out))
    return [
        {
            "is_whole": part is whole,
            "is_held_out": part is held_out,
            **dict(zip(_GROUP, group, strict=True)),
            "judged": len(part),
            "unjudged": comparison["unjudged"] if part is whole else 0,
            "measures": list(_measures(part, random)),
        }
        for group, part in parts
    ]


def _store(
    session: Session, scope: Scope, comparison: Row, measured: Sequence[Row]
) -> Sequence[uuid.UUID]:
    """Store the metrics, and each judgment with the evaluation of the whole.

    Returns the ids of the evaluations.
    """
    ids, gold = [], scope.gold
    for part in measured:
        evaluation = Evaluation(
            run_id=scope.selection.run_id,
            run=scope.run_name or None,
            profile=scope.profile or None,
            analysis_type=comparison["analysis_type"],
            gold_file=gold.name if gold else None,
            gold_sha256=gold.sha256 if gold else None,
            missing=len(comparison["missing"]),
            **{name: part[name] for name in part if name != "measures"},
        )
        judgments.store_evaluation(session, evaluation, part["measures"])
        ids.append(evaluation.id)
        if part["is_whole"]:
            judged = [(result, result["judged"].judgments) for result in comparison["compared"]]
            source = JudgedBy.GOLD if gold else JudgedBy.FEEDBACK
            judgments.store(session, judged, source, evaluation.id)
    return ids


def _measures(compared: Sequence[Row], random: Random) -> Iterator[Measure]:
    all_judged: Sequence[Judged] = [result["judged"] for result in compared]
    whole = [j for judged in all_judged for j in judged.judgments if j.part is JudgedPart.RESULT]
    values = [j for judged in all_judged for j in judged.judgments if j.part is JudgedPart.FIELD]
    choices = [judged.choice for judged in all_judged if judged.choice]
    yield from measures.measure_choices(choices, random)
    if whole and not choices:
        yield measures.share("accuracy", sum(j.is_right for j in whole), len(whole))
    yield from measures.measure_fields([s for judged in all_judged for s in judged.scores], random)
    means: dict[str, list[float]] = defaultdict(list)
    for result in compared:
        for metric, number in result["means"].items():
            means[metric].append(number)
    yield from measures.measure_means(dict(sorted(means.items())), random)
    yield from measures.measure_confidence(whole)
    yield from measures.measure_confidence(values, "values")


_GROUP = ("provider", "model", "prompt_version")
_OF_WORKBOOKS = ("to_check", "file")
_OF_LISTS = " (rows)"


def _compared_by_kind(session: Session, scope: Scope) -> Sequence[Row]:
    """Compare the results of a scope with the truth, by analysis type.

    Of the results in `compared`, `judged` are the judgments, and `means` numbers to be averaged, by
    metric. The truth about `unjudged` results is unknown. `missing` are the documents and fields of
    a gold file that match no result, each with the reason; in a suite, these documents are
    `unanswered` as well, and count as wrong. The session's transaction ends after each batch of
    answers.
    """
    selection, gold = scope.selection, scope.gold
    results = scopes.listed(session, selection, scope.questions)
    if gold is None:
        feedback = stored_feedback.by_document(session, (row["document_id"] for row in results))
        truth_of = {
            row["result_id"]: truth
            for row in results
            if (truth := scopes.truth_about(row, feedback.get(row["document_id"], ())))
        }
        answered = dict.fromkeys(row["analysis_type"] for row in results)
        comparisons = [_compared(session, kind, results, truth_of) for kind in answered]
        return [comparison for comparison in comparisons if comparison["compared"]]
    names = scopes.names(session, results, selection.run_id)
    comparisons = [
        _of_kind(session, kind, results, gold, names, selection.run_id)
        for kind in _kinds(selection, results, gold)
    ]
    if not gold.is_complete and not any(row["compared"] for row in comparisons):
        raise UsageError(
            f"{gold.name} has no right answers for any result.",
            "It names other documents, or covers other analysis types.",
        )
    return comparisons


def _kinds(
    selection: ResultSelection, results: Sequence[Row], gold: Gold
) -> Sequence[AnalysisType]:
    there = selection.types if gold.is_complete else {row["analysis_type"] for row in results}
    kinds = [kind for kind in AnalysisType if kind in there and gold.names_of(kind)]
    labeled = [f"--type {kind}" for kind in kinds if analysis_for(kind).label_path]
    if len(labeled) > 1:
        raise UsageError(
            "The results have labels of several types, and the file does not state its type.",
            f"Use {' or '.join(labeled)}.",
        )
    return kinds or [kind for kind in selection.types if gold.names_of(kind)]


def _of_kind(
    session: Session,
    kind: AnalysisType,
    results: Sequence[Row],
    gold: Gold,
    names: scopes.Names,
    run_id: uuid.UUID | None,
) -> Row:
    of_kind = [row for row in results if row["analysis_type"] == kind]
    by_document: dict[uuid.UUID, list[Row]] = defaultdict(list)
    for row in of_kind:
        by_document[row["document_id"]].append(row)
    truth_of: dict[uuid.UUID, Truth] = {}
    is_of_fields = of_kind and kind == AnalysisType.EXTRACTION
    missing = list(_unasked(of_kind, gold)) if is_of_fields else []
    absent: list[str] = []
    for name in gold.names_of(kind):
        documents, truth = names.find(name), gold.truths[name]
        known = {
            row["result_id"]: _requested(row, truth)
            for document_id in documents
            for row in by_document.get(document_id, ())
        }
        reason = ""
        if len(documents) > 1:
            reason = f"{len(documents)} documents have this name; give the hash or a longer path"
        elif not known:
            absent.append(name)
        elif any(truth_of.get(result_id, one) != one for result_id, one in known.items()):
            reason = "another line about the same content contradicts it"
        if reason:
            missing.append({"document": name, "reason": reason})
        else:
            truth_of |= known
    reasons = scopes.reasons(session, absent, run_id, kind) if absent else {}
    missing += ({"document": name, "reason": reasons[name]} for name in absent)
    wrong = [gold.truths[name] for name in absent if gold.is_complete]
    if of_kind:
        wrong = [_requested(of_kind[0], truth) for truth in wrong]
    return {
        **_compared(session, kind, of_kind, truth_of),
        "missing": missing + list(gold.unusable),
        "unanswered": [
            {"judged": unanswered(kind, truth), "means": _NO_SUMMARY if truth.reference else {}}
            for truth in wrong
        ],
    }


_NO_SUMMARY = {"rouge_1": 0.0, "rouge_l": 0.0}


def _requested(result: Row, truth: Truth) -> Truth:
    """Return the truth without the fields that the result's question does not ask for."""
    if result["analysis_type"] != AnalysisType.EXTRACTION:
        return truth
    options = options_from(result["question"])
    names = fields.requested_fields(truth.fields, options)
    return replace(
        truth,
        fields={
            field: fields.values_of_cell(field, truth.fields[name], options)
            for name, field in names.items()
        },
        rules={names[name]: rule for name, rule in truth.rules.items() if name in names},
        pages={names[name]: pages for name, pages in truth.pages.items() if name in names},
    )


def _unasked(results: Sequence[Row], gold: Gold) -> Iterator[Mapping[str, str]]:
    """Yield the fields of a gold file that no question asks for, except the columns of exports."""
    questions = {repr(row["question"]): options_from(row["question"]) for row in results}.values()
    names = dict.fromkeys(name for truth in gold.truths.values() for name in truth.fields)
    requested = {name for options in questions for name in fields.requested_fields(names, options)}
    columns = map(sql_identifier, requested)
    exported = {f"{column}_{suffix}" for column in columns for suffix in ("trust", "currency")}
    exported.update(BASE_COLUMNS, _OF_WORKBOOKS)
    for name in names:
        is_exported = sql_identifier(name) in exported or name.endswith(_OF_LISTS)
        if name not in requested and not is_exported:
            yield {"document": name, "reason": "a field that no question asks for"}


def _compared(
    session: Session,
    kind: AnalysisType,
    results: Sequence[Row],
    truth_of: Mapping[uuid.UUID, Truth],
) -> Row:
    of_kind = [row for row in results if row["analysis_type"] == kind]
    compared: list[Row] = []
    manners: dict[str, Counter[str]] = defaultdict(Counter)
    for some in scopes.batches([row for row in of_kind if row["result_id"] in truth_of]):
        answers = list(scopes.read(session, some))
        session.commit()  # the computation may take a minute, during which no transaction is open
        for answer in answers:
            truth = truth_of[answer["result_id"]]
            judged = judge(answer["answer"], truth)
            if judged.judgments or covers(truth, kind):
                means = dict(_means(answer, truth))
                compared.append({**answer, "judged": judged, "means": means})
                for name, expected in truth.fields.items():
                    manners[name].update(truth.comparing(name).manners(expected))
    return {
        "analysis_type": kind,
        "compared": compared,
        "unjudged": len(of_kind) - len(compared),
        "manners": manners,
        "missing": [],
        "unanswered": [],
    }


def _means(result: Row, truth: Truth) -> Iterator[tuple[str, float]]:
    output = result["output"]
    if truth.reference is not None and result["analysis_type"] == AnalysisType.SUMMARY:
        text = measures.summary_text(output)
        yield "rouge_1", measures.rouge_1(text, truth.reference)
        yield "rouge_l", measures.rouge_l(text, truth.reference)
    if grounding.quotes(output):
        yield "grounded", grounding.grounded_share(output)
    yield from (
        (name, result[name]) for name in ("seconds", "cost_usd") if result[name] is not None
    )
