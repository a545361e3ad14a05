"""The values that a person should check, one after another or as a table, and the decisions.

The view `review_queue` defines the values to check and their order.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from psycopg import Connection

from chordwise.domain import json_values
from chordwise.domain.analysis import NO_LABEL, analysis_for, label_paths
from chordwise.domain.analysis_tasks import options_from
from chordwise.domain.json_values import JsonObject, JsonValue, text_of
from chordwise.errors import UsageError
from chordwise.relations.relation import Relation, Row, Values, rows

Place: TypeAlias = tuple[bool, float, str, float, str]
"""The position of a value in the queue: not `needs_review`, `result_confidence`, `result_id`, the
negated `doubt`, and `path`."""
_PLACE = ("fine", "confidence", "result", "doubt", "path")
_FEW_RESULTS, _MANY_RESULTS = 25, 10_000
_HISTORY = 10
_AROUND = 700
_MAX_EVIDENCE = 20
_MAX_FIELDS = 40

_OF_RESULT = "(NOT q.needs_review, q.confidence, q.result_id)"
_AFTER_RESULT = f"{_OF_RESULT} {{}} (%(fine)s, %(confidence)s, %(result)s::uuid)"
# An index has the results in this order; the queue is then queried for a few of them. The planner
# cannot estimate how few values the queue has, and would not use the index for one joined query.
RESULTS = Relation(
    query="""SELECT
    q.run, q.source, q.analysis_type, q.document_id, q.job_id, q.result_id, q.needs_review,
    q.confidence
FROM document_results AS q""",
    filters={"run": "q.run = %(run)s", "analysis_type": "q.analysis_type = %(analysis_type)s"},
    order="NOT q.needs_review, q.confidence, q.result_id",
)
_OF_VALUE = "NOT q.needs_review, q.result_confidence, q.result_id, -q.doubt, q.path"
QUEUE = Relation(
    query="""SELECT
    q.job_id, q.path, q.reasons, q.calibrated_confidence, NOT q.needs_review AS fine,
    q.result_confidence AS confidence, q.result_id::text AS result,
    (-q.doubt)::double precision AS doubt, count(*) OVER () AS remaining
FROM review_queue AS q""",
    filters={
        "result_ids": "q.result_id = ANY(%(result_ids)s)",
        "result": f"""({_OF_VALUE}) > (
    %(fine)s, %(confidence)s, %(result)s::uuid, %(doubt)s::numeric, %(path)s
)""",
    },
    order=_OF_VALUE,
)
DECISIONS = Relation(
    query="""SELECT b.id AS feedback_id, b.job_id, b.path, run.name AS run, i.source,
    CASE WHEN b.path = ANY(%(labels)s) THEN 'label'
        ELSE coalesce(b.field, nullif(b.path, ''), b.analysis_type) END AS name,
    b.verdict, b.judged, b.corrected, b.quote, b.author, b.created_at,
    w.author AS withdrawn_by, w.created_at AS withdrawn_at
FROM feedback AS b
INNER JOIN jobs AS j ON j.id = b.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
LEFT JOIN feedback AS w ON w.withdraws = b.id""",
    order="b.created_at DESC, b.id DESC",
)
ANSWERS = Relation(
    query="""SELECT
    r.run, r.source, r.analysis_type, r.job_id, r.result_id, r.document_id, r.output, r.confidence,
    r.agreement, r.review_reason, j.options
FROM document_results AS r INNER JOIN jobs AS j ON j.id = r.job_id""",
    filters={"job_id": "r.job_id = %(job_id)s"},
)
VALUES = Relation(
    query="""SELECT
    job_id, path, item, value, final_value, verdict, quote, start_char, end_char, grounded,
    value_in_quote, place, confidence, coalesce(
        nullif(value, ''),
        CASE WHEN path = ANY(%(labels)s) THEN %(no_label)s ELSE 'not mentioned' END
    ) AS shown
FROM fact_quotes""",
    filters={"job_ids": "job_id = ANY(%(job_ids)s)", "is_flat": "parent IS NULL"},
    order="job_id, start_char NULLS LAST, path",
)
_EXCERPT = """SELECT
    first AS start_char, first = 0 AS is_start, last >= character_count AS is_end,
    substr(text, first + 1, start - first) AS before,
    substr(text, start + 1, stop - start) AS quote,
    substr(text, stop + 1, last - stop) AS after
FROM documents, (VALUES (%(first)s::int, %(start)s::int, %(stop)s::int, %(last)s::int))
    AS span (first, start, stop, last)
WHERE id = %(document_id)s"""


def next_item(connection: Connection, scope: Values, after: Place | None = None) -> Row | None:
    """Return the first value of the queue, or the first after a position; `None` at the end.

    The scope is a `run` and an `analysis_type`, if given. The row is that of `item`, with the
    `reasons` and the `calibrated_confidence` of the value, and its `place` in the queue. `left` is
    the minimum number of values to check from here on; it is exact if `is_all` is set.
    """
    start, limit = after, _FEW_RESULTS
    position = dict(zip(_PLACE, after, strict=True)) if after else {}
    while True:
        results = _results(connection, scope, limit, start, comparison=">=")
        result_ids = [row["result_id"] for row in results]
        is_all = len(results) < limit
        for queued in QUEUE.read(connection, {**position, "result_ids": result_ids}, limit=1):
            of_queue = {name: queued[name] for name in ("reasons", "calibrated_confidence")}
            place = place_of([queued[name] for name in _PLACE])
            question = item(connection, queued["job_id"], queued["path"])
            return {
                **question,
                **of_queue,
                "place": place,
                "left": queued["remaining"],
                "is_all": is_all,
            }
        if is_all:
            return None
        start, limit = _place_of_row(results[-1]), min(2 * limit, _MANY_RESULTS)


def _results(
    connection: Connection, scope: Values, limit: int, after: Place | None, *, comparison: str
) -> list[Row]:
    """Return results in the order of the queue."""
    where = [_AFTER_RESULT.format(comparison)] if after else []
    position = dict(zip(_PLACE, after or (), strict=False))
    return RESULTS.read(connection, {**scope, **position}, where=where, limit=limit)


def _place_of_row(row: Row) -> Place:
    return not row["needs_review"], row["confidence"], str(row["result_id"]), 0.0, ""


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


def decisions(connection: Connection) -> Sequence[Row]:
    """Return the last ten decisions, the latest first, including withdrawn ones."""
    last = DECISIONS.read(
        connection, {"labels": list(label_paths())}, where=["b.withdraws IS NULL"], limit=_HISTORY
    )
    texts = ("judged", "corrected")
    return [{**row, **{name: _written(row[name]) for name in texts}} for row in last]


def _written(value: JsonValue) -> str:
    """Return the judged or corrected value as one text."""
    values = value if isinstance(value, list) else [value]
    texts = [text_of(one) or json.dumps(one, ensure_ascii=False) for one in values if one]
    return ", ".join(texts) or "none"


def item(connection: Connection, job_id: uuid.UUID, path: str) -> Row:
    """Return the value at a path to decide on, or the whole answer, which has no `value`.

    `others` are the other values of its field, which an approval covers as well. `choices` are the
    labels that the model could choose from. `evidence` has the quote of the value, or all quotes of
    the answer if the value has none; `excerpt` is the text around the first.

    Raises:
        UsageError: The result does not exist, or it has no such value.
    """
    answers = ANSWERS.read(connection, {"job_id": job_id})
    if not answers:
        raise UsageError("There is no such result.", "It may have been deleted.")
    answer, options = answers[0], answers[0].pop("options")
    values = _values(connection, [job_id])[job_id]
    at_path = [one for one in values if json_values.is_within(one["path"], path)]
    if path and not at_path:
        raise UsageError("The answer has no such value any more.", "Continue with the queue.")
    value = _value(answer["output"], path, at_path) if path else None
    quoted = [one for one in at_path if one["quote"]] or [one for one in values if one["quote"]]
    claim = value["confidence"] if value else None
    return {
        **answer,
        "path": path,
        "value": value,
        "confidence": answer["confidence"] if claim is None else claim,
        "choices": _choices(answer["analysis_type"], options),
        "others": _others(values, value),
        "evidence": quoted[:_MAX_EVIDENCE],
        "excerpt": _excerpt(connection, answer["document_id"], quoted),
        "reasons": (),
        "calibrated_confidence": None,
        "place": None,
        "left": 0,
        "is_all": True,
    }


def _value(output: JsonObject, path: str, at_path: Sequence[Row]) -> Row:
    """Return the value at a path, which may be a list or an object with values in it."""
    first = at_path[0]
    if first["path"] == path:
        return first
    whole = json.dumps(json_values.at(output, path), ensure_ascii=False)
    name = ".".join(json_values.steps(path)[1:])
    texts = dict.fromkeys(("value", "final_value", "shown"), whole)
    return {**first, **texts, "path": path, "item": name, "verdict": None}


def _values(
    connection: Connection, job_ids: Sequence[uuid.UUID], *, is_flat: bool = False
) -> dict[uuid.UUID, list[Row]]:
    """Return the values of results by job, without those of table rows if `is_flat` is set."""
    values: dict[uuid.UUID, list[Row]] = {job_id: [] for job_id in job_ids}
    names = {"labels": list(label_paths()), "no_label": NO_LABEL}
    of_jobs = {"job_ids": list(job_ids), "is_flat": is_flat or None, **names}
    for row in VALUES.read(connection, of_jobs):
        values[row.pop("job_id")].append(row)
    return values


def _others(values: Sequence[Row], value: Row | None) -> Sequence[Row]:
    """Return the other values of an item of an extraction; fields of a schema have one each."""
    if value is None or not value["path"].startswith("/fields/"):
        return ()
    return [one for one in values if one["item"] == value["item"] and one is not value]


def _choices(kind: str, options: JsonObject) -> Sequence[str]:
    analysis = analysis_for(kind)
    labels = analysis.labels(options_from(options))
    return [*labels, NO_LABEL] if labels and analysis.nullable_path else labels


def _excerpt(connection: Connection, document_id: uuid.UUID, quoted: Sequence[Row]) -> Row:
    """Return the text around the first quote; without quotes, the beginning of the document."""
    spans = (
        (value["start_char"] or 0, value["end_char"] or 0) for value in quoted if value["grounded"]
    )
    start, end = next(spans, (0, 0))
    around = _AROUND if end else 2 * _AROUND
    span = {"first": max(0, start - around), "start": start, "stop": end, "last": end + around}
    return rows(connection, _EXCERPT, {**span, "document_id": document_id})[0]


def table(connection: Connection, scope: Values, limit: int, after: Place | None = None) -> Row:
    """Return the first results in the order of the queue, or those after one of them.

    Results without values to check are included; the `cells` of a row are the values of its label
    or `fields` by name. `after` is the position of the next page.
    """
    results = _results(connection, scope, limit + 1, after, comparison=">")
    page = results[:limit]
    values = _values(connection, [row["job_id"] for row in page], is_flat=True)
    for row in page:
        row["cells"] = _cells(row["analysis_type"], values[row["job_id"]])
    names = list(dict.fromkeys(name for row in page for name in row["cells"]))
    following = _place_of_row(page[-1]) if len(results) > limit else None
    return {"fields": names[:_MAX_FIELDS], "rows": page, "after": following}


def cell(connection: Connection, job_id: uuid.UUID, name: str) -> Sequence[Row]:
    """Return the values of a field of one result, as in the table; empty if the result is gone."""
    values = _values(connection, [job_id], is_flat=True)[job_id]
    for answer in ANSWERS.read(connection, {"job_id": job_id}):
        return _cells(answer["analysis_type"], values).get(name, ())
    return ()


def _cells(kind: str, values: Sequence[Row]) -> Mapping[str, list[Row]]:
    label = analysis_for(kind).label_path
    cells: dict[str, list[Row]] = {}
    for value in sorted(values, key=lambda one: str(one["path"])):
        if value["path"] == label or value["path"].startswith(("/fields/", "/data/")):
            cells.setdefault("label" if label else value["item"], []).append(value)
    return cells
