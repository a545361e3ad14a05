"""Tests of the batch lane with a real database and an in-memory provider."""

from __future__ import annotations

from decimal import Decimal

import pytest

from chordwise.pipeline.jobs import run_control
from chordwise.settings import ModelSettings, Settings
from chordwise.storage import batches
from tests.fakes.batch_nights import (
    OTHER,
    RESERVED,
    check_invariants,
    finish,
    handed_in,
    in_batches,
    opened,
    over_the_wire,
    pass_time,
    work_until_finished,
)
from tests.fakes.pipeline import LONG, PARAGRAPH, SCRIPTED, Pipeline, a_pipeline, quoting_the_text
from tests.peers.batch_provider import EXPIRED, MISSING, BatchProvider
from tests.peers.batch_server import serving_batches


@pytest.fixture
def pipeline(small_chunks: Settings, provider: BatchProvider) -> Pipeline:
    return opened(small_chunks, provider)


def test_a_long_document_takes_two_batches(pipeline: Pipeline, provider: BatchProvider) -> None:
    submission = pipeline.submit(LONG, options=in_batches())

    finish(pipeline, provider, submission)

    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert [len(batch.lines) for batch in provider.batches] == [chunks, 1]
    assert pipeline.job(submission).status == "succeeded"
    assert pipeline.value("SELECT coverage FROM results") == 1
    assert pipeline.value("SELECT bool_and(grounded) FROM facts WHERE quote IS NOT NULL")
    assert pipeline.model.requests == []


def test_a_waiting_chunk_holds_no_lease_and_counts_no_attempt(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    provider.holds = True
    submission = pipeline.analyze(PARAGRAPH, options=in_batches())
    pass_time(pipeline)
    pass_time(pipeline)

    row = "SELECT attempts = 0 AND lease_until IS NULL AND due_at > now() + interval '19 hours'"
    assert pipeline.value(f"{row} AND status = 'waiting' FROM chunks")
    assert pipeline.value("SELECT error_code FROM chunks") == "awaiting_batch"
    assert pipeline.job(submission).status == "waiting"


@pytest.mark.parametrize("fate", [EXPIRED, MISSING, "429"])
def test_only_questions_without_an_answer_are_submitted_again(
    pipeline: Pipeline, provider: BatchProvider, fate: str
) -> None:
    provider.fate = lambda question, before: (
        fate if "Bregenz" in question and not before else "answered"
    )
    submission = pipeline.submit(PARAGRAPH, OTHER, options=in_batches())

    finish(pipeline, provider, submission)

    assert [len(batch.lines) for batch in provider.batches] == [2, 1]
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}


def test_an_answer_read_twice_is_stored_once(pipeline: Pipeline, provider: BatchProvider) -> None:
    """A scheduler that was interrupted while it fetched reads the files again."""
    work_until_finished(pipeline, pipeline.submit(PARAGRAPH, options=in_batches("100")))
    spent = "SELECT spent_usd FROM budgets WHERE run_id IS NOT NULL"
    before = pipeline.value(spent)

    pipeline.execute("UPDATE batches SET status = 'running', ended_at = NULL")
    pass_time(pipeline)

    assert pipeline.value("SELECT status FROM batches") == "ended"
    assert pipeline.value(spent) == before
    check_invariants(pipeline, provider)


def test_the_cache_is_used_before_any_batch(pipeline: Pipeline, provider: BatchProvider) -> None:
    """The price in the ledger is half of 100 and 200 dollars for a million tokens, once each."""
    finish(pipeline, provider, pipeline.submit(PARAGRAPH, options=in_batches()))
    assert pipeline.rows("SELECT cost_usd, cost_basis, service_tier, valid FROM model_calls") == [
        (Decimal("0.01"), "settings", "batch", True)
    ]
    assert pipeline.value("SELECT lane FROM runs") == "batch"

    second = pipeline.analyze(PARAGRAPH, options=in_batches(threshold=0.4))

    assert pipeline.job(second).status == "succeeded"
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE cache_hit") == 1
    check_invariants(pipeline, provider)


def test_questions_wait_for_a_full_batch(small_chunks: Settings, provider: BatchProvider) -> None:
    pipeline = opened(small_chunks, provider, gather_seconds=3_600, max_requests=2)
    pipeline.analyze(PARAGRAPH, OTHER, f"{OTHER} Again.", options=in_batches())

    pass_time(pipeline)
    pass_time(pipeline)

    assert [len(batch.lines) for batch in provider.batches] == [2]
    assert pipeline.value("SELECT count(*) FROM batch_requests WHERE status = 'pending'") == 1


def test_a_batch_is_within_the_limit_of_bytes(pipeline: Pipeline, provider: BatchProvider) -> None:
    pipeline.analyze(PARAGRAPH, OTHER, f"{OTHER} Again.", options=in_batches())
    sizes = pipeline.rows("SELECT body_bytes, octet_length(body) FROM batch_requests ORDER BY id")
    first, second = (int(str(size)) for size, _ in sizes[:2])

    with pipeline.context.database.write() as session:
        taken = [
            len(batches.lock_next(session, SCRIPTED, 1_000, most))
            for most in (1, first, first + second, 10 * (first + second))
        ]

    assert taken == [1, 1, 2, 3]
    assert all(counted == written for counted, written in sizes)
    assert provider.batches == []


def test_a_paused_job_submits_no_questions(pipeline: Pipeline, provider: BatchProvider) -> None:
    submission = pipeline.analyze(PARAGRAPH, options=in_batches())
    pipeline.execute("UPDATE jobs SET status = 'paused'")
    pass_time(pipeline)
    assert provider.batches == []

    run_control.retry(pipeline.context, submission.run_id)

    finish(pipeline, provider, submission)
    assert len(handed_in(provider)) == 1


def test_a_cost_reported_with_a_batch_settles_the_budget(small_chunks: Settings) -> None:
    """Without a price, which was removed from the settings meanwhile, nothing is submitted."""
    with serving_batches() as server:
        server.cost_usage = {"cost": 0.03}
        pipeline = over_the_wire(small_chunks, "openai", server.base_url)

        work_until_finished(pipeline, pipeline.submit(PARAGRAPH, options=in_batches("5")))

        calls = pipeline.rows("SELECT cost_usd, cost_basis, service_tier FROM model_calls")
        accounts = pipeline.rows("SELECT DISTINCT spent_usd, reserved_usd FROM budget_accounts")
        assert calls == [(Decimal("0.03"), "reported", "batch")]
        assert accounts == [(Decimal("0.03"), Decimal(0))]
        submission = pipeline.submit(OTHER, options=in_batches("5"))
        known = ModelSettings(
            provider="openai", model=SCRIPTED, base_url=server.base_url, batch=True
        )
        unpriced = a_pipeline(small_chunks, quoting_the_text, model_settings=known)
        requests = unpriced.value("SELECT count(*) FROM batch_requests")
        unpriced.work(submission)
        assert unpriced.job(submission).status == "paused"
        assert unpriced.value("SELECT count(*) FROM batch_requests") == requests
        assert server.journal == []


@pytest.mark.parametrize("is_late", [False, True])
def test_a_cancelled_run_asks_nothing_further(
    pipeline: Pipeline,
    provider: BatchProvider,
    is_late: bool,  # noqa: FBT001 - a parameter
) -> None:
    """An answer before the provider received the cancellation is paid for, not used."""
    provider.holds = True
    handed = pipeline.analyze(PARAGRAPH, options=in_batches("100"))
    pass_time(pipeline)
    kept = pipeline.analyze(OTHER, options=in_batches("200"))
    assert pipeline.value("SELECT count(*) FROM batch_requests WHERE status = 'pending'") == 1

    for submission in (handed, kept):
        run_control.cancel(pipeline.context.database, submission.run_id)
    provider.holds = not is_late
    for _ in range(3):
        pass_time(pipeline)

    assert provider.batches[0].is_cancelled is not is_late
    assert len(provider.batches) == 1
    spent = pipeline.value("SELECT spent_usd FROM budgets WHERE cap_usd = 100")
    assert spent == Decimal("0.01" if is_late else 0)
    assert pipeline.value("SELECT count(*) FROM results") == 0
    check_invariants(pipeline, provider)


def test_a_run_whose_budget_is_used_up_pauses(pipeline: Pipeline, provider: BatchProvider) -> None:
    """The maximum cost of a question is reserved before it waits, at the price of batches."""
    submission = pipeline.analyze(PARAGRAPH, options=in_batches("0.10"))
    pass_time(pipeline)

    assert pipeline.job(submission).error_code == "budget_exceeded"
    assert provider.batches == []

    run_control.retry(pipeline.context, submission.run_id, Decimal(100))
    pipeline.work(submission)
    assert pipeline.value(f"SELECT ({RESERVED}) > 0")
    finish(pipeline, provider, submission)


def test_a_run_without_quota_pauses_until_paid(pipeline: Pipeline, provider: BatchProvider) -> None:
    provider.refuses = "billing_hard_limit_reached"
    submission = pipeline.submit(PARAGRAPH, options=in_batches())
    for _ in range(3):
        pipeline.work(submission)
        pass_time(pipeline)
    pipeline.work(submission)
    assert pipeline.job(submission).status == "paused"
    assert pipeline.job(submission).error_code == "quota_exceeded"

    run_control.retry(pipeline.context, submission.run_id)

    finish(pipeline, provider, submission)
    assert pipeline.job(submission).status == "succeeded"


def test_an_unknown_batch_is_finally_given_up(pipeline: Pipeline, provider: BatchProvider) -> None:
    submission = pipeline.analyze(PARAGRAPH, options=in_batches())
    pass_time(pipeline)
    provider.is_forgetful = True
    pass_time(pipeline)
    assert pipeline.value("SELECT status FROM batches") == "running"

    pipeline.execute("UPDATE batches SET created_at = now() - interval '4 days'")
    pass_time(pipeline)
    assert pipeline.value("SELECT status FROM batches") == "failed"
    assert pipeline.value("SELECT cost_usd IS NULL FROM model_calls")

    provider.is_forgetful = False
    work_until_finished(pipeline, submission)
    assert pipeline.job(submission).status == "succeeded"
