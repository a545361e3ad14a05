"""More at once than a statement may have parameters, 65,535, or than is otherwise looked at."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from sqlalchemy import text

from chordwise.domain.json_values import objects
from chordwise.pipeline.jobs import retry
from chordwise.pipeline.jobs.fan_out import fan_out
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
_CUT_OFF = """
INSERT INTO inbox_files
SELECT (
    jsonb_populate_record(f, jsonb_build_object('id', gen_random_uuid(), 'status', 'taking'))
).*
FROM inbox_files AS f, generate_series(1, :more) AS n
"""


@pytest.mark.nightly
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


@pytest.mark.nightly
def test_a_run_of_more_jobs_than_a_statement_may_name_is_cancelled(settings: Settings) -> None:
    """All of them, and what they had to do."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH)
    fan_out(pipeline.context, pipeline.job(submission).id)
    pipeline.execute(_JOBS, more=MANY - 1)

    cancelled = retry.cancel(pipeline.context.database, submission.run_id)

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


@pytest.mark.nightly
def test_the_note_of_a_file_with_thousands_of_rows_is_written_piece_by_piece(
    settings: Settings, tmp_path: Path
) -> None:
    """However many those are, and the file may hold a hundred thousand, few are held at once."""
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
    assert [each["source"] for each in intakes][1:] == [f"a.csv#{n}" for n in range(1, _ROWS)]
    assert {objects(each["jobs"])[0]["status"] for each in intakes} == {"succeeded"}
    assert max_bytes < 12_000_000
