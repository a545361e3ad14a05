"""What ends the batch lane of a run: its deadline, a cancellation, or money that is gone."""

from __future__ import annotations

from decimal import Decimal

import pytest

from chordwise.pipeline.jobs import retry
from chordwise.settings import Settings
from tests.fakes.batch_nights import (
    OTHER,
    RESERVED,
    in_batches,
    judge,
    opened,
    pass_the_night,
    pass_time,
)
from tests.fakes.pipeline import PARAGRAPH, Pipeline
from tests.peers.batch_provider import BatchProvider


@pytest.fixture
def pipeline(small_chunks: Settings, provider: BatchProvider) -> Pipeline:
    """Open a pipeline that hands in and looks at once; online, its model answers properly."""
    return opened(small_chunks, provider)


def test_after_the_deadline_the_rest_is_asked_online(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """The batch is cancelled; what it answers later is paid for and not used."""
    provider.holds = True
    submission = pipeline.submit(PARAGRAPH, options=in_batches("100"))
    pipeline.work(submission)
    pass_time(pipeline)
    pipeline.execute("UPDATE jobs SET batch_until = now()")
    pipeline.execute("UPDATE chunks SET due_at = now()")

    pipeline.work(submission)

    assert pipeline.job(submission).status == "succeeded"
    assert len(pipeline.model.requests) == 1
    pass_time(pipeline)
    assert provider.batches[0].is_cancelled
    pass_time(pipeline)
    assert pipeline.value("SELECT status FROM batches") == "ended"
    judge(pipeline, provider)


def test_a_cancelled_run_asks_nothing_more(pipeline: Pipeline, provider: BatchProvider) -> None:
    """What was not handed in is dropped, with its money; what was is cancelled at the provider."""
    provider.holds = True
    handed = pipeline.submit(PARAGRAPH, options=in_batches("100"))
    pipeline.work(handed)
    pass_time(pipeline)
    kept = pipeline.submit(OTHER, options=in_batches("100"))
    pipeline.work(kept)
    assert pipeline.value("SELECT count(*) FROM batch_requests WHERE status = 'pending'") == 1

    for submission in (handed, kept):
        retry.cancel(pipeline.context.database, submission.run_id)
    for _ in range(3):
        pass_time(pipeline)

    assert provider.batches[0].is_cancelled
    assert len(provider.batches) == 1
    assert pipeline.value("SELECT count(*) FROM results") == 0
    judge(pipeline, provider)


def test_a_late_answer_of_a_cancelled_run_is_paid_for(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """It came before the provider heard of it: ledger and budget know, and nobody uses it."""
    provider.holds = True
    submission = pipeline.submit(PARAGRAPH, options=in_batches("100"))
    pipeline.work(submission)
    pass_time(pipeline)
    retry.cancel(pipeline.context.database, submission.run_id)
    provider.holds = False

    pass_time(pipeline)

    assert pipeline.value("SELECT spent_usd FROM budgets WHERE run_id IS NOT NULL") == Decimal(
        "0.01"
    )
    assert pipeline.value("SELECT count(*) FROM results") == 0
    judge(pipeline, provider)


def test_a_run_without_money_pauses(pipeline: Pipeline, provider: BatchProvider) -> None:
    """The most that a question can cost is reserved before it waits, at the price of batches."""
    submission = pipeline.submit(PARAGRAPH, options=in_batches("0.10"))
    pipeline.work(submission)
    pass_time(pipeline)

    assert pipeline.job(submission).error_code == "budget_exceeded"
    assert provider.batches == []

    retry.retry(pipeline.context, submission.run_id, Decimal(100))
    pipeline.work(submission)
    assert pipeline.value(f"SELECT ({RESERVED}) > 0")
    pass_the_night(pipeline, submission)
    judge(pipeline, provider)


def test_a_provider_without_quota_pauses_the_run_until_somebody_pays(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """The batch is turned away as a whole, and `retry` hands its questions in again."""
    provider.refuses = "billing_hard_limit_reached"
    submission = pipeline.submit(PARAGRAPH, options=in_batches())
    for _ in range(3):
        pipeline.work(submission)
        pass_time(pipeline)
    pipeline.work(submission)
    assert pipeline.job(submission).status == "paused"
    assert pipeline.job(submission).error_code == "quota_exceeded"

    retry.retry(pipeline.context, submission.run_id)

    pass_the_night(pipeline, submission)
    assert pipeline.job(submission).status == "succeeded"
    judge(pipeline, provider)


def test_a_batch_that_the_provider_forgot_is_given_up_in_the_end(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """Nobody knows what it did cost; its questions are handed in again."""
    submission = pipeline.submit(PARAGRAPH, options=in_batches())
    pipeline.work(submission)
    pass_time(pipeline)
    provider.is_forgetful = True
    pass_time(pipeline)
    assert pipeline.value("SELECT status FROM batches") == "running"

    pipeline.execute("UPDATE batches SET created_at = now() - interval '4 days'")
    pass_time(pipeline)
    assert pipeline.value("SELECT status FROM batches") == "failed"
    assert pipeline.value("SELECT cost_usd IS NULL FROM model_calls")

    provider.is_forgetful = False
    pass_the_night(pipeline, submission)
    assert pipeline.job(submission).status == "succeeded"
