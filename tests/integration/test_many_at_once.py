"""More at once than a statement may have parameters, 65,535, or than is otherwise looked at."""

from __future__ import annotations

from pathlib import Path

from chordwise.pipeline import retry
from chordwise.pipeline.fan_out import fan_out
from chordwise.pipeline.recovery.recover import recover
from chordwise.settings import Settings
from tests.fakes.inbox_watch import watched
from tests.fakes.pipeline import PARAGRAPH, a_pipeline

MANY = 66_000
_CHUNKS = """
INSERT INTO chunks
SELECT (jsonb_populate_record(c, jsonb_build_object('id', gen_random_uuid(), 'position', n))).*
FROM chunks AS c, generate_series(1, :more) AS n
"""
_JOBS = """
INSERT INTO jobs
SELECT (jsonb_populate_record(j, jsonb_build_object('id', gen_random_uuid(), 'options_hash', n))).*
FROM jobs AS j, generate_series(1, :more) AS n
"""
_CUT_OFF = """
INSERT INTO inbox_files
SELECT (
    jsonb_populate_record(f, jsonb_build_object('id', gen_random_uuid(), 'status', 'taking'))
).*
FROM inbox_files AS f, generate_series(1, :more) AS n
"""


def test_a_broker_forgets_more_than_a_statement_may_name(settings: Settings) -> None:
    """Every chunk has its message again, and the scheduler's recovery goes on."""
    pipeline = a_pipeline(settings)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    recover(pipeline.context)
    fan_out(pipeline.context, job.id)
    pipeline.execute(_CHUNKS, more=MANY - 1)
    pipeline.execute("DELETE FROM outbox")
    with pipeline.context.messenger._app.connection_for_write() as connection:
        connection.default_channel.client.flushall()

    rescued = recover(pipeline.context)

    assert rescued["broker_forgot"] == MANY
    assert pipeline.value("SELECT count(DISTINCT arguments ->> 1) FROM outbox") == MANY
    assert pipeline.value("SELECT bool_and(sent_at IS NOT NULL) FROM chunks") is True


def test_a_run_of_more_jobs_than_a_statement_may_name_is_cancelled(settings: Settings) -> None:
    """All of them, and what they had to do."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH)
    fan_out(pipeline.context, pipeline.job(submission).id)
    pipeline.execute(_JOBS, more=MANY - 1)

    cancelled = retry.cancel(pipeline.context.sessions, submission.run_id)

    assert cancelled == MANY
    assert pipeline.rows("SELECT DISTINCT status FROM jobs") == [("cancelled",)]
    assert pipeline.value("SELECT bool_and(status = 'cancelled') FROM chunks") is True


def test_every_file_that_a_kill_cut_off_is_settled(settings: Settings, tmp_path: Path) -> None:
    """In one look, for the next comes with the next start only."""
    inbox = watched(tmp_path, settings)
    inbox.drop("a.txt", "Anna writes to Berta.")
    inbox.take()
    inbox.pipeline.execute(_CUT_OFF, more=501)
    inbox.begin_anew()

    inbox.watch.tick()

    left = inbox.pipeline.rows("SELECT name, status FROM inbox_files")
    inbox.close()
    assert left == [("a.txt", "submitted")]
