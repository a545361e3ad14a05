"""The values that a person should check, one after another, and the decisions.

The view `review_queue` defines the values to check and their order.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

from psycopg import Connection

from chordwise.domain import json_values
from chordwise.domain.analysis import NO_LABEL, analysis_for, label_paths
from chordwise.domain.analysis_tasks import options_from
from chordwise.domain.extractive.extraction import SearchableText, item_of
from chordwise.domain.facts import DATA
from chordwise.domain.json_values import JsonObject, text_of
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.errors import UsageError
from chordwise.relations.relation import Relation, Row, Values, rows
from chordwise.relations.results import ABSENCES, CONTRADICTIONS

Place: TypeAlias = tuple[bool, float, str, str]
"""The position of a cell in the queue: not `blocks_certificate`, the negated `doubt`, `result_id`,
and `path`."""
_PLACE = ("is_free", "doubt", "result", "path")
_HISTORY = 10
_AROUND = 700
_MAX_EVIDENCE = 20
_NEAREST = 3

_OF_SCOPE = {name: f"q.{name} = %({name})s" for name in ("run", "saved_as", "analysis_type")}
_ORDER = "NOT q.blocks_certificate, -q.doubt, q.result_id, q.path"
QUEUE = Relation(
    query="""SELECT
    q.job_id, q.path, q.reasons, q.calibrated_confidence, NOT q.blocks_certificate AS is_free,
    (-q.doubt)::double precision AS doubt, q.result_id::text AS result,
    count(*) OVER () AS remaining
FROM review_queue AS q""",
    filters={
        **_OF_SCOPE,
        "result": f"""({_ORDER}) > (
    %(is_free)s, %(doubt)s::numeric, %(result)s::uuid, %(path)s
)""",
    },
    order=_ORDER,
)
"""The cells to check, those that block a certificate first, then the most doubtful ones."""
CELLS = Relation(
    query="""SELECT
    q.source, q.item, q.value, q.quote, q.reasons, q.doubt, q.blocks_certificate, q.run,
    q.analysis_type, q.job_id, q.path
FROM review_queue AS q""",
    filters=_OF_SCOPE,
    order=_ORDER,
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
    r.agreement, r.review_reason, a.reasons, j.options
FROM document_results AS r
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN answer_trust AS a ON a.job_id = r.job_id""",
    filters={"job_id": "r.job_id = %(job_id)s"},
)
VALUES = Relation(
    query="""SELECT
    path, item, value, final_value, verdict, quote, start_char, end_char, grounded,
    value_in_quote, place, confidence, trust, reasons, coalesce(
        nullif(value, ''),
        CASE WHEN path = ANY(%(labels)s) THEN %(no_label)s ELSE 'not mentioned' END
    ) AS shown
FROM fact_quotes""",
    filters={
        "job_id": "job_id = %(job_id)s",
        "of_item": "item = %(of_item)s",
        "after": "path > %(after)s",
    },
    order="start_char NULLS LAST, path",
)
_NO_VALUE = dict.fromkeys(
    (
        *("value", "final_value", "verdict", "quote", "start_char", "end_char", "grounded"),
        *("value_in_quote", "place", "confidence", "trust", "reasons"),
    )
)
_EXCERPT = """SELECT
    first AS start_char, first = 0 AS is_start, last >= character_count AS is_end,
    substr(text, first + 1, start - first) AS before,
    substr(text, start + 1, stop - start) AS quote,
    substr(text, stop + 1, last - stop) AS after
FROM documents, (VALUES (%(first)s::int, %(start)s::int, %(stop)s::int, %(last)s::int))
    AS span (first, start, stop, last)
WHERE id = %(document_id)s"""
# Splitting a longer text into sentences would take more than a second.
_SEARCHED = "SELECT left(text, 500000) AS text FROM documents WHERE id = %(document_id)s"


def queued(
    connection: Connection, scope: Values, after: Place | None = None, limit: int = 1
) -> list[Row]:
    """Return the first cells of the queue, or the first ones after a position.

    The scope is a `run`, a table (`saved_as`) and an `analysis_type`, if given. A cell has its
    `place` in the queue, and `left`, the number of cells to check from there on.
    """
    position = dict(zip(_PLACE, after, strict=True)) if after else {}
    cells = QUEUE.read(connection, {**scope, **position}, limit=limit)
    return [
        {**cell, "place": tuple(cell[name] for name in _PLACE), "left": cell["remaining"] - index}
        for index, cell in enumerate(cells)
    ]


def question_about(connection: Connection, cell: Row) -> Row:
    """Return the row of `item` for a cell of the queue, with what the queue knows of it.

    Raises:
        UsageError: The answer was replaced meanwhile.
    """
    of_queue = ("reasons", "calibrated_confidence", "place", "left")
    question = item(connection, cell["job_id"], cell["path"])
    return {**question, **{name: cell[name] for name in of_queue}}


def next_item(connection: Connection, scope: Values, after: Place | None = None) -> Row | None:
    """Return the question about the first cell of `queued`; `None` if there is none."""
    cells = queued(connection, scope, after)
    return question_about(connection, cells[0]) if cells else None


def place_of(key: Sequence[object]) -> Place | None:
    """Return the position in the queue with this key; `None` for an empty key.

    Raises:
        UsageError: The key is invalid.
    """
    match list(key):
        case []:
            return None
        case [bool() as is_free, int() | float() as doubt, str() as result, str() as path]:
            with suppress(ValueError, OverflowError):
                return is_free, float(doubt), str(uuid.UUID(result)), path
    raise UsageError("There is no such position in the queue.", "Begin with its first value.")


def decisions(connection: Connection) -> Sequence[Row]:
    """Return the last ten decisions, the latest first, including withdrawn ones."""
    last = DECISIONS.read(
        connection, {"labels": list(label_paths())}, where=["b.withdraws IS NULL"], limit=_HISTORY
    )
    for row in last:
        for name in ("judged", "corrected"):
            values = [value for value in json_values.listed(row[name]) if value]
            texts = [text_of(value) or json.dumps(value, ensure_ascii=False) for value in values]
            row[name] = ", ".join(texts) or "none"
    return last


def item(connection: Connection, job_id: uuid.UUID, path: str) -> Row:
    """Return the value at a path to decide on, or the whole answer, which has no `value`.

    `others` are the other values of its field, which an approval covers as well. `evidence` has the
    quote of the value, or all quotes of the answer if the value has none; `excerpt` is the text
    around the first. `passages` are those nearest to a value that the answer does not have.
    `accounts` are sentences about other values of chunks, and about absent values.

    Raises:
        UsageError: The result does not exist, or it has no such value.
    """
    answers = ANSWERS.read(connection, {"job_id": job_id})
    if not answers:
        raise UsageError("There is no such result.", "It may have been deleted.")
    answer, options = answers[0], answers[0].pop("options")
    names = {"labels": list(label_paths()), "no_label": NO_LABEL}
    values = VALUES.read(connection, {"job_id": job_id, **names})
    at_path = [one for one in values if json_values.is_within(one["path"], path)]
    value = _value(answer["output"], path, at_path or [_left_out(path, options)]) if path else None
    analysis = analysis_for(answer["analysis_type"])
    choices = analysis.labels(options_from(options))
    if choices and analysis.nullable_path:
        choices = [*choices, NO_LABEL]
    others: Sequence[Row] = ()
    if value and value["path"].startswith("/fields/"):  # the fields of a schema have one value each
        others = [one for one in values if one["item"] == value["item"] and one is not value]
    passages: list[Row] = []
    if value and value["value"] is None and not choices:
        passages = _passages(connection, answer["document_id"], value["item"])
    quoted = [one for one in at_path if one["quote"]]
    quoted = quoted or passages or [one for one in values if one["quote"]]
    claim = value["confidence"] if value else None
    about_field = {"job_id": job_id, "field": value["item"] if value else ""}
    accounts = [
        row["sentence"]
        for query in (CONTRADICTIONS, ABSENCES)
        for row in rows(connection, query, about_field)
    ]
    return {
        **answer,
        "path": path,
        "value": value,
        "confidence": answer["confidence"] if claim is None else claim,
        "choices": choices,
        "others": others,
        "is_prose": analysis.is_prose,
        "evidence": [] if passages else quoted[:_MAX_EVIDENCE],
        "passages": passages,
        "accounts": accounts,
        "excerpt": _excerpt(connection, answer["document_id"], quoted),
        "reasons": (value["reasons"] if value else answer["reasons"]) or (),
        "calibrated_confidence": None,
        "place": None,
        "left": 0,
    }


def _left_out(path: str, options: JsonObject) -> Row:
    """Return a value that the answer does not have, although the question's schema asks for it."""
    schema, steps = options_from(options).schema, json_values.steps(path)
    below = path.removeprefix(DATA.path)
    if schema is None or below == path or not SchemaNode.root_of(schema).at(below).is_known:
        raise UsageError("The answer has no such value any more.", "Continue with the queue.")
    name = ".".join(step for step in steps[1:] if not step.isdecimal())
    return {**_NO_VALUE, "path": path, "item": name, "shown": "not mentioned"}


def _value(output: JsonObject, path: str, at_path: Sequence[Row]) -> Row:
    """Return the value at a path, which may be a list or an object with values in it."""
    first = at_path[0]
    if first["path"] == path:
        return first
    whole = json.dumps(json_values.at(output, path), ensure_ascii=False)
    name = ".".join(json_values.steps(path)[1:])
    texts = dict.fromkeys(("value", "final_value", "shown"), whole)
    return {**first, **texts, "path": path, "item": name, "verdict": None}


def _passages(connection: Connection, document_id: uuid.UUID, name: str) -> list[Row]:
    (document,) = rows(connection, _SEARCHED, {"document_id": document_id})
    nearest = SearchableText(document["text"]).passages(item_of(name.rpartition(".")[2]), _NEAREST)
    return [
        {
            "text": passage.text,
            "start_char": passage.start_char,
            "end_char": passage.start_char + len(passage.text),
            "grounded": True,
        }
        for passage in nearest
    ]


def _excerpt(connection: Connection, document_id: uuid.UUID, quoted: Sequence[Row]) -> Row:
    spans = (
        (value["start_char"] or 0, value["end_char"] or 0) for value in quoted if value["grounded"]
    )
    start, end = next(spans, (0, 0))
    around = _AROUND if end else 2 * _AROUND
    span = {"first": max(0, start - around), "start": start, "stop": end, "last": end + around}
    return rows(connection, _EXCERPT, {**span, "document_id": document_id})[0]
