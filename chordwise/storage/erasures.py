"""Erasures: documents deleted from all tables, their receipts, and the search for the rest."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeAlias, cast

from sqlalchemy import Connection, CursorResult, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.domain.passages import Passages
from chordwise.domain.states import UNASKED_REQUESTS, UNDELIVERED, UNFINISHED_JOBS
from chordwise.errors import InternalError
from chordwise.storage import batches, clock
from chordwise.storage.batches import OPEN, Batch, BatchRequest
from chordwise.storage.documents import Document
from chordwise.storage.pruning import delete_jobs
from chordwise.storage.record import Identity, Record, in_ids


class Erasure(Record):
    """The receipt of a forgotten document; `sha256` is the hash of its text.

    `removed` counts rows and files, `remaining` lists places and reasons, and `copies_kept` counts
    files of inboxes. `shared_with` are documents that repeat some of the text, `passages` the
    number of passages that none of them has: these were searched for until `verified_at`.
    """

    __tablename__ = "erasures"

    id: Mapped[Identity]
    document_id: Mapped[uuid.UUID]
    sha256: Mapped[str]
    selected_by: Mapped[str]
    requested_by: Mapped[str]
    removed: Mapped[JsonObject]
    remaining: Mapped[list[JsonObject]] = mapped_column(JSONB)
    copies_kept: Mapped[int]
    shared_with: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    passages: Mapped[int | None]
    erased_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    verified_at: Mapped[datetime | None]

    def as_json(self) -> JsonObject:
        """Return the receipt for programs."""
        names = self.__mapper__.column_attrs.keys()
        return {name: json_values.as_json(getattr(self, name)) for name in names}


class ChangedDocumentError(InternalError):
    """Another process works on the document again; nothing was deleted."""


_BUSY = text("""
    SELECT j.document_id FROM jobs j WHERE j.document_id = ANY(:ids) AND (
        j.status = ANY(:unfinished) OR EXISTS (
            SELECT FROM batch_requests q JOIN batches b ON b.id = q.batch_id
            WHERE q.job_id = j.id AND b.status = ANY(:open)
        ))
    UNION SELECT i.document_id FROM intakes i
    JOIN inbox_intakes s ON s.intake_id = i.id JOIN inbox_files f ON f.id = s.inbox_file_id
    WHERE i.document_id = ANY(:ids) AND f.status = ANY(:undelivered)""")


def busy(session: Session, document_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Return the documents that are still worked on: in a job, an inbox or an open batch."""
    states = {"unfinished": UNFINISHED_JOBS, "open": OPEN, "undelivered": UNDELIVERED}
    values = {name: [state.value for state in members] for name, members in states.items()}
    return set(session.scalars(_BUSY, {"ids": list(document_ids), **values}))


# Prompts of other documents may show the text as a learned example.
_SHOWS_TEXT = """job_id IN (
        SELECT id FROM jobs WHERE document_id = :document_id OR jsonb_exists_any(examples, ARRAY(
            SELECT CAST(id AS text) FROM learned_examples WHERE document_id = :document_id)))"""
_BATCHES = text(f"SELECT batch_id FROM batch_requests WHERE {_SHOWS_TEXT}")
# Those whose rows were deleted; providers keep files of batches for a month.
_UNKNOWN_BATCHES = text("""
    SELECT count(*) FROM model_calls c JOIN jobs j ON j.id = c.job_id
    WHERE j.document_id = :document_id AND c.service_tier = 'batch' AND NOT c.cache_hit
        AND c.started_at > now() - interval '30 days'
        AND NOT EXISTS (SELECT FROM batch_requests q WHERE q.call_id = c.id)""")


def batches_of(session: Session, document_id: uuid.UUID) -> tuple[Sequence[Batch], int]:
    """Return the batches with the text, and the number of calls whose batches are not known."""
    ids = session.scalars(_BATCHES, {"document_id": document_id}).all()
    rows = session.scalars(select(Batch).where(in_ids(Batch.id, ids))).all()
    return rows, session.scalar(_UNKNOWN_BATCHES, {"document_id": document_id}) or 0


_JOBS = text("SELECT id FROM jobs WHERE document_id = :document_id ORDER BY id FOR UPDATE")
_INTAKES = text("""
    SELECT id FROM intakes WHERE document_id = :document_id
    UNION SELECT id FROM listed_files WHERE job_id = ANY(:jobs)""")
# Also those that have read pages. Locked, so that no call ends before its row is changed.
_CALLS = text("""
    SELECT id FROM model_calls WHERE id IN (
        SELECT id FROM model_calls WHERE job_id = ANY(:jobs)
        UNION SELECT c.id FROM intakes i
        JOIN model_calls c ON c.run_id = i.run_id AND c.source = i.source
        WHERE i.id = ANY(:intakes))
    ORDER BY id FOR UPDATE""")
_BEFORE_JOBS = (
    """DELETE FROM cached_completions WHERE key IN (
        SELECT question FROM model_calls WHERE id = ANY(:calls)
        UNION SELECT key FROM batch_requests WHERE job_id = ANY(:jobs))""",
    """UPDATE model_calls c SET job_id = NULL, chunk_id = NULL, source = NULL, examples = NULL,
        question = NULL, error_message = NULL,
        run_id = coalesce(c.run_id, (SELECT j.run_id FROM jobs j WHERE j.id = c.job_id))
    WHERE c.id = ANY(:calls)""",
    f"UPDATE batch_requests SET body = '' WHERE finished_at IS NOT NULL AND {_SHOWS_TEXT}",
)
_AFTER_JOBS = (
    "DELETE FROM experiment_documents WHERE document_id = :document_id",
    """UPDATE runs r SET found_count = r.found_count - gone.count FROM (
        SELECT i.run_id, sum(1 - coalesce(l.documents_taken, 0)) AS count
        FROM intakes i LEFT JOIN listed_files l ON l.id = i.id
        WHERE i.id = ANY(:intakes) GROUP BY i.run_id) AS gone
    WHERE r.id = gone.run_id""",
    """WITH gone AS (DELETE FROM inbox_intakes WHERE intake_id = ANY(:intakes) RETURNING *)
    DELETE FROM inbox_files f USING gone WHERE f.id = gone.inbox_file_id AND NOT EXISTS (
        SELECT FROM inbox_intakes o
        WHERE o.inbox_file_id = f.id AND NOT o.intake_id = ANY(:intakes))""",
    "DELETE FROM listed_files WHERE id = ANY(:intakes)",
    "DELETE FROM intakes WHERE id = ANY(:intakes)",
    "SELECT FROM documents WHERE id = :document_id FOR UPDATE",
    "DELETE FROM learned_examples WHERE document_id = :document_id",
    """DELETE FROM documents d WHERE id = :document_id
        AND NOT EXISTS (SELECT FROM jobs WHERE document_id = d.id)
        AND NOT EXISTS (SELECT FROM intakes WHERE document_id = d.id)""",
)


def erase(session: Session, document_id: uuid.UUID) -> dict[str, int]:
    """Delete a document with all its rows; return their numbers by table.

    Its calls are kept in the account of their run, without text. A call in flight is no longer of
    the document, so its end stores neither its answer nor the message of an error.

    Raises:
        ChangedDocumentError: The document is `busy`, or was taken in again.
    """
    values: dict[str, object] = {"document_id": document_id}
    job_ids = session.scalars(_JOBS, values).all()
    values["jobs"] = list(job_ids)
    values["intakes"] = list(session.scalars(_INTAKES, values))
    values["calls"] = list(session.scalars(_CALLS, values))
    if busy(session, [document_id]):
        raise ChangedDocumentError("The document is worked on.")
    unasked = in_ids(BatchRequest.job_id, job_ids) & BatchRequest.status.in_(UNASKED_REQUESTS)
    batches.remove(session, session.scalars(select(BatchRequest).where(unasked)).all())
    removed = _execute_all(session, _BEFORE_JOBS, values)
    removed.update(delete_jobs(session, job_ids))
    removed.update(_execute_all(session, _AFTER_JOBS, values))
    if not removed["documents"]:
        raise ChangedDocumentError("The document was taken in again.")
    return {table: count for table, count in removed.items() if count}


def _execute_all(
    session: Session, statements: Iterable[str], values: dict[str, object]
) -> Counter[str]:
    """Execute statements; return the numbers of deleted rows."""
    deleted: Counter[str] = Counter()
    for statement in statements:
        result = cast("CursorResult[object]", session.execute(text(statement), values))
        if "DELETE FROM" in statement:
            deleted[statement.rpartition("DELETE FROM ")[2].split()[0]] += result.rowcount
    return deleted


_GROUPED = text("""
    SELECT DISTINCT f.final_value FROM facts f JOIN jobs j ON j.id = f.job_id
    WHERE j.document_id = ANY(:ids) AND (
        f.final_value IN (SELECT value FROM entity_values)
        OR f.final_value IN (SELECT unnest(names) FROM entity_decisions))""")
_HELD = text("""
    SELECT DISTINCT f.final_value FROM facts f JOIN jobs j ON j.id = f.job_id
    WHERE f.final_value = ANY(:values) AND NOT j.document_id = ANY(:ids)""")
_NAMING = "SELECT id FROM entity_decisions WHERE names && CAST(:values AS text[])"
# Values of other documents beside them are grouped again by the next `chordwise entities`.
_FORGET_VALUES = (
    f"DELETE FROM entity_decisions WHERE id IN ({_NAMING}) OR withdraws IN ({_NAMING})",
    """DELETE FROM entity_values v USING unnest(CAST(:values AS text[])) AS gone
    WHERE gone IN (v.value, v.joins, v.entity) OR strpos(CAST(v.doubts AS text), gone) > 0""",
)


def forget_values(session: Session, document_ids: Sequence[uuid.UUID]) -> int:
    """Delete entities and decisions that name values of these documents alone."""
    ids = list(document_ids)
    values = set(session.scalars(_GROUPED, {"ids": ids}))
    if values:  # as this reads all facts
        values -= set(session.scalars(_HELD, {"ids": ids, "values": list(values)}))
    return _execute_all(session, _FORGET_VALUES, {"values": list(values)}).total()


# The search

Texts: TypeAlias = Passages[uuid.UUID]
"""The passages of documents by their ids."""
# Columns of every type that can hold a text, so that none is forgotten. The texts of documents are
# read by `share`.
_COLUMNS = text("""
    SELECT format('%I.%I', n.nspname, c.relname) AS relation, a.attname,
        CASE WHEN 'bytea' IN (t.typname, e.typname) THEN quote_ident(a.attname)
            ELSE format('CAST(%I AS text)', a.attname) END AS expression
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
    WHERE c.relkind IN ('r', 'm') AND a.attnum > 0 AND NOT a.attisdropped
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        AND coalesce(e.typcategory, t.typcategory) NOT IN ('B', 'D', 'E', 'I', 'N', 'R', 'T')
        AND coalesce(e.typname, t.typname) <> 'uuid'
        AND (c.relname, a.attname) <> ('documents', 'text')
    ORDER BY c.relname, a.attnum""")
_STATISTICS = text("""
    SELECT schemaname, tablename, attname,
        concat_ws(' ', most_common_vals, histogram_bounds, most_common_elems)
    FROM pg_stats WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'""")
_CLEAR = text("SELECT pg_clear_attribute_stats(:schema, :table, :name, false)")
# Outputs and errors of commands and deliveries, and answers of models, may be of any document.
_SWEEPS = {
    "cached_completions": "DELETE FROM cached_completions",
    "incidents": "DELETE FROM incidents",
    "schedule_runs": "UPDATE schedule_runs SET outcome = NULL, error_message = NULL, hint = NULL",
    "deliveries": "UPDATE deliveries SET content = NULL, last_error = NULL",
    "model_calls": "UPDATE model_calls SET error_message = NULL",
}


def share(session: Session, passages: Texts) -> dict[uuid.UUID, list[str]]:
    """Discard the passages that stored documents have; return the ids of these by the key."""
    shared: dict[uuid.UUID, list[str]] = {}
    statement = select(Document.id, Document.text).execution_options(yield_per=50)
    for document_id, words in session.execute(statement):
        for key in passages.discard(words):
            shared.setdefault(key, []).append(str(document_id))
    return shared


def sweep(session: Session, passages: Texts) -> None:
    """Remove passages from outputs and errors of commands, and from cached answers."""
    rows: dict[str, list[str]] = {}
    for table, _, place, _ in _hits(session, passages, _SWEEPS):
        rows.setdefault(table, []).append(place)
    for table, places in rows.items():
        change = text(f"{_SWEEPS[table]} WHERE ctid = ANY(CAST(:places AS tid[]))")
        session.execute(change, {"places": places})


def vacuum(connection: Connection, tables: Collection[str]) -> None:
    """Remove the deleted rows of tables, and their values from indexes and statistics."""
    exists = text("SELECT relname FROM pg_class WHERE relname = ANY(:names) AND relkind = 'r'")
    known = connection.scalars(exists, {"names": [*tables, *_SWEEPS]}).all()
    connection.execute(text(f"VACUUM (ANALYZE, SKIP_LOCKED) {', '.join(known)}"))


def search(session: Session, passages: Texts) -> Counter[tuple[uuid.UUID, str]]:
    """Return the number of values with passages by their key and column, in all tables.

    The statistics of the planner, which have values of columns, are searched as well.
    """
    hits: Counter[tuple[uuid.UUID, str]] = Counter()
    for table, column, _, key in _hits(session, passages):
        hits[key, f"{table}.{column}"] += 1
    # Statistics of an empty table are never renewed; PostgreSQL 18 can clear them.
    can_clear = session.scalar(text("SELECT to_regproc('pg_clear_attribute_stats') IS NOT NULL"))
    for schema, table, name, values in session.execute(_STATISTICS).all():
        keys = passages.repeated_in(values)
        if keys and can_clear:
            session.execute(_CLEAR, {"schema": schema, "table": table, "name": name})
        else:
            hits.update((key, f"pg_stats of {table}.{name}") for key in keys)
    return hits


def _hits(
    session: Session, passages: Texts, only: Collection[str] = ()
) -> Iterator[tuple[str, str, str, uuid.UUID]]:
    """Yield the table, the column, the place of the row, and the key of each passage."""
    columns: dict[str, list[tuple[str, str]]] = {}
    for relation, name, expression in session.execute(_COLUMNS):
        if not only or relation.removeprefix("public.") in only:
            columns.setdefault(relation, []).append((name, expression))
    for relation, of_table in columns.items():
        expressions = ", ".join(expression for _, expression in of_table)
        statement = text(f"SELECT CAST(ctid AS text), {expressions} FROM {relation}")
        for place, *row in session.execute(statement, execution_options={"yield_per": 50}):
            for (name, _), value in zip(of_table, row, strict=True):
                for key in {k for words in _texts(value) for k in passages.repeated_in(words)}:
                    yield relation.removeprefix("public."), name, place, key


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case bytes():
            yield value.decode(errors="replace")
        case list():
            for element in value:
                yield from _texts(element)
