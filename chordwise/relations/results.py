"""Stored results: by run, type and document, and as a searched and sorted list."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias

from psycopg import Connection

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.identifiers import first_id
from chordwise.domain.json_values import USER_DATA
from chordwise.relations.relation import Relation, Row, Values, literal, rows
from chordwise.storage.sql_text import words_of

_NAMED = """(
    strpos(lower({intake}.source), lower(%(document)s)) > 0
    OR strpos(lower(d.title), lower(%(document)s)) > 0
    OR d.id::text = %(document)s
)"""
# A newer matching result answers the same question; evaluated for each result, so that the newest
# ones are found without reading the others.
_IS_NEWEST = """NOT EXISTS (
    SELECT FROM results AS newer
    INNER JOIN jobs AS again ON again.id = newer.job_id
    {join}
    WHERE newer.id > r.id AND again.document_id = j.document_id
        AND again.options_hash = j.options_hash
        AND NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = again.run_id)
        {is_named}
) AND NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = j.run_id)"""
FROM = """FROM results AS r
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
INNER JOIN documents AS d ON d.id = r.document_id"""
RESULTS = Relation(
    query=f"""SELECT
    run.name AS run, i.source, d.title, r.document_id, r.job_id, r.id AS result_id,
    r.analysis_type, j.status,
    coalesce(r.corrected_output, r.output) AS output,
    r.corrected_output IS NOT NULL AS corrected,
    r.nothing_found, r.confidence, r.quality, r.coverage, r.agreement, r.critique, r.needs_review,
    CASE WHEN r.needs_review
        THEN nullif(concat_ws(' ', i.message, r.review_reason), '') END AS review_reason,
    d.flags, d.transcribed_by, r.failed_chunks, r.missing_rows, r.row_counts, r.failed_checks,
    r.provider, r.model, r.language_model, r.prompt_version,
    j.reused_from IS NOT NULL AS reused, r.created_at
{FROM}""",
    filters={
        "run_id": "j.run_id = %(run_id)s",
        "types": "r.analysis_type = ANY(%(types)s)",
        "document": _NAMED.format(intake="i"),
        "job_ids": "r.job_id = ANY(%(job_ids)s)",
        "needs_review": "r.needs_review",
    },
    order="r.id DESC",
)
_ASKED = Relation(
    query="""SELECT j.id AS job_id,
    ARRAY(SELECT json_object_keys(j.options #> '{schema,properties}')) AS names
FROM jobs AS j""",
    filters={
        "job_ids": "j.id = ANY(%(job_ids)s)"
        " AND json_typeof(j.options #> '{schema,properties}') = 'object'"
    },
    order="j.id",
)
_IDS = Relation(query=f"SELECT r.id, r.job_id {FROM}", filters=RESULTS.filters)
MAX_COUNTED = 10_000
"""The number up to which results are counted exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSelection:
    """The results to read; a value that is `None` or empty does not filter.

    `document` is a substring of a source or title, or a document's id. Without a run, only the
    newest of several answers to the same question about the same document is read, and none that
    was asked only for a comparison (`experiments.run_id`), unless `every_answer` is set.
    """

    run_id: uuid.UUID | None = None
    types: tuple[AnalysisType, ...] = ()
    document: str = ""
    job_ids: tuple[uuid.UUID, ...] | None = None
    needs_review: bool = False
    every_answer: bool = False

    @property
    def values(self) -> Values:
        """The values of the filters of `RESULTS`."""
        return {
            "run_id": self.run_id,
            "types": [str(kind) for kind in self.types] or None,
            "document": self.document,
            "job_ids": None if self.job_ids is None else list(self.job_ids),
            "needs_review": self.needs_review or None,
        }

    @property
    def where(self) -> Sequence[str]:
        """The condition that only the newest answers match, if any."""
        if self.run_id is not None or self.every_answer:
            return ()
        join, is_named = "", ""
        if self.document:
            join = "INNER JOIN intakes AS seen ON seen.id = again.intake_id"
            is_named = f"AND {_NAMED.format(intake='seen')}"
        return (_IS_NEWEST.format(join=join, is_named=is_named),)


def read(
    connection: Connection, selection: ResultSelection, limit: int | None = None
) -> Sequence[Row]:
    """Return the results of a run in the order of its intake; other results newest first.

    The data of an extraction have the order of the schema, which the database does not keep.
    """
    order = "j.id" if selection.run_id else "r.id DESC"
    results = RESULTS.read(
        connection, selection.values, where=selection.where, order=order, limit=limit
    )
    with_data = {row["job_id"]: row["output"] for row in results if USER_DATA in row["output"]}
    for row in _ASKED.read(connection, {"job_ids": list(with_data)}) if with_data else ():
        output = with_data[row["job_id"]]
        if isinstance(data := output[USER_DATA], dict):
            output[USER_DATA] = {name: data[name] for name in row["names"] if name in data} | data
    return results


def count(connection: Connection, selection: ResultSelection, limit: int | None = None) -> int:
    """Return the number of results; counting stops at `limit`."""
    return _IDS.count(connection, selection.values, where=selection.where, limit=limit)


def count_in_words(connection: Connection, selection: ResultSelection, shown: int) -> str:
    """Return the number of results as text; above `MAX_COUNTED` and `shown`, “more than” that."""
    limit = max(MAX_COUNTED, shown)
    results = count(connection, selection, limit + 1)
    return f"more than {limit:,}" if results > limit else f"{results:,}"


def ids(connection: Connection, selection: ResultSelection) -> list[uuid.UUID]:
    """Return the ids of these results."""
    matching = _IDS.read(connection, selection.values, where=selection.where)
    return [row["id"] for row in matching]


def job_ids(connection: Connection, selection: ResultSelection) -> list[uuid.UUID]:
    """Return the jobs of these results, in the order of the intake of a run, else newest first."""
    order = "j.id" if selection.run_id else "j.id DESC"
    matching = _IDS.read(connection, selection.values, where=selection.where, order=order)
    return [row["job_id"] for row in matching]


_STATES = Relation(
    query="""SELECT job_id, field, trust FROM (
    SELECT job_id, trust, coalesce(substring(path FROM '^/data(/[^/]*)'), item) AS field
    FROM fact_trust
) AS t""",
    filters={"job_ids": "job_id = ANY(%(job_ids)s)"},
    order="trust DESC",
)


def states(
    connection: Connection, job_ids: Sequence[uuid.UUID]
) -> Mapping[tuple[uuid.UUID, str], str]:
    """Return the state of each field of these jobs, by its item or JSON Pointer.

    It is the first state that any of its values has.
    """
    values = _STATES.read(connection, {"job_ids": list(job_ids)}) if job_ids else []
    return {(row["job_id"], row["field"]): row["trust"] for row in values}


CONTRADICTIONS = """SELECT *, concat(
    field, ': ', left(kept_value, 100), ' was kept (', kept_because, '); another chunk has ',
    left(other_value, 100), ', as in “' || left(other_quote, 200) || '”', ', ' || other_place
) AS sentence
FROM contradictions
WHERE job_id = %(job_id)s AND field = coalesce(%(field)s, field)
ORDER BY kept_start_char, path, other_start_char"""
"""The other values of the chunks of a job, of all fields or of one."""
ABSENCES = """SELECT concat(
    CASE WHEN NOT bool_or(trust = 'unread') THEN 'Not mentioned: '
        WHEN is_read THEN 'Not found without a language model: '
        ELSE 'Not all was read for: ' END,
    string_agg(field, ', ' ORDER BY path),
    '; read: ' || to_char(characters_read, 'FM999,999,999,990') || ' of '
        || to_char(character_count, 'FM999,999,999,990') || ' characters in '
        || answered_chunks || ' of ' || chunk_count || ' chunks',
    '; ' || nullif(votes, 1) || ' votes agree to ' || round(min(agreement)::numeric * 100) || ' %%'
) AS sentence
FROM absences, LATERAL (SELECT is_read FROM answer_trust WHERE job_id = %(job_id)s) AS a
WHERE job_id = %(job_id)s AND field = coalesce(%(field)s, field)
GROUP BY trust = 'unread', is_read, characters_read, character_count, answered_chunks, chunk_count,
    votes
ORDER BY 1"""
"""What was read for the fields that the answer of a job does not have, or for one of them."""
FACTS = Relation(
    query="""SELECT f.*, t.trust, t.reasons
FROM facts AS f LEFT JOIN fact_trust AS t ON t.fact_id = f.id""",
    filters={"job_ids": "f.job_id = ANY(%(job_ids)s)"},
    order="f.id",
)


class ResultOrder(StrEnum):
    """The order of a list, as SQL."""

    NEWEST = "r.result_id DESC"
    OLDEST = "r.result_id"
    LEAST_CONFIDENT = "r.confidence, r.result_id"
    MOST_CONFIDENT = "r.confidence DESC, r.result_id DESC"


_FOLLOWS = {
    ResultOrder.NEWEST: "r.result_id < %(after_id)s",
    ResultOrder.OLDEST: "r.result_id > %(after_id)s",
    ResultOrder.LEAST_CONFIDENT: "(r.confidence, r.result_id) > (%(after)s, %(after_id)s)",
    ResultOrder.MOST_CONFIDENT: "(r.confidence, r.result_id) < (%(after)s, %(after_id)s)",
}
_WRITTEN_IN = ("run", "saved_as")
LISTED = Relation(
    query="""SELECT
    r.run, r.source, r.title, r.analysis_type, r.status, r.label, r.confidence, r.quality,
    r.coverage, r.grounded, r.needs_review, r.corrected, r.nothing_found, r.output, r.provider,
    r.model, r.created_at, r.document_id, r.job_id, r.result_id
FROM document_results AS r""",
    filters={
        **{
            name: f"r.{name} = %({name})s"
            for name in (*_WRITTEN_IN, "analysis_type", "status", "label", "grounded")
        },
        "needs_review": "r.needs_review = %(needs_review)s",
        "min_confidence": "r.confidence >= %(min_confidence)s",
        "max_confidence": "r.confidence <= %(max_confidence)s",
        "document": "strpos(lower(r.source), lower(%(document)s)) > 0",
    },
    order=ResultOrder.NEWEST,
)
"""The list of the page of results, in the columns of the view `document_results`.

`words` are searched in the documents and in the values of the answers, with the syntax of a
search engine: all words, `"a phrase"`, `or`, `-without`.
"""


def listed_sql(values: Values, order: ResultOrder) -> str:
    """Return the complete statement of a list, for `chordwise sql` and exports."""
    return literal(_searched(LISTED, values).statement(values, _mentioning(values), order), values)


Mark: TypeAlias = tuple[float, uuid.UUID]
"""The confidence and the id of the result after which a page begins."""


def listed(
    connection: Connection,
    values: Values,
    order: ResultOrder,
    limit: int,
    after: Mark | None = None,
) -> Sequence[Row]:
    """Return the first results of a list, or the first ones after a row."""
    statement, values = page(connection, values, order, limit, after)
    return rows(connection, statement, values) if statement else []


def page(
    connection: Connection,
    values: Values,
    order: ResultOrder,
    limit: int,
    after: Mark | None = None,
) -> tuple[str, Values]:
    """Return the statement of `listed` and its values; it is empty if no run matches."""
    where, values = _narrowed(connection, values)
    if where is None:
        return "", values
    if after is not None:
        values = {**values, "after": after[0], "after_id": after[1]}
        where = [*where, _FOLLOWS[order]]
    return _searched(LISTED, values).statement(values, where, order, limit), values


def count_listed(connection: Connection, values: Values, limit: int) -> int:
    """Return the number of results of a list, at most `limit`."""
    where, values = _narrowed(connection, values)
    if where is None:
        return 0
    return _searched(LISTED, values).count(connection, values, where=where, limit=limit)


def choices(connection: Connection) -> dict[str, list[str]]:
    """Return the values of the newest thousand results in the columns for filters."""
    names = (*_WRITTEN_IN, "label")
    newest = LISTED.query.partition("FROM")[2]
    statement = f"SELECT {', '.join(names)} FROM {newest} ORDER BY r.result_id DESC LIMIT 1000"
    results = rows(connection, statement)
    return {
        name: list(dict.fromkeys(str(row[name]) for row in results if row[name] is not None))
        for name in names
    }


_MAX_RARE = 1_000
# The maximum difference between the clocks that set ids and the ends of runs.
_CLOCKS_DIFFER = timedelta(hours=1)


def _narrowed(connection: Connection, values: Values) -> tuple[list[str] | None, Values]:
    """Return the conditions and values for a part of a list; `None` if there is no matching run.

    Planner options that favor the first few rows are set until the end of the transaction.
    """
    # Parallel workers would read more rows than the few that are needed.
    connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
    where = [*_mentioning(values)]
    if values.get("words"):  # the planner would read and sort all results
        connection.execute("SET LOCAL enable_seqscan = off")
        result_ids = _rare(connection, values)
        if result_ids is not None:
            where.append("r.result_id = ANY(%(rare)s)")
            values = {**values, "rare": result_ids}
    if any(values.get(name) for name in _WRITTEN_IN):
        span = _span(connection, values)
        if span is None:
            return None, values
        where += span
    return where, values


def _rare(connection: Connection, values: Values) -> list[uuid.UUID] | None:
    """Return the results with the words, if few texts contain them.

    Otherwise PostgreSQL would read the other results too, in the order of the list.
    """
    result_ids = set[uuid.UUID]()
    for name, matching, _ in _mentions(values):
        few = [row["id"] for row in rows(connection, f"{matching} LIMIT {_MAX_RARE + 1}", values)]
        if len(few) > _MAX_RARE:
            return None
        of_few = f"SELECT id FROM results WHERE {name} = ANY(%(few)s)"
        result_ids.update(row["id"] for row in rows(connection, of_few, {"few": few}))
    return list(result_ids)


def _span(connection: Connection, values: Values) -> list[str] | None:
    """Return the conditions that limit results to the time of the runs; `None` without a run.

    The ids of results ascend with time. Without these conditions, the results of all other runs
    would be read to find those of one.
    """
    runs = Relation(
        query="""SELECT min(created_at) AS begun, bool_and(finished_at IS NOT NULL) AS are_over,
    max(finished_at) AS ended
FROM runs""",
        filters={"run": "name = %(run)s", "saved_as": "saved_as = %(saved_as)s"},
    )
    span = runs.one(connection, {name: values.get(name) for name in _WRITTEN_IN})
    if span["begun"] is None:
        return None
    since = [f"r.result_id >= '{first_id(span['begun'] - _CLOCKS_DIFFER)}'"]
    if not span["are_over"]:
        return since
    return [*since, f"r.result_id < '{first_id(span['ended'] + _CLOCKS_DIFFER)}'"]


def _mentioning(values: Values) -> Sequence[str]:
    conditions = [condition for _, _, condition in _mentions(values)]
    return (f"({' OR '.join(conditions)})",) if conditions else ()


def _searched(relation: Relation, values: Values) -> Relation:
    """Return a relation with the texts that contain the words, which are searched once."""
    texts = [
        f"having_{name} AS MATERIALIZED ({matching})" for name, matching, _ in _mentions(values)
    ]
    query = f"WITH {', '.join(texts)}\n{relation.query}" if texts else relation.query
    return Relation(query=query, filters=relation.filters, order=relation.order)


def _mentions(values: Values) -> Iterator[tuple[str, str, str]]:
    """Yield where words can be: a column, the query for its values, and the condition.

    The query uses only the index, as checking a single text takes as long as searching all. The
    index does not contain the order of the words of a phrase; it is checked for each listed result.
    """
    words = str(values.get("words") or "")
    if not words:
        return
    is_phrase = '"' in words and "-" not in words
    sought = "websearch_to_tsquery('simple', %(words)s)"
    indexed = f"replace({sought}::text, '<->', '&')::tsquery" if is_phrase else sought
    for name, table, key, column in (
        ("document_id", "documents", "id", "text"),
        ("job_id", "facts", "job_id", "final_value"),
    ):
        text = words_of(f"t.{column}")
        matching = f"SELECT t.{key} AS id FROM {table} AS t WHERE {text} @@ {indexed}"
        condition = f"r.{name} IN (SELECT id FROM having_{name})"
        if is_phrase:
            in_order = f"SELECT bool_or({text} @@ {sought}) FROM {table} AS t"
            condition = f"({condition} AND ({in_order} WHERE t.{key} = r.{name}))"
        yield name, matching, condition
