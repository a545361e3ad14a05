"""The life of a job, step by step, over a real database and broker with a scripted model."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import text

from chordwise.domain.states import JobStatus
from chordwise.errors import AnswerTimeoutError
from chordwise.llm.model import CompletionRequest
from chordwise.settings import ModelSettings, Settings
from tests.fakes.pipeline import (
    LONG,
    PARAGRAPH,
    a_pipeline,
    a_run,
    a_summary,
    quoting_the_text,
)


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
        provider="scripted", model="script-1", context_tokens=1_400, max_output_tokens=300
    )
    submission = pipeline.submit(LONG)

    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    calls = pipeline.value("SELECT count(*) FROM model_calls WHERE stage = 'synthesize'")
    assert isinstance(calls, int)
    assert calls > 2


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
    message = pipeline.value("SELECT error_message FROM jobs")
    assert str(message).startswith("1 of ")
    assert "of them so" not in str(message)


def test_a_single_chunk_is_not_counted_in_its_reason(settings: Settings) -> None:
    """The reason itself is what the reader wants."""
    pipeline = a_pipeline(settings, "no JSON", repeat_last=True)
    submission = pipeline.submit(PARAGRAPH)

    pipeline.work(submission)

    reasons = pipeline.rows("SELECT error_message FROM jobs UNION SELECT error_message FROM chunks")
    assert len(reasons) == 1
    assert "chunks failed" not in str(reasons[0][0])


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


def test_text_that_postgresql_refuses_does_not_lose_the_answer(settings: Settings) -> None:
    """NUL and lone surrogates in an answer are replaced before it is stored."""
    answer = a_summary("rebuilt in 1856").replace("A topic.", "A\\u0000 \\ud800 topic.")
    pipeline = a_pipeline(settings, answer)
    submission = pipeline.submit(PARAGRAPH)

    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    with pipeline.context.database.read() as session:
        topic = session.execute(text("SELECT output ->> 'main_topic' FROM results")).scalar_one()
    assert topic == "A\ufffd \ufffd topic."


def test_an_answer_of_the_built_in_model_that_takes_too_long_fails(settings: Settings) -> None:
    """Its time is an outcome of the chunk, with what to do about it, and is not asked for again."""
    hasty = ModelSettings(provider="extractive", timeout_seconds=1e-9)
    pipeline = a_pipeline(settings.model_copy(update={"models": {"hasty": hasty}}))
    submission = pipeline.submit(PARAGRAPH, options=replace(a_run(), model="hasty"))

    pipeline.work(submission)

    job = pipeline.job(submission)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "answer_timeout")
    assert pipeline.rows("SELECT state, error_code, hint FROM failures WHERE what = 'chunk'") == [
        ("failed", "answer_timeout", AnswerTimeoutError.usual_hint)
    ]
    assert pipeline.rows("SELECT error_code FROM model_calls") == [("answer_timeout",)]
    assert pipeline.value("SELECT status FROM runs") == "finished"
