"""The life of a job, step by step, over a real database and broker with a scripted model."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from chordwise.domain.states import ChunkStatus, IntakeOutcome, JobStatus
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import ModelAccessError, RateLimitedError, ReadError, UsageError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline import retry
from chordwise.pipeline.analyze_chunk import ChunkOutcome, analyze_chunk
from chordwise.pipeline.fan_out import fan_out
from chordwise.pipeline.recover import recover, take_up_after_standstill
from chordwise.pipeline.submit import open_run
from chordwise.pipeline.synthesize import synthesize
from chordwise.readers.reading import UnreadDocument
from chordwise.settings import Settings
from chordwise.storage import chunks
from tests.fakes.pipeline import (
    NOW,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    a_summary,
    close_all,
    quoting_the_text,
    with_settings,
)

PARAGRAPH = "The harbour of Lindau was rebuilt in 1856. It cost more than the town had planned. "
LONG = "".join(f"{number}. {PARAGRAPH}" for number in range(120))


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    """Leave no connection open behind a test."""
    yield
    close_all()


@pytest.fixture
def small_chunks(settings: Settings) -> Settings:
    """Return settings under which the long text makes several chunks."""
    return with_settings(settings, "pipeline", chunk_tokens=800)


def expire_leases(pipeline: Pipeline) -> None:
    """Let every lease run out."""
    pipeline.execute("UPDATE chunks SET lease_until = now() - interval '1 second'")
    pipeline.execute("UPDATE jobs SET lease_until = now() - interval '1 second'")


def test_a_document_becomes_a_result_with_facts_and_ledger(settings: Settings) -> None:
    """One short document: one result, grounded facts, one priced call, a balanced account."""
    pipeline = a_pipeline(settings, a_summary("It cost more than the town had planned."))
    submission = pipeline.submit(PARAGRAPH)

    pipeline.work(submission)

    job = pipeline.job(submission)
    result = pipeline.result(job.id)
    assert job.status == JobStatus.SUCCEEDED
    assert result is not None
    assert (result.confidence, result.quality, result.coverage) == (0.7, 1.0, 1.0)
    assert pipeline.value(
        "SELECT bool_and(substr(d.text, f.start_char + 1, f.end_char - f.start_char) = f.quote)"
        " FROM facts f JOIN jobs j ON j.id = f.job_id JOIN documents d ON d.id = j.document_id"
        " WHERE f.grounded"
    )
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE valid AND cost_usd = 0") == 1
    assert pipeline.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_a_long_document_is_analyzed_in_chunks_and_joined(small_chunks: Settings) -> None:
    """Chunks cover the whole text, and the synthesis keeps quotes from all over it."""
    pipeline = a_pipeline(small_chunks, quoting_the_text, repeat_last=True)
    submission = pipeline.submit(LONG)

    pipeline.work(submission)

    job = pipeline.job(submission)
    assert job.status == JobStatus.SUCCEEDED
    assert (job.chunk_count or 0) > 3
    assert pipeline.value(
        "SELECT string_agg(substr(d.text, c.start_char + 1,"
        " c.end_char - c.start_char), '' ORDER BY c.position) = min(d.text)"
        " FROM chunks c JOIN jobs j ON j.id = c.job_id JOIN documents d ON d.id = j.document_id"
    )
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE stage = 'synthesize'") == 1
    assert pipeline.value(
        "SELECT max(start_char) > 1000 AND bool_and(grounded) FROM facts WHERE quote IS NOT NULL"
    )


def test_answers_too_long_for_the_context_are_joined_in_levels(small_chunks: Settings) -> None:
    """With a small context the synthesis takes several questions, and still one result."""
    pipeline = a_pipeline(small_chunks, quoting_the_text, repeat_last=True)
    pipeline.model._profile = pipeline.model.profile.__class__(
        provider="scripted", model="script-1", context_tokens=1_150, max_output_tokens=300
    )
    submission = pipeline.submit(LONG)

    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    calls = pipeline.value("SELECT count(*) FROM model_calls WHERE stage = 'synthesize'")
    assert isinstance(calls, int)
    assert calls > 2


def test_a_message_for_a_finished_chunk_costs_nothing(settings: Settings) -> None:
    """Delivered again, an ended chunk says so without a call."""
    pipeline = a_pipeline(settings, quoting_the_text)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    fan_out(pipeline.context, job.id)
    (chunk_id,) = pipeline.open_chunks(job.id)
    analyze_chunk(pipeline.context, job.id, chunk_id)

    again = analyze_chunk(pipeline.context, job.id, chunk_id)

    assert again is ChunkOutcome.ENDED
    assert len(pipeline.model.requests) == 1


def test_a_chunk_under_a_live_lease_is_left_alone(settings: Settings) -> None:
    """A second worker does not count for the chord while the first is at it."""
    pipeline = a_pipeline(settings)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    fan_out(pipeline.context, job.id)
    (chunk_id,) = pipeline.open_chunks(job.id)
    with pipeline.context.sessions.begin() as session:
        assert chunks.claim(session, chunk_id, uuid.uuid4(), timedelta(seconds=60))

    outcome = analyze_chunk(pipeline.context, job.id, chunk_id)

    assert outcome is ChunkOutcome.NOT_ENDED
    assert pipeline.model.requests == []


def test_a_writer_who_lost_the_lease_is_fenced(settings: Settings) -> None:
    """An answer that comes after somebody else has taken over is not stored."""

    def lose_the_lease(request: CompletionRequest) -> str:
        expire_leases(pipeline)
        with pipeline.context.sessions.begin() as session:
            assert chunks.claim(session, chunk_id, uuid.uuid4(), timedelta(seconds=60))
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, lose_the_lease)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    fan_out(pipeline.context, job.id)
    (chunk_id,) = pipeline.open_chunks(job.id)

    outcome = analyze_chunk(pipeline.context, job.id, chunk_id)

    assert outcome is ChunkOutcome.NOT_ENDED
    assert pipeline.value("SELECT status FROM chunks") == ChunkStatus.RUNNING
    assert pipeline.value("SELECT answer IS NULL FROM chunks")


def test_a_transient_error_puts_the_chunk_off_without_counting(settings: Settings) -> None:
    """The chunk waits with a due-time; when it is due, recovery sends it and it succeeds."""
    pipeline = a_pipeline(settings, RateLimitedError("Too many requests."), quoting_the_text)
    submission = pipeline.submit(PARAGRAPH)
    pipeline.work(submission)
    job = pipeline.job(submission)
    assert job.status == JobStatus.WAITING
    assert pipeline.value("SELECT attempts = 0 AND postponements = 1 FROM chunks")
    pipeline.execute("UPDATE outbox SET sent_at = now()")
    pipeline.execute("UPDATE chunks SET due_at = now() - interval '1 second', sent_at = NULL")

    rescued = recover(pipeline.context)
    pipeline.work_on(job.id)

    assert rescued["due"] == 1
    assert pipeline.job(submission).status == JobStatus.SUCCEEDED


def test_a_refused_key_pauses_the_run_and_retry_goes_on(settings: Settings) -> None:
    """One refused request pauses all jobs of the run; the retry finishes them."""
    pipeline = a_pipeline(
        settings, ModelAccessError("The key is refused."), quoting_the_text, quoting_the_text
    )
    submission = pipeline.submit(PARAGRAPH, f"Another text. {PARAGRAPH}")
    pipeline.work(submission)
    assert [job.status for job in pipeline.jobs(submission)] == [JobStatus.PAUSED] * 2
    assert pipeline.value("SELECT status FROM runs") == "paused"
    assert len(pipeline.model.requests) == 1

    taken_up = retry.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert taken_up == 2
    assert [job.status for job in pipeline.jobs(submission)] == [JobStatus.SUCCEEDED] * 2
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_an_invalid_answer_is_asked_once_more_with_what_was_wrong(settings: Settings) -> None:
    """The repair names the violation, and its answer counts as repaired."""
    pipeline = a_pipeline(settings, '{"main_topic": "x"}', quoting_the_text)
    submission = pipeline.submit(PARAGRAPH)

    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert "key_findings" in pipeline.model.requests[1].user
    assert pipeline.value("SELECT quality FROM results") == 0.8
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE stage = 'repair'") == 1
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE NOT valid") == 1


def test_a_failed_chunk_makes_the_result_partial_and_is_named(small_chunks: Settings) -> None:
    """The other chunks' answer stands, with the characters that it does not cover."""

    def fail_the_second(request: CompletionRequest) -> str:
        if request.task.text.startswith("0. "):
            return "no JSON"
        return quoting_the_text(request)

    pipeline = a_pipeline(small_chunks, fail_the_second, repeat_last=True)
    submission = pipeline.submit(LONG)

    pipeline.work(submission)

    job = pipeline.job(submission)
    result = pipeline.result(job.id)
    assert (job.status, job.error_code) == (JobStatus.PARTIAL, "invalid_answer")
    assert result is not None
    assert 0.5 < result.coverage < 1
    assert pipeline.value("SELECT failed_chunks -> 0 ->> 'position' FROM results") == "0"
    assert pipeline.value("SELECT count(*) FROM failures WHERE what = 'chunk'") == 1


def test_a_synthesis_that_fails_leaves_the_merged_answers(small_chunks: Settings) -> None:
    """What the chunks found is not lost: it is merged by rule, and marked partial."""

    def no_synthesis(request: CompletionRequest) -> str:
        return "no JSON" if request.task.answers else quoting_the_text(request)

    pipeline = a_pipeline(small_chunks, no_synthesis, repeat_last=True)
    submission = pipeline.submit(LONG)

    pipeline.work(submission)

    job = pipeline.job(submission)
    assert (job.status, job.error_code) == (JobStatus.PARTIAL, "invalid_answer")
    assert pipeline.value("SELECT coverage FROM results") == 1.0
    assert pipeline.value("SELECT bool_and(grounded) FROM facts WHERE quote IS NOT NULL")


def test_a_chunk_that_kills_its_workers_is_quarantined(settings: Settings) -> None:
    """After three claims without an end the chunk is set aside, and the job ends with it."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH)
    job = pipeline.job(submission)
    fan_out(pipeline.context, job.id)
    (chunk_id,) = pipeline.open_chunks(job.id)
    for _ in range(3):
        with pipeline.context.sessions.begin() as session:
            assert chunks.claim(session, chunk_id, uuid.uuid4(), timedelta(seconds=60))
        expire_leases(pipeline)
        recover(pipeline.context)

    synthesize(pipeline.context, job.id)

    assert pipeline.value("SELECT status FROM chunks") == ChunkStatus.QUARANTINED
    assert pipeline.job(submission).status == JobStatus.QUARANTINED
    assert pipeline.job(submission).error_code == "worker_lost"


def test_recovery_fans_a_forgotten_job_out(settings: Settings) -> None:
    """A queued job whose message is gone gets another one."""
    pipeline = a_pipeline(settings)
    pipeline.submit(PARAGRAPH)
    pipeline.execute("DELETE FROM outbox")
    pipeline.execute("UPDATE jobs SET last_progress_at = now() - interval '1 hour'")

    rescued = recover(pipeline.context)

    assert rescued["job_message_lost"] == 1
    assert pipeline.value("SELECT task FROM outbox") == "chordwise.fan_out"


def test_recovery_sends_a_lost_chunk_again(settings: Settings) -> None:
    """A pending chunk that nobody claims, while nobody is working, is sent again."""
    pipeline = a_pipeline(settings)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    fan_out(pipeline.context, job.id)
    pipeline.execute("DELETE FROM outbox")
    pipeline.execute("UPDATE chunks SET sent_at = now() - interval '1 hour'")

    rescued = recover(pipeline.context)

    assert rescued["chunk_message_lost"] == 1
    assert pipeline.value("SELECT task FROM outbox") == "chordwise.analyze_chunk"


def test_recovery_finishes_what_the_chord_dropped(settings: Settings) -> None:
    """All chunks ended and no synthesis came: recovery sends it."""
    pipeline = a_pipeline(settings, quoting_the_text)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    fan_out(pipeline.context, job.id)
    for chunk_id in pipeline.open_chunks(job.id):
        analyze_chunk(pipeline.context, job.id, chunk_id)
    pipeline.execute("DELETE FROM outbox")
    pipeline.execute("UPDATE jobs SET last_progress_at = now() - interval '1 hour'")

    rescued = recover(pipeline.context)

    assert rescued["synthesis_missing"] == 1
    assert pipeline.value("SELECT task FROM outbox") == "chordwise.synthesize"


def test_recovery_notices_a_broker_without_memory(settings: Settings) -> None:
    """When the marker is gone, everything that nobody has claimed is sent again at once."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH, f"Another text. {PARAGRAPH}")
    recover(pipeline.context)
    fan_out(pipeline.context, pipeline.jobs(submission)[0].id)
    pipeline.execute("DELETE FROM outbox")
    with pipeline.context.messenger._app.connection_for_write() as connection:
        connection.default_channel.client.flushall()

    rescued = recover(pipeline.context)

    assert rescued["broker_forgot"] == 2
    assert "broker_forgot" not in recover(pipeline.context)


def test_a_new_leader_takes_up_what_a_stop_left_behind(settings: Settings) -> None:
    """Nobody works and nothing is promised: everything unclaimed is sent, and only once."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH, f"Another text. {PARAGRAPH}")
    fan_out(pipeline.context, pipeline.jobs(submission)[0].id)
    pipeline.execute("DELETE FROM outbox")

    sent = [take_up_after_standstill(pipeline.context) for _ in range(2)]

    assert sent == [2, 0]
    assert pipeline.value("SELECT count(*) FROM outbox") == 2


def test_a_new_leader_leaves_work_in_progress_alone(settings: Settings) -> None:
    """As long as one lease lives, somebody is there to take the messages up."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH, f"Another text. {PARAGRAPH}")
    job = pipeline.jobs(submission)[0]
    fan_out(pipeline.context, job.id)
    (chunk_id,) = pipeline.open_chunks(job.id)
    with pipeline.context.sessions.begin() as session:
        assert chunks.claim(session, chunk_id, uuid.uuid4(), timedelta(seconds=60))
    pipeline.execute("DELETE FROM outbox")

    assert take_up_after_standstill(pipeline.context) == 0


def test_what_comes_into_a_cancelled_run_is_cancelled(settings: Settings) -> None:
    """Taking in goes on to its end, but nothing of it is asked, and the account balances."""
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)
    submission.take_in(a_document(PARAGRAPH))
    retry.cancel(pipeline.context.sessions, submission.run_id)
    pipeline.execute("DELETE FROM outbox")

    submission.take_in(a_document(f"Another text. {PARAGRAPH}"))
    submission.close()

    assert {job.status for job in pipeline.jobs(submission)} == {JobStatus.CANCELLED}
    assert pipeline.value("SELECT count(*) FROM outbox") == 0
    assert pipeline.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")


def test_only_one_synthesis_wins(settings: Settings) -> None:
    """The chord's callback and the outbox's message may both arrive."""
    pipeline = a_pipeline(settings, quoting_the_text)
    submission = pipeline.submit(PARAGRAPH)
    pipeline.work(submission)
    job = pipeline.job(submission)

    synthesize(pipeline.context, job.id)

    assert pipeline.value("SELECT count(*) FROM results") == 1
    assert pipeline.value("SELECT count(*) FROM result_history") == 0


def test_a_synthesis_waits_for_every_chunk(small_chunks: Settings) -> None:
    """A callback that fires too early finds chunks open and does nothing."""
    pipeline = a_pipeline(small_chunks, quoting_the_text, repeat_last=True)
    submission = pipeline.submit(LONG)
    job = pipeline.job(submission)
    fan_out(pipeline.context, job.id)
    analyze_chunk(pipeline.context, job.id, pipeline.open_chunks(job.id)[0])

    synthesize(pipeline.context, job.id)

    assert pipeline.job(submission).status == JobStatus.RUNNING
    assert pipeline.result(job.id) is None


def test_the_same_content_in_one_run_is_analyzed_once(settings: Settings) -> None:
    """The second intake points to the first one's document, and the account balances."""
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)

    outcomes = [submission.take_in(a_document(PARAGRAPH)).outcome for _ in range(2)]
    submission.close()

    assert outcomes == [IntakeOutcome.ACCEPTED, IntakeOutcome.DUPLICATE]
    assert len(pipeline.jobs(submission)) == 1
    assert pipeline.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")


def test_the_same_question_in_a_later_run_reuses_the_answer(settings: Settings) -> None:
    """Content and options known: the result is there at once, and no model is asked."""
    pipeline = a_pipeline(settings, quoting_the_text)
    first = pipeline.submit(PARAGRAPH)
    pipeline.work(first)

    second = pipeline.submit(PARAGRAPH)

    job = pipeline.job(second)
    assert job.status == JobStatus.SUCCEEDED
    assert job.reused_from == pipeline.job(first).id
    assert pipeline.result(job.id) is not None
    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM runs WHERE status = 'finished'") == 2


def test_fresh_asks_again(settings: Settings) -> None:
    """With `--fresh` a stored answer does not count."""
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    pipeline.work(pipeline.submit(PARAGRAPH))

    again = pipeline.submit(PARAGRAPH, options=a_run(fresh=True))
    pipeline.work(again)

    assert pipeline.job(again).reused_from is None
    assert len(pipeline.model.requests) == 2


def test_what_cannot_be_read_is_accounted_for(settings: Settings) -> None:
    """An unreadable file is an intake with code and hint, and no job."""
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)
    error = ReadError("scan.pdf is a scan.", "Run OCR.", "unreadable", "needs_ocr")

    taken = submission.take_in(UnreadDocument(source="scan.pdf", error=error))
    submission.close()

    assert taken.outcome is IntakeOutcome.UNREADABLE
    assert pipeline.value("SELECT reason FROM intakes") == "needs_ocr"
    assert pipeline.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_a_cancelled_run_stores_no_late_answer(settings: Settings) -> None:
    """An answer that arrives after the cancellation is dropped."""

    def cancel_meanwhile(request: CompletionRequest) -> str:
        retry.cancel(pipeline.context.sessions, submission.run_id)
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, cancel_meanwhile)
    submission = pipeline.submit(PARAGRAPH)

    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.CANCELLED
    assert pipeline.value("SELECT status FROM chunks") == ChunkStatus.CANCELLED
    assert pipeline.value("SELECT status FROM runs") == "cancelled"


def test_a_retry_asks_only_what_has_not_succeeded(small_chunks: Settings) -> None:
    """A partial job asks its failed chunk again and replaces its result."""
    failing = [True]

    def fail_at_first(request: CompletionRequest) -> str:
        if request.task.text.startswith("0. ") and failing[0]:
            return "no JSON"
        return quoting_the_text(request)

    pipeline = a_pipeline(small_chunks, fail_at_first, repeat_last=True)
    submission = pipeline.submit(LONG)
    pipeline.work(submission)
    before = len(pipeline.model.requests)
    failing[0] = False

    retry.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert len(pipeline.model.requests) == before + 2
    assert pipeline.value("SELECT count(*) FROM result_history") == 1


def test_a_shutdown_hands_its_chunks_back(settings: Settings) -> None:
    """Released leases are pending again at once, with a message, and the attempt is not counted."""

    def shut_down(request: CompletionRequest) -> str:
        assert pipeline.context.leases.release_all() == 1
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, shut_down)
    job = pipeline.job(pipeline.submit(PARAGRAPH))
    fan_out(pipeline.context, job.id)
    (chunk_id,) = pipeline.open_chunks(job.id)
    pipeline.execute("DELETE FROM outbox")

    outcome = analyze_chunk(pipeline.context, job.id, chunk_id)

    assert outcome is ChunkOutcome.NOT_ENDED
    assert pipeline.value("SELECT status = 'pending' AND attempts = 0 FROM chunks")
    assert pipeline.value("SELECT reason FROM outbox") == "shutdown"


@pytest.mark.parametrize("name", ["latest", "", "  ", "a\nb", str(uuid.uuid4())])
def test_names_that_a_command_could_not_tell_apart_are_refused(
    settings: Settings, name: str
) -> None:
    """A run's name is no id, no keyword, and printable; the empty one is made up."""
    pipeline = a_pipeline(settings)
    options = a_run(AnalysisType.SUMMARY)

    named = options.__class__(model=options.model, name=name)

    if name:
        with pytest.raises(UsageError):
            open_run(pipeline.context, named, NOW)
    else:
        assert open_run(pipeline.context, named, NOW).name.startswith("20261124-")


def test_text_that_postgresql_refuses_does_not_lose_the_answer(settings: Settings) -> None:
    """NUL and lone surrogates in an answer are replaced before it is stored."""
    answer = a_summary("rebuilt in 1856").replace("A topic.", "A\\u0000 \\ud800 topic.")
    pipeline = a_pipeline(settings, answer)
    submission = pipeline.submit(PARAGRAPH)

    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    with pipeline.context.sessions() as session:
        topic = session.execute(text("SELECT output ->> 'main_topic' FROM results")).scalar_one()
    assert topic == "A\ufffd \ufffd topic."
