"""Review: the values that a person should check, one after another or as a table.

The view `review_queue` defines the values to check and their order.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.analysis import NO_LABEL, analysis_for, label_paths
from chordwise.domain.analysis_tasks import options_from
from chordwise.domain.json_values import JsonObject, JsonValue, text_of
from chordwise.errors import UsageError
from chordwise.pipeline.learning import feedback
from chordwise.pipeline.learning.feedback import Signed
from chordwise.storage.feedback import Feedback
from chordwise.storage.results import Result

Place: TypeAlias = tuple[bool, float, str, float, str]
"""The position of a value in the queue: not `needs_review`, `result_confidence`, `result_id`, the
negated `doubt`, and `path`."""
_FEW_RESULTS, _MANY_RESULTS = 25, 10_000
_HISTORY = 10
_AROUND = 700
_MAX_EVIDENCE = 20
_MAX_FIELDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewScope:
    """The scope of a review: a run by its name, and an analysis type; empty means all."""

    run: str = ""
    analysis_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedValue:
    """A value of a result with its quote; its attributes are columns of the view `fact_quotes`."""

    path: str
    item: str
    value: str | None
    final_value: str | None
    verdict: str | None
    quote: str | None
    start_char: int | None
    end_char: int | None
    grounded: bool | None
    value_in_quote: bool | None
    place: str | None
    confidence: float | None

    @property
    def shown(self) -> str:
        """The answered value, or the text for a missing one."""
        return self.value or (NO_LABEL if self.path in label_paths() else "not mentioned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The text around a quote; without a quote it is the beginning of the document.

    `start_char` is where `before` begins in the document.
    """

    start_char: int
    before: str
    quote: str
    after: str
    is_start: bool
    is_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """A value to decide on, or a whole answer, which has no `value` and an empty path.

    `others` are the other values of its field, which an approval covers as well. `choices` are the
    labels that the model could choose from. `evidence` has the quote of the value, or all quotes of
    the answer if the value has none. `reasons`, `calibrated_confidence` and `place` come from the
    queue and are empty if the value is not in it. `left` is the minimum number of values to check
    from here on; it is exact if `is_all` is set.
    """

    run: str
    source: str
    analysis_type: str
    job_id: uuid.UUID
    result_id: uuid.UUID
    document_id: uuid.UUID
    path: str
    value: ReviewedValue | None
    confidence: float
    agreement: float | None
    review_reason: str | None
    output: JsonObject
    choices: Sequence[str]
    others: Sequence[ReviewedValue]
    evidence: Sequence[ReviewedValue]
    excerpt: Excerpt
    reasons: Sequence[str] = ()
    calibrated_confidence: float | None = None
    place: Place | None = None
    left: int = 0
    is_all: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A person's verdict on a value or an answer (`name`), and its withdrawal, if any."""

    feedback_id: uuid.UUID
    job_id: uuid.UUID
    path: str
    run: str
    source: str
    name: str
    verdict: str
    judged: str
    corrected: str
    quote: str | None
    author: str | None
    created_at: datetime
    withdrawn_by: str | None
    withdrawn_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """A result in the table, with the values of each field by name."""

    run: str
    source: str
    analysis_type: str
    document_id: uuid.UUID
    job_id: uuid.UUID
    result_id: uuid.UUID
    needs_review: bool
    confidence: float
    cells: dict[str, list[ReviewedValue]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewTable:
    """Documents by fields, with at most the requested rows; `after` is the key of the next page."""

    fields: Sequence[str]
    rows: Sequence[TableRow]
    after: Place | None


_OF_ROW = [name for name in TableRow.__dataclass_fields__ if name != "cells"]
# An index has the results in this order; the queue is then queried for a few of them. The planner
# cannot estimate how few values the queue has, and would not use the index for one joined query.
_RESULTS = f"""
    SELECT {", ".join(f"q.{name}" for name in _OF_ROW)}
    FROM document_results AS q
    WHERE TRUE {{narrowing}}
    ORDER BY NOT q.needs_review, q.confidence, q.result_id
    LIMIT :most"""  # noqa: S608 - names of our own
_AFTER = """
    AND (NOT q.needs_review, q.confidence, q.result_id)
        {comparison} (:fine, :confidence, CAST(:result AS uuid))"""
_NEXT = """
    SELECT q.job_id, q.reasons, q.calibrated_confidence, NOT q.needs_review AS fine,
        q.result_confidence, q.result_id::text, (-q.doubt)::double precision AS doubt, q.path,
        count(*) OVER () AS here
    FROM review_queue AS q
    WHERE q.result_id = ANY(:ids) {continued}
    ORDER BY NOT q.needs_review, q.result_confidence, q.result_id, -q.doubt, q.path
    LIMIT 1"""
_CONTINUED = """
    AND (NOT q.needs_review, q.result_confidence, q.result_id, -q.doubt, q.path)
        > (:fine, :confidence, CAST(:result AS uuid), CAST(:doubt AS numeric), :path)"""
_PLACE = ("fine", "confidence", "result", "doubt", "path")


def next_item(
    session: Session, scope: ReviewScope, after: Place | None = None
) -> ReviewItem | None:
    """Return the first value of the queue, or the first after a position; `None` at the end."""
    start, limit = after, _FEW_RESULTS
    while True:
        found = _results(session, scope, limit, start, comparison=">=")
        asked: dict[str, object] = {"ids": [row.result_id for row in found]}
        if after is not None:
            asked |= dict(zip(_PLACE, after, strict=True))
        statement = text(_NEXT.format(continued=_CONTINUED if after else ""))
        queued = session.execute(statement, asked).one_or_none()
        if queued is not None:
            job_id, reasons, calibrated, *place, left = queued
            return replace(
                review_item(session, job_id, queued.path),
                reasons=reasons,
                calibrated_confidence=calibrated,
                place=place_of(place),
                left=left,
                is_all=len(found) < limit,
            )
        if len(found) < limit:
            return None
        start, limit = _place_of_row(found[-1]), min(2 * limit, _MANY_RESULTS)


def _results(
    session: Session, scope: ReviewScope, limit: int, after: Place | None, *, comparison: str
) -> list[TableRow]:
    """Return results in the order of the queue; unused conditions are left out of the statement."""
    asked: dict[str, object] = {
        name: getattr(scope, name) for name in ("run", "analysis_type") if getattr(scope, name)
    }
    narrowing = "".join(f" AND q.{name} = :{name}" for name in asked)
    if after is not None:
        narrowing += _AFTER.format(comparison=comparison)
        asked |= dict(zip(_PLACE[:3], after[:3], strict=True))
    statement = text(_RESULTS.format(narrowing=narrowing))
    rows = session.execute(statement, {**asked, "most": limit}).mappings()
    return [TableRow(**row) for row in rows]


def _place_of_row(row: TableRow) -> Place:
    return not row.needs_review, row.confidence, str(row.result_id), 0.0, ""


def place_of(key: Sequence[object]) -> Place | None:
    """Return the position in the queue with this key; `None` for an empty key.

    Raises:
        UsageError: The key is invalid.
    """
    match list(key):
        case []:
            return None
        case [bool() as fine, int() | float() as confidence, str() as result, doubt, str() as path]:
            with suppress(ValueError, TypeError):
                return fine, confidence, str(uuid.UUID(result)), float(str(doubt)), path
    raise UsageError("There is no such position in the queue.", "Begin with its first value.")


def decide(
    session: Session, job_id: uuid.UUID, result_id: uuid.UUID, signed: Signed
) -> Feedback | None:
    """Store a person's decision and return it; `None` if the same decision is already stored.

    Raises:
        UsageError: The result was replaced, it has no such value, or a correction is
            invalid.
    """
    target = feedback.one(session, str(job_id))
    if target.result.result_id != result_id:
        raise UsageError(
            "The document was analyzed again in the meantime.", "Review the new answer."
        )
    given = feedback.give(session, target, [signed])
    return feedback.last(session, target, signed.entered.path) if given.stored else None


_DECISIONS = text("""
    SELECT b.id AS feedback_id, b.job_id, b.path, run.name AS run, i.source,
        CASE WHEN b.path = ANY(:labels) THEN 'label'
            ELSE coalesce(b.field, nullif(b.path, ''), b.analysis_type) END AS name,
        b.verdict, b.judged, b.corrected, b.quote, b.author, b.created_at,
        w.author AS withdrawn_by, w.created_at AS withdrawn_at
    FROM feedback AS b
    INNER JOIN jobs AS j ON j.id = b.job_id
    INNER JOIN runs AS run ON run.id = j.run_id
    INNER JOIN intakes AS i ON i.id = j.intake_id
    LEFT JOIN feedback AS w ON w.withdraws = b.id
    WHERE b.withdraws IS NULL
    ORDER BY b.created_at DESC, b.id DESC
    LIMIT :most""")


def decisions(session: Session) -> Sequence[Decision]:
    """Return the last ten decisions, the latest first, including withdrawn ones."""
    known = {"most": _HISTORY, "labels": label_paths()}
    rows = session.execute(_DECISIONS, known).mappings()
    return [
        Decision(
            **{**row, "judged": _written(row["judged"]), "corrected": _written(row["corrected"])}
        )
        for row in rows
    ]


def _written(value: JsonValue) -> str:
    """Return the judged or corrected value as one text."""
    said = value if isinstance(value, list) else [value]
    texts = [text_of(each) or json.dumps(each, ensure_ascii=False) for each in said if each]
    return ", ".join(texts) or "none"


_RESULT = text("""
    SELECT r.run, r.source, r.analysis_type, r.result_id, r.document_id, r.output, r.confidence,
        r.agreement, r.review_reason, j.options
    FROM document_results AS r INNER JOIN jobs AS j ON j.id = r.job_id
    WHERE r.job_id = :job_id""")
_OF_VALUE = ", ".join(ReviewedValue.__dataclass_fields__)
_VALUES = text(f"""
    SELECT job_id, {_OF_VALUE} FROM fact_quotes
    WHERE job_id = ANY(:ids) AND (parent IS NULL OR NOT :is_flat)
    ORDER BY job_id, start_char NULLS LAST, path""")  # noqa: S608 - names of our own
_OF_RESULT = (
    *("run", "source", "analysis_type", "result_id", "document_id", "output"),
    *("agreement", "review_reason"),
)


def review_item(session: Session, job_id: uuid.UUID, path: str) -> ReviewItem:
    """Return the value at a path, whether it is in the queue or not.

    Raises:
        UsageError: The result does not exist, or it has no such value.
    """
    result = session.execute(_RESULT, {"job_id": job_id}).one_or_none()
    if result is None:
        raise UsageError("There is no such result.", "It may have been deleted.")
    found = _values(session, [job_id], is_flat=False)[job_id]
    at = [each for each in found if each.path == path or each.path.startswith(f"{path}/")]
    if path and not at:
        raise UsageError("The answer has no such value any more.", "Continue with the queue.")
    own = _value(result.output, path, at) if path else None
    evidence = [each for each in at if each.quote] or [each for each in found if each.quote]
    return ReviewItem(
        **{name: getattr(result, name) for name in _OF_RESULT},
        job_id=job_id,
        path=path,
        value=own,
        confidence=result.confidence if own is None or own.confidence is None else own.confidence,
        choices=_choices(result.analysis_type, result.options),
        others=_others(found, own),
        evidence=evidence[:_MAX_EVIDENCE],
        excerpt=_excerpt(session, result.document_id, evidence),
    )


def _value(output: JsonObject, path: str, at: Sequence[ReviewedValue]) -> ReviewedValue:
    """Return the value at a path, which may be a list or an object with values in it."""
    first = at[0]
    if first.path == path:
        return first
    whole = json.dumps(json_values.at(output, path), ensure_ascii=False)
    item = ".".join(json_values.steps(path)[1:])
    return replace(first, path=path, item=item, value=whole, final_value=whole, verdict=None)


def _values(
    session: Session, job_ids: Sequence[uuid.UUID], *, is_flat: bool
) -> dict[uuid.UUID, list[ReviewedValue]]:
    """Return the values of results by job, without those of table rows if `is_flat` is set."""
    found: dict[uuid.UUID, list[ReviewedValue]] = {job_id: [] for job_id in job_ids}
    asked = {"ids": list(job_ids), "is_flat": is_flat}
    for job_id, *columns in session.execute(_VALUES, asked):
        named = dict(zip(ReviewedValue.__dataclass_fields__, columns, strict=True))
        found[job_id].append(ReviewedValue(**named))
    return found


def _others(found: Sequence[ReviewedValue], own: ReviewedValue | None) -> Sequence[ReviewedValue]:
    """Return the other values of an item of an extraction; fields of a schema have one each."""
    if own is None or not own.path.startswith("/fields/"):
        return ()
    return [each for each in found if each.item == own.item and each is not own]


def _choices(kind: str, options: JsonObject) -> Sequence[str]:
    analysis = analysis_for(kind)
    labels = analysis.labels(options_from(options))
    return [*labels, NO_LABEL] if labels and analysis.nullable_path else labels


# If quotes are far apart, the first is shown; without quotes, the beginning of the document.
_TEXT = text("""
    SELECT
        substr(text, greatest(:start - :around, 0) + 1, least(:around, :start)),
        substr(text, :start + 1, :end - :start),
        substr(text, :end + 1, :around),
        :start <= :around, :end + :around >= character_count
    FROM documents WHERE id = :document_id""")


def _excerpt(
    session: Session, document_id: uuid.UUID, evidence: Sequence[ReviewedValue]
) -> Excerpt:
    start, end = next(
        ((each.start_char or 0, each.end_char or 0) for each in evidence if each.grounded), (0, 0)
    )
    around = _AROUND if end else 2 * _AROUND
    asked = {"start": start, "end": end, "around": around, "document_id": document_id}
    before, quote, after, is_start, is_end = session.execute(_TEXT, asked).one()
    return Excerpt(
        start_char=max(0, start - around),
        before=before,
        quote=quote,
        after=after,
        is_start=is_start,
        is_end=is_end,
    )


def table(
    session: Session, scope: ReviewScope, limit: int, after: Place | None = None
) -> ReviewTable:
    """Return the first results in the order of the queue, or those after one of them.

    Results without values to check are included; values are those of labels and fields.
    """
    found = _results(session, scope, limit + 1, after, comparison=">")
    rows = found[:limit]
    values = _values(session, [row.job_id for row in rows], is_flat=True)
    for row in rows:
        row.cells.update(_cells(row.analysis_type, values[row.job_id]))
    names = list(dict.fromkeys(name for row in rows for name in row.cells))
    is_whole = len(found) <= limit
    after = None if is_whole else _place_of_row(rows[-1])
    return ReviewTable(fields=names[:_MAX_FIELDS], rows=rows, after=after)


def cell(session: Session, job_id: uuid.UUID, name: str) -> Sequence[ReviewedValue]:
    """Return the values of a field of one result, as in the table; empty if the result is gone."""
    result = session.scalars(select(Result).where(Result.job_id == job_id)).one_or_none()
    if result is None:
        return ()
    found = _values(session, [job_id], is_flat=True)[job_id]
    return _cells(result.analysis_type, found).get(name, ())


def _cells(kind: str, values: Sequence[ReviewedValue]) -> dict[str, list[ReviewedValue]]:
    label = analysis_for(kind).label_path
    found: dict[str, list[ReviewedValue]] = {}
    for each in sorted(values, key=lambda value: value.path):
        if each.path == label or each.path.startswith(("/fields/", "/data/")):
            found.setdefault("label" if label else each.item, []).append(each)
    return found
