"""Tests of the steps of a job, and of intake, reuse, retry and cancellation in a run."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest
from sqlalchemy import text

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import JobStatus
from chordwise.errors import AnswerTimeoutError, UsageError
from chordwise.llm.limits.permits import Priority
from chordwise.llm.middleware.metered import CallOutcome, call_start
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.submit import open_run
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.step import ledger_of
from chordwise.pipeline.runtime.leases import Lease
from chordwise.settings import ModelSettings, Settings
from tests.fakes.completion_requests import a_request
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import (
    LONG,
    NOW,
    PARAGRAPH,
    a_pipeline,
    a_run,
    a_summary,
    quoting_the_text,
)

QUOTES_ARE_IN_PLACE = (
    "SELECT bool_and(substr(d.text, f.start_char + 1, f.end_char - f.start_char) = f.quote)"
    " FROM facts f JOIN jobs j ON j.id = f.job_id JOIN documents d ON d.id = j.document_id"
    " WHERE f.grounded"
)


def test_a_document_has_a_result_facts_and_a_ledger_entry(settings: Settings) -> None:
    pipeline = a_pipeline(settings, a_summary("It cost more than the town had planned."))
    submission = pipeline.analyze(PARAGRAPH)

    job = pipeline.job(submission)
    result = pipeline.result(job.id)
    assert job.status == JobStatus.SUCCEEDED
    assert (result.confidence, result.quality, result.coverage) == (0.7, 1.0, 1.0)
    assert pipeline.value(QUOTES_ARE_IN_PLACE)
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE valid AND cost_usd = 0") == 1
    assert pipeline.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_a_long_document_is_analyzed_in_chunks_and_synthesized(small_chunks: Settings) -> None:
    pipeline = a_pipeline(small_chunks, quoting_the_text, repeat_last=True)
    submission = pipeline.analyze(LONG)

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


def fields_of(*said: tuple[str, str | None, str | None]) -> str:
    """Return an extraction of items with values and quotes; `None` means not mentioned."""
    fields = [a_field(item, value, 9, quote=quote) for item, value, quote in said]
    return json.dumps({"fields": fields})


def test_the_grounding_of_quotes_is_stored(settings: Settings) -> None:
    text = (
        "The fee of **1,200 euros** is due.\nAll disputes, however small, go to the court of Oslo."
    )
    said = [
        ("fee", "1,500 euros", "The fee of 1,200 euros is due."),
        ("court", "Oslo", "All disputes, however ... go to the court of Oslo."),
        ("lender", "Ann Lee", "Ann Lee lends it."),
        ("term", None, None),
    ]
    pipeline = a_pipeline(settings, fields_of(*said))
    options = AnalysisOptions(instructions="fee, court, lender, term")
    pipeline.analyze(text, options=a_run(AnalysisType.EXTRACTION, analysis=options))

    assert pipeline.rows(
        "SELECT item, grounded, grounding, value_in_quote FROM fact_quotes ORDER BY item DESC"
    ) == [
        ("term", None, None, None),
        ("lender", False, "none", True),
        ("fee", True, "normalized", False),
        ("court", True, "joined", True),
    ]
    assert pipeline.rows("SELECT quality, needs_review FROM results") == [(0.333, True)]
    assert pipeline.value(QUOTES_ARE_IN_PLACE)


def test_a_failed_chunk_makes_the_result_partial(small_chunks: Settings) -> None:
    def fail_the_second(request: CompletionRequest) -> str:
        if request.task.text.startswith("0. "):
            return "no JSON"
        return quoting_the_text(request)

    pipeline = a_pipeline(small_chunks, fail_the_second, repeat_last=True)
    submission = pipeline.analyze(LONG)

    job = pipeline.job(submission)
    result = pipeline.result(job.id)
    assert (job.status, job.error_code) == (JobStatus.PARTIAL, "invalid_answer")
    assert 0.5 < result.coverage < 1
    assert result.quality == pytest.approx(result.coverage, abs=0.001)
    assert result.needs_review
    assert str(result.review_reason).startswith("1 of ")
    assert pipeline.value("SELECT failed_chunks -> 0 ->> 'position' FROM results") == "0"
    assert pipeline.value("SELECT count(*) FROM failures WHERE what = 'chunk'") == 1
    message = pipeline.value("SELECT error_message FROM jobs")
    assert str(message).startswith("1 of ")
    assert "of them for this" not in str(message)


@pytest.mark.parametrize(
    ("defective", "step", "kept"),
    [("analyze_chunk.ask", "this chunk", 0), ("synthesize.examine", "the synthesis", 4)],
)
def test_a_defect_ends_its_step_visibly(
    small_chunks: Settings, monkeypatch: pytest.MonkeyPatch, defective: str, step: str, kept: int
) -> None:
    """The job fails with a message that leads to the log, and the run ends."""

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(f"chordwise.pipeline.jobs.{defective}", fail)
    pipeline = a_pipeline(small_chunks, quoting_the_text, repeat_last=True)
    submission = pipeline.analyze(LONG)

    job = pipeline.job(submission)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "internal")
    assert f"A bug in Chordwise stopped {step} (RuntimeError)." in str(job.error_message)
    assert job.hint == "See the worker's log."
    succeeded = pipeline.value("SELECT count(*) FROM chunks WHERE status = 'succeeded'")
    assert succeeded == kept
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_the_reason_of_a_single_chunk_has_no_count(settings: Settings) -> None:
    pipeline = a_pipeline(settings, "no JSON", repeat_last=True)
    pipeline.analyze(PARAGRAPH)

    reasons = pipeline.rows("SELECT error_message FROM jobs UNION SELECT error_message FROM chunks")
    assert len(reasons) == 1
    assert "chunks failed" not in str(reasons[0][0])


def test_text_that_postgresql_refuses_does_not_lose_the_answer(settings: Settings) -> None:
    answer = a_summary("rebuilt in 1856").replace("A topic.", "A\\u0000 \\ud800 topic.")
    pipeline = a_pipeline(settings, answer)
    submission = pipeline.analyze(PARAGRAPH)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    with pipeline.context.database.read() as session:
        topic = session.execute(text("SELECT output ->> 'main_topic' FROM results")).scalar_one()
    assert topic == "A\ufffd \ufffd topic."


def test_a_slow_answer_of_the_built_in_model_fails(settings: Settings) -> None:
    hasty = ModelSettings(provider="extractive", timeout_seconds=1e-9)
    pipeline = a_pipeline(settings.model_copy(update={"models": {"hasty": hasty}}))
    submission = pipeline.analyze(PARAGRAPH, options=replace(a_run(), model="hasty"))

    job = pipeline.job(submission)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "answer_timeout")
    failures = "SELECT what, state, error_code, hint FROM failures"
    assert pipeline.rows(failures) == [
        ("job", "failed", "answer_timeout", AnswerTimeoutError.usual_hint)
    ]
    assert pipeline.rows("SELECT error_code FROM model_calls") == [("answer_timeout",)]
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_the_same_question_in_a_later_run_reuses_the_answer(settings: Settings) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    first = pipeline.analyze(PARAGRAPH)

    job = pipeline.job(pipeline.submit(PARAGRAPH))

    assert job.status == JobStatus.SUCCEEDED
    assert job.reused_from == pipeline.job(first).id
    assert pipeline.result(job.id).output
    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM runs WHERE status = 'finished'") == 2
    again = pipeline.analyze(PARAGRAPH, options=a_run(fresh=True))
    assert pipeline.job(again).reused_from is None
    assert len(pipeline.model.requests) == 2


def test_the_priority_of_a_run_applies_to_its_calls(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    runs = {
        priority: pipeline.submit(
            PARAGRAPH, options=replace(a_run(), nightly=priority is Priority.NIGHTLY, fresh=True)
        )
        for priority in Priority
    }

    for priority, submission in runs.items():
        (chunk_id,) = pipeline.open_chunks(pipeline.job(submission).id)
        (claimed,) = pipeline.context.stores.chunks.claim([(chunk_id, uuid.uuid4())]).values()
        assert claimed.priority == priority


def test_a_call_that_was_not_made_is_withdrawn(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH)
    (chunk_id,) = pipeline.open_chunks(pipeline.job(submission).id)
    (claimed,) = pipeline.context.stores.chunks.claim([(chunk_id, uuid.uuid4())]).values()
    lease = Lease(job_id=claimed.job_id, chunk_id=claimed.id, token=claimed.claim_token)
    ledger = ledger_of(pipeline.context, claimed, lease)
    start = call_start(pipeline.model.profile, a_request())

    ended, unmade = ledger.begin(start), ledger.begin(start)
    ledger.finish(ended, CallOutcome(latency_ms=1))
    ledger.flush()
    for call_id in (ended, unmade):
        ledger.withdraw(call_id)

    assert pipeline.value("SELECT string_agg(CAST(id AS text), ' ') FROM model_calls") == str(ended)


def test_a_retry_repeats_only_what_has_not_succeeded(small_chunks: Settings) -> None:
    failing = [True]

    def fail_at_first(request: CompletionRequest) -> str:
        if request.task.text.startswith("0. ") and failing[0]:
            return "no JSON"
        return quoting_the_text(request)

    pipeline = a_pipeline(small_chunks, fail_at_first, repeat_last=True)
    submission = pipeline.analyze(LONG)
    before = len(pipeline.model.requests)
    failing[0] = False

    run_control.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert len(pipeline.model.requests) == before + 2
    assert pipeline.value("SELECT count(*) FROM result_history") == 1


NAMES: list[str] = ["latest", "", "  ", "a\nb", str(uuid.UUID(int=7))]


def test_ambiguous_names_of_runs_are_refused(settings: Settings) -> None:
    for name in NAMES:
        pipeline = a_pipeline(settings)
        options = a_run(AnalysisType.SUMMARY)

        duplicate = options.__class__(model=options.model, name=name)

        if name:
            with pytest.raises(UsageError):
                open_run(pipeline.context, duplicate, NOW)
        else:
            assert open_run(pipeline.context, duplicate, NOW).name.startswith("20261124-")


def test_a_model_receives_the_members_of_a_schema_in_their_order(settings: Settings) -> None:
    """A model answers in this order, and what it wrote before is what it answers from."""
    names = ["what_the_text_says", "amount", "id"]
    schema: JsonObject = {"type": "object", "properties": {name: {} for name in names}}
    asked: list[list[str]] = []

    def answering(request: CompletionRequest) -> str:
        asked.append([*json_values.as_object((request.task.options.schema or {})["properties"])])
        return json.dumps({"data": {}, "evidence": []})

    pipeline = a_pipeline(settings, answering, repeat_last=True)
    analysis = AnalysisOptions(schema=schema)
    pipeline.analyze(PARAGRAPH, options=a_run(AnalysisType.EXTRACTION, analysis=analysis))

    assert asked == [names]
