"""Tests of incidents, which are counted by kind and reason; a lost lease counts once."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from chordwise.domain.states import ChunkStatus
from chordwise.errors import ServiceUnavailableError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.jobs.analyze_chunk import ChunkOutcome, analyze_chunk
from chordwise.pipeline.runs import user_sql
from chordwise.pipeline.runtime.leases import Lease
from chordwise.settings import Settings
from chordwise.storage import incidents
from chordwise.storage.database import Database, open_engine
from chordwise.storage.incidents import Incident, IncidentKind
from tests.fakes.pipeline import AWAY, LONG, PARAGRAPH, Pipeline, a_pipeline, quoting_the_text
from tests.fakes.processes import wait_until
from worker.rejections import Rejection, Rejections


def counts(database: Database) -> dict[tuple[str, str], int]:
    with database.read() as session:
        return {(row.kind, row.reason): row.count for row in session.scalars(select(Incident))}


def test_counts_add_up_by_kind_and_reason(database: Database, database_url: SecretStr) -> None:
    """Concurrent ones as well; read-only users can query them."""

    def count(number: int) -> None:
        with database.write() as session:
            incidents.count(session, IncidentKind.RELEASED, "due")
            incidents.count(session, IncidentKind.RESCUE, "due", number)
            incidents.count(session, IncidentKind.LEASE_LOST, "late", 0)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(1, 25)))

    statement = "SELECT kind, reason, count, first_at < last_at FROM incidents ORDER BY count"
    with user_sql.run_query(database_url, statement) as answer:
        assert list(answer.rows) == [("released", "due", 24, True), ("rescue", "due", 300, True)]


def test_a_rejection_is_counted_once_the_database_is_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Database(open_engine(SecretStr("postgresql://absent@127.0.0.1:9/nothing")))
    rejections = Rejections(away)
    rejections.add(Rejection.BODY)
    rejections.add(Rejection.BODY)
    with pytest.raises(ServiceUnavailableError):
        rejections.count()

    monkeypatch.setattr(away, "write", database.write)
    rejections.start()

    wait_until(lambda: bool(counts(database)), 10, "the thread counts")
    counted = counts(database)
    away.close()
    assert counted == {("rejected_message", "body"): 2}


LOSSES = "SELECT coalesce(string_agg(reason || count, ' '), '') FROM incidents"


def a_chunk(pipeline: Pipeline) -> uuid.UUID:
    ((_, chunk_id),) = pipeline.fan_out(PARAGRAPH)
    return chunk_id


@pytest.mark.parametrize("reason", ["answer", "heartbeat"])
def test_a_late_answer_is_discarded_and_counted_as_a_lost_lease(
    settings: Settings, reason: str
) -> None:
    """A heartbeat counts it if it comes before the answer, and counts it once."""

    def slowly(request: CompletionRequest) -> str:
        pipeline.expire_leases()
        pipeline.claim(chunk_id)
        if reason == "heartbeat":
            pipeline.context.leases.beat()
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, slowly)
    chunk_id = a_chunk(pipeline)

    outcome = analyze_chunk(pipeline.context, chunk_id)

    pipeline.context.leases.beat()
    pipeline.context.leases.beat()
    assert outcome is ChunkOutcome.NOT_ENDED
    assert pipeline.value("SELECT status || attempts FROM chunks") == f"{ChunkStatus.RUNNING}2"
    assert pipeline.value("SELECT answer IS NULL FROM chunks") is True
    assert pipeline.value(LOSSES) == f"{reason}1"


def test_a_lease_of_work_that_has_just_ended_is_not_lost(settings: Settings) -> None:
    """A heartbeat between the end and the release of the lease counts no loss."""
    pipeline = a_pipeline(settings, quoting_the_text)
    chunk_id = a_chunk(pipeline)
    analyze_chunk(pipeline.context, chunk_id)
    token = pipeline.value("SELECT lease_token FROM chunks")
    assert isinstance(token, uuid.UUID)
    lease = Lease(job_id=uuid.uuid4(), chunk_id=chunk_id, token=token)

    with pipeline.context.leases.holding(lease):
        pipeline.context.leases.beat()

    assert not lease.lost
    assert pipeline.value(LOSSES) == ""


def test_a_chunk_that_was_taken_over_is_not_asked(small_chunks: Settings) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def slowly(request: CompletionRequest) -> str:
        is_asked.set()
        assert may_answer.wait(30)
        return quoting_the_text(request)

    alone = AWAY.model_copy(update={"max_in_flight": 1})
    pipeline = a_pipeline(small_chunks, slowly, repeat_last=True, model_settings=alone)
    (_, first), (_, second), *_ = pipeline.fan_out(LONG)

    with ThreadPoolExecutor(2) as workers:
        workers.submit(analyze_chunk, pipeline.context, first)
        assert is_asked.wait(30)
        waiting = workers.submit(analyze_chunk, pipeline.context, second)
        claimed = "SELECT count(*) = 2 FROM chunks WHERE status = 'running'"
        wait_until(lambda: pipeline.value(claimed) is True, 30, claimed)
        pipeline.expire_leases()
        pipeline.claim(second)
        may_answer.set()
        assert waiting.result(30) is ChunkOutcome.NOT_ENDED

    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM model_calls") == 1
