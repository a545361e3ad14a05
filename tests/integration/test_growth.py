"""Tests that the cost of a step does not grow with the run or exceed a statement's limits."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from chordwise.domain import chunking
from chordwise.domain.json_values import objects
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.dispatch import MIN_WINDOW, dispatch
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.recovery.recover import RULES, Rule, promise_missing, recover
from chordwise.relations.jobs import jobs_of_run
from chordwise.relations.relation import Row
from chordwise.settings import Settings
from chordwise.storage import claims, jobs, leases, runs
from chordwise.storage.chunk_work import CallEntry, ChunkEnd
from chordwise.storage.chunks import Chunk, EndedChunk
from chordwise.storage.database import driver
from tests.fakes.inbox_watch import watched
from tests.fakes.many_documents import MORE_JOBS
from tests.fakes.pipeline import PARAGRAPH, Pipeline, a_pipeline

SIZE = 5_000
SIZES = (SIZE, pytest.param(20_000, marks=pytest.mark.nightly))
STEP = 1_000
_JOBS = """
INSERT INTO jobs (id, run_id, intake_id, document_id, analysis_type, options, options_hash, model,
                  status, attempts, postponements, chunk_count, started_at)
SELECT uuidv7(), run_id, intake_id, document_id, analysis_type, options, n::text, model,
       states[1 + (cardinality(states) * (n - 1)) / :size], 0, 0, 1, now() - interval '1 hour'
FROM jobs, CAST(:states AS text[]) AS states, generate_series(1, :size) AS n
"""
_CHUNKS = """
INSERT INTO chunks (id, job_id, position, start_char, end_char, status, attempts, postponements,
                    started_at, finished_at)
SELECT uuidv7(), j.id, 0, 0, 80, s.status, 0, 0,
       CASE WHEN s.status <> 'pending' THEN now() - interval '1 hour' END,
       CASE WHEN s.status <> 'pending' THEN now() END
FROM jobs AS j,
LATERAL (SELECT CASE j.status WHEN 'running' THEN 'pending' ELSE j.status END AS status) AS s
WHERE j.status <> 'queued' ORDER BY j.id
"""
_CALLS = """
INSERT INTO model_calls (id, job_id, chunk_id, stage, provider, model, language_model,
                         prompt_version, attempt, cache_hit)
SELECT uuidv7(), job_id, id, 'analysis', 'openai', 'a-model', true, 'summary@1', 1, false
FROM chunks
"""
_CLAIMED = """
UPDATE chunks SET status = 'running', lease_token = id, started_at = now(),
                  lease_until = now() + interval '1 minute'
WHERE id IN (SELECT id FROM chunks WHERE status = 'pending' ORDER BY id LIMIT 16)
"""
# The rows that sequential scans returned, and the entries that scans of indexes returned; what is
# read in an index alone is among them.
_READ = """
WITH tables AS (SELECT CAST(unnest('{jobs,chunks,outbox}'::text[]) AS regclass) AS oid)
SELECT CAST(sum(pg_stat_get_xact_tuples_returned(oid)) AS bigint) FROM (
    SELECT oid FROM tables
    UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid IN (SELECT oid FROM tables)
) AS relations
"""
_UPDATED = """
SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables
WHERE relname IN ('jobs', 'chunks', 'model_calls')
"""
_ENDED = """
UPDATE model_calls SET finished_at = clock_timestamp(), latency_ms = 500, input_tokens = 900,
       output_tokens = 300, cost_usd = 0.001, cost_basis = 'price_list', response_length = 900,
       finish_reason = 'stop', refused = false, valid = true, quality = 1
WHERE get_byte(uuid_send(id), 15) % 2 = 0
"""

_CALL = {
    "stage": "analysis",
    "provider": "openai",
    "model": "a-model",
    "language_model": True,
    "prompt_version": "summary@1",
    "attempt": 1,
    "sample": 1,
    "cache_hit": False,
}


@dataclass(slots=True)
class Meter:
    """Records the committed transactions with their statements and changed rows."""

    transactions: list[tuple[int, int]] = field(default_factory=list)
    statements: int = 0
    changed: int = 0

    def note(self, statement: str, rows: int) -> None:
        self.statements += 1
        if not statement.lstrip().startswith("SELECT"):
            self.changed += max(0, rows)

    def commit(self, _connection: Connection) -> None:
        self.transactions.append((self.statements, self.changed))
        self.statements = self.changed = 0

    @property
    def max_statements(self) -> int:
        return max(statements for statements, _ in self.transactions)

    @property
    def max_changed(self) -> int:
        return max(changed for _, changed in self.transactions)


@contextmanager
def measured(pipeline: Pipeline) -> Iterator[Meter]:
    engine, meter = pipeline.context.database.engine, Meter()

    def after(_c: object, cursor: object, statement: str, *_: object) -> None:
        meter.note(statement, getattr(cursor, "rowcount", 0))

    event.listen(engine, "after_cursor_execute", after)
    event.listen(engine, "commit", meter.commit)
    try:
        yield meter
    finally:
        event.remove(engine, "after_cursor_execute", after)
        event.remove(engine, "commit", meter.commit)


def a_large_run(settings: Settings, size: int, *states: str) -> tuple[Pipeline, uuid.UUID]:
    """Return a run with this many jobs in equal shares in these states, with one chunk each."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH)
    original = pipeline.job(submission).id
    pipeline.execute(_JOBS, size=size, states=list(states))
    pipeline.execute("DELETE FROM outbox")
    pipeline.execute("DELETE FROM chunks")
    pipeline.execute("DELETE FROM jobs WHERE id = :id", id=original)
    pipeline.execute(_CHUNKS)
    tidy(pipeline)
    return pipeline, submission.run_id


def tidy(pipeline: Pipeline) -> None:
    with pipeline.context.database.read() as session:
        connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        # A few dead entries of the indexes would stay by default, and be counted as read.
        vacuum = "VACUUM (ANALYZE, INDEX_CLEANUP ON) jobs, chunks, outbox"
        connection.execute(text(vacuum))


def rows_read(pipeline: Pipeline, step: Callable[[Session], object]) -> int:
    with pipeline.context.database.write() as session:
        before = int(session.execute(text(_READ)).scalar_one())
        step(session)
        session.flush()
        return int(session.execute(text(_READ)).scalar_one()) - before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", ["queued", "paused", "succeeded"])
def test_settling_a_run_reads_few_rows(settings: Settings, size: int, state: str) -> None:
    pipeline, run_id = a_large_run(settings, size, state)

    with measured(pipeline) as meter:
        read = rows_read(pipeline, lambda session: runs.settle(session, run_id))

    assert read <= 5
    assert meter.max_statements <= 8
    expected = {"queued": "open", "paused": "paused", "succeeded": "finished"}[state]
    assert pipeline.value("SELECT status FROM runs") == expected


@pytest.mark.parametrize("size", SIZES)
def test_a_retry_uses_several_transactions(settings: Settings, size: int) -> None:
    pipeline, run_id = a_large_run(settings, size, "failed", "succeeded")
    failed = size // 2

    with measured(pipeline) as meter:
        assert run_control.retry(pipeline.context, run_id) == failed

    assert len(meter.transactions) <= 2 * -(-failed // STEP) + 6
    assert meter.max_statements <= 8
    assert meter.max_changed <= 2 * STEP + 1
    assert pipeline.value("SELECT count(*) FROM jobs WHERE status = 'queued'") == failed
    assert pipeline.value("SELECT count(*) FROM chunks WHERE status = 'pending'") == failed
    assert pipeline.value("SELECT count(*) FROM outbox") == failed


def test_a_step_of_a_retry_reads_only_its_jobs(settings: Settings) -> None:
    pipeline, run_id = a_large_run(settings, SIZE, "failed", "succeeded")
    middle = pipeline.rows("SELECT id FROM jobs WHERE status = 'failed' ORDER BY id OFFSET 2000")

    def step(session: Session) -> None:
        run_control._reopen_some(session, pipeline.context, run_id, uuid.UUID(str(middle[0][0])))

    # Each job and its chunk are found, locked and changed.
    assert rows_read(pipeline, step) <= 8 * STEP


@pytest.mark.parametrize("size", SIZES)
def test_a_cancellation_uses_several_transactions(settings: Settings, size: int) -> None:
    pipeline, run_id = a_large_run(settings, size, "queued", "running", "paused", "succeeded")
    unfinished = size - size // 4

    with measured(pipeline) as meter:
        assert run_control.cancel(pipeline.context.database, run_id) == unfinished

    assert len(meter.transactions) <= -(-unfinished // STEP) + 5
    assert meter.max_statements <= 9
    assert meter.max_changed <= 2 * STEP + 2
    assert pipeline.value("SELECT count(*) FROM chunks WHERE status = 'pending'") == 0
    assert pipeline.value("SELECT status = 'cancelled' AND finished_at IS NOT NULL FROM runs")


@pytest.mark.parametrize("size", SIZES)
def test_a_lost_broker_changes_few_rows_however_long_the_queue_is(
    settings: Settings, valkey: redis.Redis, size: int
) -> None:
    """Only messages that it held are sent again, each once."""
    pipeline, _ = a_large_run(settings, size, "queued", "running")
    assert promise_missing(pipeline.context) == size
    tidy(pipeline)
    dispatch(pipeline.context)
    valkey.flushall()
    pipeline.execute("UPDATE outbox SET due_at = now() WHERE sends > 0")
    recover(pipeline.context)

    with measured(pipeline) as meter:
        read = rows_read(pipeline, lambda _: dispatch(pipeline.context))

    assert 0 < pipeline.value("SELECT count(*) FROM outbox WHERE sends = 2") <= MIN_WINDOW  # type: ignore[operator]  # a number
    assert pipeline.value("SELECT count(*) FROM outbox WHERE sends > 0") <= MIN_WINDOW  # type: ignore[operator]
    assert meter.max_changed <= MIN_WINDOW + 1
    assert meter.max_statements <= 8
    assert read <= 8 * MIN_WINDOW


@pytest.mark.parametrize("size", SIZES)
def test_a_page_of_a_list_reads_only_its_jobs(settings: Settings, size: int) -> None:
    pipeline, run_id = a_large_run(settings, size, "succeeded", "failed")
    middle = pipeline.value("SELECT id FROM jobs ORDER BY id OFFSET :half LIMIT 1", half=size // 2)
    shown: list[Sequence[Row]] = []

    def page(after: uuid.UUID | None) -> Callable[[Session], object]:
        return lambda session: shown.append(jobs_of_run(driver(session), run_id, 50, after))

    first = rows_read(pipeline, page(None))
    later = rows_read(pipeline, page(uuid.UUID(str(middle))))

    assert [len(page) for page in shown] == [50, 50]
    # Two rows are read for each: a job and its chunk.
    assert max(first, later) <= 120


@pytest.mark.parametrize("size", SIZES)
def test_rules_of_recovery_read_few_rows(settings: Settings, size: int) -> None:
    pipeline, _ = a_large_run(settings, size, "succeeded", "queued", "running", "running")
    pipeline.execute(_CLAIMED)
    tidy(pipeline)
    context = pipeline.context

    def reading(rule: Rule) -> Callable[[Session], object]:
        return lambda session: rule(context, session)

    with measured(pipeline) as meter:
        read = {reason: rows_read(pipeline, reading(rule)) for reason, rule in RULES}

    assert max(read.values()) <= 1_500, read
    assert meter.max_statements <= 10


def test_many_expired_leases_need_few_statements(settings: Settings) -> None:
    pipeline, _ = a_large_run(settings, 1_000, "running")
    pipeline.execute("UPDATE chunks SET status = 'running', attempts = 1, lease_token = id")
    pipeline.expire_leases()

    with measured(pipeline) as meter:
        assert recover(pipeline.context)["lease_expired"] == 500

    assert meter.max_statements <= 8
    assert pipeline.value("SELECT count(*) FROM outbox WHERE task LIKE '%slice%'") == 500


def planned_once(session: Session) -> Connection:
    """Return the connection of a session that uses generic plans, like those of a worker."""
    connection = session.connection()
    connection.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
    raw: object = connection.connection.dbapi_connection
    assert isinstance(raw, psycopg.Connection)
    raw.prepare_threshold = 0
    return connection


def test_the_steps_of_a_job_read_only_its_rows(settings: Settings) -> None:
    """The steps are fan-out, claims, the end of a chunk and the claim of the synthesis.

    PostgreSQL reads small tables completely.
    """
    pipeline, _ = a_large_run(settings, 20_000, "queued", "running", "running", "succeeded")
    stores, lease = pipeline.context.stores, pipeline.context.lease
    (job_id,), *_ = pipeline.rows("SELECT id FROM jobs WHERE status = 'queued' LIMIT 1")
    job, token = uuid.UUID(str(job_id)), uuid.uuid4()
    parts = [chunking.TextChunk(position=0, start_char=0, end_char=80)]
    read: dict[str, int] = {}

    def step(name: str, act: Callable[[Connection], object]) -> None:
        read[name] = rows_read(pipeline, lambda session: act(planned_once(session)))

    step("begin", lambda store: stores.fan_outs._begin_all(store, [job]))
    step("write", lambda store: stores.fan_outs._write_all(store, [(job, parts)]))
    chunk = uuid.UUID(str(pipeline.value("SELECT id FROM chunks WHERE job_id = :job", job=job)))
    step("claim", lambda store: claims.claim_chunks(store, [(chunk, token)], lease, 3))
    call = {"id": str(uuid.uuid4()), "job_id": str(job), "chunk_id": str(chunk)} | _CALL
    entry = CallEntry(begun=call, token=token)
    end = ChunkEnd(job_id=job, chunk_id=chunk, token=token, ended=EndedChunk(status="succeeded"))
    step("call", lambda store: stores.chunks._store(store, [entry]))
    step("end", lambda store: stores.chunks._store(store, [end]))
    step("synthesis", lambda store: claims.claim_syntheses(store, [(job, token)], lease, 3))

    assert pipeline.value("SELECT status FROM jobs WHERE id = :job", job=job) == "synthesizing"
    assert max(read.values()) <= 40, read


_MORE_CHUNKS = """
INSERT INTO chunks
SELECT (jsonb_populate_record(c, jsonb_build_object('id', gen_random_uuid(), 'position', n))).*
FROM chunks AS c, generate_series(1, :more) AS n
"""
_MANY_STATES = """
UPDATE chunks SET status = CASE
        WHEN job_id <> (SELECT min(id::text)::uuid FROM jobs)
            THEN CASE WHEN position % 2 = 0 THEN 'pending' ELSE 'waiting' END
        WHEN position < :size - 2 THEN :state
        WHEN position = :size - 2 THEN 'waiting'
        ELSE 'running' END,
    due_at = now() + interval '1 hour', lease_token = id, lease_until = now() + interval '1 hour'
"""


@pytest.mark.parametrize(
    "state",
    ["pending", *(pytest.param(s, marks=pytest.mark.nightly) for s in ("waiting", "succeeded"))],
)
def test_the_end_of_a_chunk_reads_no_other_chunk(settings: Settings, state: str) -> None:
    """One chunk of a document is running, one is waiting, and the others are in one state.

    Half of the chunks of another document are pending, and half are waiting.
    """
    size = SIZE
    pipeline, _ = a_large_run(settings, 2, "running")
    pipeline.execute(_MORE_CHUNKS, more=size - 1)
    pipeline.execute(_MANY_STATES, size=size, state=state)
    pipeline.execute("UPDATE jobs SET chunk_count = :size, open_chunks = :size", size=size)
    tidy(pipeline)
    ((chunk, job),) = pipeline.rows("SELECT id, job_id FROM chunks WHERE status = 'running'")
    end = ChunkEnd(
        job_id=uuid.UUID(str(job)),
        chunk_id=uuid.UUID(str(chunk)),
        token=uuid.UUID(str(chunk)),
        ended=EndedChunk(status="succeeded"),
    )
    store = pipeline.context.stores.chunks._store

    read = rows_read(pipeline, lambda session: store(planned_once(session), [end]))

    assert read <= 20
    (row,) = pipeline.rows(f"SELECT open_chunks, status FROM jobs WHERE id = '{job}'")  # noqa: S608
    assert tuple(row) == (size - 1, "running" if state == "pending" else "waiting")


def updated(session: Session) -> dict[str, tuple[int, int]]:
    """Return the updates of each table so far: all of them, and those that are heap-only."""
    return {row[0]: (row[1], row[2]) for row in session.execute(text(_UPDATED))}


def test_frequent_updates_are_heap_only(settings: Settings) -> None:
    pipeline, _ = a_large_run(settings, 1_000, "running")
    pipeline.execute(_CLAIMED)
    pipeline.execute(_CALLS)
    lease = pipeline.context.lease
    tokens = [row[0] for row in pipeline.rows("SELECT id FROM chunks WHERE status = 'running'")]
    moved = [row[0] for row in pipeline.rows("SELECT id FROM jobs ORDER BY id")][::8]

    with pipeline.context.database.write() as session:
        before = updated(session)
        for job_id in moved:
            jobs.record_progress(session, [uuid.UUID(str(job_id))])
        leases.extend(session, Chunk, [uuid.UUID(str(token)) for token in tokens], lease)
        session.execute(text(_ENDED))
        after = updated(session)

    for table, (all_updates, heap_only) in after.items():
        all_before, heap_only_before = before[table]
        assert heap_only - heap_only_before >= 0.85 * (all_updates - all_before) > 0, table


MANY = 66_000
_ROWS = 5_000
_ROWS_OF_A_FILE = (
    """
    CREATE TEMPORARY TABLE more ON COMMIT DROP AS
    SELECT gen_random_uuid() AS document, gen_random_uuid() AS intake, gen_random_uuid() AS job, n
    FROM generate_series(1, :more) AS n
    """,
    """
    INSERT INTO documents
    SELECT (jsonb_populate_record(d, jsonb_build_object('id', document, 'sha256', n))).*
    FROM documents AS d, more
    """,
    """
    INSERT INTO intakes
    SELECT (
        jsonb_populate_record(
            i, jsonb_build_object('id', intake, 'document_id', document, 'source', 'a.csv#' || n)
        )
    ).*
    FROM intakes AS i, more
    """,
    "INSERT INTO inbox_intakes SELECT intake, inbox_file_id, n FROM inbox_intakes, more",
    """
    INSERT INTO jobs
    SELECT (
        jsonb_populate_record(
            j, jsonb_build_object('id', job, 'document_id', document, 'intake_id', intake)
        )
    ).*
    FROM jobs AS j, more
    """,
)


@pytest.mark.nightly
def test_a_run_with_more_jobs_than_parameters_is_cancelled(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH)
    fan_out(pipeline.context, pipeline.job(submission).id)
    pipeline.execute(MORE_JOBS, more=MANY - 1)

    assert run_control.cancel(pipeline.context.database, submission.run_id) == MANY
    assert pipeline.rows("SELECT DISTINCT status FROM jobs") == [("cancelled",)]
    assert pipeline.value("SELECT bool_and(status = 'cancelled') FROM chunks") is True


@pytest.mark.nightly
def test_the_note_of_thousands_of_rows_is_in_pieces(settings: Settings, tmp_path: Path) -> None:
    inbox = watched(tmp_path, settings)
    inbox.drop("a.txt", "Anna writes to Berta.")
    inbox.take()
    inbox.work()
    with inbox.pipeline.context.database.write() as session:
        session.execute(text(_ROWS_OF_A_FILE[0]), {"more": _ROWS - 1})
        for statement in _ROWS_OF_A_FILE[1:]:
            session.execute(text(statement))
    tracemalloc.start()

    inbox.wait(1)

    _, max_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    note = inbox.folders.note(inbox.folders.done / "a.txt")
    inbox.close()
    intakes = objects(note["intakes"])
    assert [intake["source"] for intake in intakes][1:] == [f"a.csv#{n}" for n in range(1, _ROWS)]
    assert {objects(intake["jobs"])[0]["status"] for intake in intakes} == {"succeeded"}
    assert max_bytes < 12_000_000
