"""Tests of results with many rows: computed in advance, and stored in batches."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import encoded
from chordwise.domain.states import JobStatus
from chordwise.errors import ExitCode, LeaseLostError, ServiceUnavailableError
from chordwise.pipeline.intake import document_batches
from chordwise.pipeline.jobs import run_control
from chordwise.settings import Settings
from chordwise.storage import results
from chordwise.storage.chunk_work import JobEnd, Stored
from chordwise.storage.database import Database
from chordwise.storage.results import NewResult
from tests.conftest import Servers
from tests.fakes.commands import output_of
from tests.fakes.counting import recorded
from tests.fakes.order_rows import ORDER, ROW_COUNT, SCHEMA, extracting, within_limits
from tests.fakes.pipeline import Pipeline, a_pipeline, a_run
from tests.fakes.processes import wait_until

FACTS_AT_ONCE = 50
ROWS = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(schema=SCHEMA))
COUNTS = """
SELECT (SELECT count(*) FROM results), (SELECT count(*) FROM result_history),
       (SELECT count(*) FROM facts), (SELECT count(DISTINCT (job_id, path)) FROM facts)
"""
NUMBER = 2 * ROW_COUNT


@pytest.fixture
def pipeline(small_chunks: Settings, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Return a pipeline that stores few facts in each statement."""
    monkeypatch.setattr(results, "FACTS_AT_ONCE", FACTS_AT_ONCE)
    return a_pipeline(small_chunks, within_limits(extracting()), repeat_last=True)


def test_facts_are_stored_in_batches_before_the_job_is_locked(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are computed before the transaction, and the heartbeat can extend the lease."""
    computed: list[bool] = []
    save_all = results.save_all

    def checking(session: Session, new: Sequence[NewResult]) -> None:
        computed.extend(isinstance(end.more_facts, tuple) for end in new)
        save_all(session, new)

    monkeypatch.setattr(results, "save_all", checking)

    with recorded() as sent:
        pipeline.analyze(ORDER, options=ROWS)

    statements = [statement for statement, _ in sent]
    stored = [number for number, statement in enumerate(statements) if "INTO facts" in statement]
    locks = [
        number for number, statement in enumerate(statements) if "SELECT id FROM jobs" in statement
    ]
    assert computed == [True]
    assert len(stored) == NUMBER // FACTS_AT_ONCE
    assert stored[-1] - stored[0] == len(stored) - 1
    assert not [lock for lock in locks if stored[0] - 3 <= lock <= stored[-1]]
    assert pipeline.rows(COUNTS) == [(1, 0, NUMBER, NUMBER)]


def test_a_long_result_is_copied_and_replaced_in_batches(pipeline: Pipeline) -> None:
    submission = pipeline.analyze(ORDER, options=ROWS)

    pipeline.analyze(ORDER, options=replace(ROWS, name="run 2"))
    copied = pipeline.rows(COUNTS)
    pipeline.execute("UPDATE jobs SET status = 'partial'")
    pipeline.execute("UPDATE chunks SET status = 'failed' WHERE position = 0")
    run_control.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert copied == [(2, 0, 2 * NUMBER, 2 * NUMBER)]
    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert pipeline.rows(COUNTS) == [(2, 1, 2 * NUMBER, 2 * NUMBER)]


def test_a_long_result_is_stored_once(pipeline: Pipeline) -> None:
    submission = pipeline.analyze(ORDER, options=ROWS)
    job = pipeline.job(submission)
    result = NewResult.of(pipeline.result(job.id)).computed()
    end = JobEnd(job_id=job.id, status=JobStatus.SUCCEEDED, result=result, token=job.lease_token)
    work, within = pipeline.context.stores.chunks, timedelta(seconds=10)

    again = work.end(end, within)
    with pytest.raises(LeaseLostError):
        work.end(replace(end, token=uuid.uuid4()), within)

    assert again is Stored.STORED
    assert pipeline.rows(COUNTS) == [(1, 0, NUMBER, NUMBER)]


def test_corrections_may_be_computed_within_their_transaction(pipeline: Pipeline) -> None:
    """They take longer than a transaction may be idle if the result is long."""
    job = pipeline.job(pipeline.analyze(ORDER, options=ROWS))

    with pipeline.context.database.write() as session:
        results.correct(session, [job.id])
        allowed = session.scalar(text("SHOW idle_in_transaction_session_timeout"))

    assert allowed == "0"
    assert pipeline.rows(COUNTS) == [(1, 0, NUMBER, NUMBER)]


def test_an_idle_transaction_is_not_an_outage(database: Database, servers: Servers) -> None:
    def pause(session: Session) -> None:
        session.execute(text("SET idle_in_transaction_session_timeout = 50"))
        backend = session.scalar(text("SELECT pg_backend_pid()"))
        with servers.connect() as connection:
            wait_until(lambda: not _is_connected(connection, backend), 20, "the server ends it")
        session.execute(text("SELECT 1"))

    with pytest.raises(ServiceUnavailableError) as caught:
        database.commit(pause)

    assert "ended a transaction" in caught.value.what
    assert "reached" not in caught.value.what


def _is_connected(connection: psycopg.Connection[tuple[object, ...]], backend: object) -> bool:
    cursor = connection.execute("SELECT FROM pg_stat_activity WHERE pid = %s", (backend,))
    return cursor.fetchone() is not None


@pytest.mark.usefixtures("addressed")
@pytest.mark.parametrize("command", ["quote", "analyze"])
def test_a_table_with_too_many_rows_is_refused_before_it_is_paid_for(
    command: str, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_batches, "MAX_ROWS", 20)
    (tmp_path / "schema.json").write_text(encoded(SCHEMA))
    for name, rows in (("short", 20), ("long", 21)):
        lines = ["name,price", *(f"Part-{number},{number}" for number in range(rows))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    question = ("-t", "extraction", "--schema", "schema.json")

    done = output_of(command, "long.csv", *question, code=ExitCode.INCOMPLETE)
    other = output_of("quote", "short.csv", *question)

    assert "has more rows than one answer may list: at most 20" in done.in_one_line
    assert command == "quote" or "--text-column" in done.in_one_line
    assert "more rows" not in other.in_one_line
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM model_calls")) == 0
