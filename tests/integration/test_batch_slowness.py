"""A provider of batches with a full queue, and one that takes its day or longer."""

from __future__ import annotations

from decimal import Decimal

import pytest

from chordwise.pipeline.jobs import retry
from chordwise.settings import Settings
from tests.fakes.batch_nights import (
    OTHER,
    RESERVED,
    handed_in,
    in_batches,
    judge,
    opened,
    pass_hours,
    pass_the_night,
    pass_time,
    schedule,
)
from tests.fakes.pipeline import (
    LONG,
    PARAGRAPH,
    Pipeline,
)
from tests.peers.batch_provider import EXPIRED, BatchProvider


@pytest.fixture
def pipeline(small_chunks: Settings, provider: BatchProvider) -> Pipeline:
    """Open a pipeline that looks at a batch after half a minute, and later and later."""
    return opened(small_chunks, provider, poll_seconds=30)


def test_a_provider_whose_queue_is_full_gets_smaller_batches_one_by_one(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """Which counts as no attempt: nothing goes online at twice the price for it."""
    texts = [f"{PARAGRAPH} It was number {number}." for number in range(8)]
    submission = pipeline.submit(*texts, options=in_batches("500"))
    pipeline.work(submission)
    for _ in range(2):
        provider.refuses = "token_limit_exceeded"
        schedule(pipeline)
        pass_time(pipeline)

    pass_the_night(pipeline, submission)

    sizes = [len(batch.lines) for batch in provider.batches]
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert pipeline.model.requests == []
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}
    judge(pipeline, provider)


def test_a_question_that_found_no_room_waits_before_it_is_handed_in_again(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """Longer each time, and until the night is over; then it is asked online."""
    submission = pipeline.submit(PARAGRAPH, options=in_batches("100"))
    pipeline.work(submission)
    for _ in range(6):
        provider.refuses = "token_limit_exceeded"
        pass_time(pipeline)
        pass_time(pipeline)
    count = len(provider.batches)
    assert count > 3
    for _ in range(3):
        schedule(pipeline)
    assert len(provider.batches) == count
    assert pipeline.model.requests == []

    pass_hours(pipeline, 20)
    pipeline.work(submission)

    assert len(pipeline.model.requests) == 1
    assert pipeline.job(submission).status == "succeeded"
    judge(pipeline, provider)


def test_a_file_that_is_too_large_is_cut(pipeline: Pipeline, provider: BatchProvider) -> None:
    """Down to one question, which then is asked online."""
    provider.statuses = {"upload": 413}
    submission = pipeline.submit(PARAGRAPH, OTHER, options=in_batches("100"))

    pass_the_night(pipeline, submission)

    assert provider.batches == []
    assert pipeline.value("SELECT max(request_count) FROM batches") == 2
    assert pipeline.value("SELECT min(request_count) FROM batches") == 1
    assert len(pipeline.model.requests) == 2
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}


def test_the_clock_goes_on_while_a_provider_takes_its_day(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """Few looks in many hours; at the deadline the rest is asked online, and the batch ends."""
    provider.holds = True
    submission = pipeline.submit(LONG, options=in_batches("500"))
    pipeline.work(submission)
    schedule(pipeline)
    for hour in range(1, 20):
        pass_hours(pipeline, 1)
        for _ in range(3):
            schedule(pipeline)
        pipeline.work(submission)
        assert provider.asked["look"] == hour
    assert pipeline.model.requests == []
    assert provider.asked["cancel"] == 0

    pass_hours(pipeline, 1.1)
    pipeline.work(submission)
    schedule(pipeline)

    assert pipeline.job(submission).status == "succeeded"
    assert provider.batches[0].is_cancelled
    pass_hours(pipeline, 1)
    schedule(pipeline)
    assert pipeline.value("SELECT status FROM batches") == "ended"
    assert len(provider.batches) == 1
    judge(pipeline, provider)


def test_a_batch_that_expires_after_a_day_has_its_answers_fetched(
    small_chunks: Settings, provider: BatchProvider
) -> None:
    """What was done by then is paid for and used; the rest goes into the next one."""
    pipeline = opened(small_chunks, provider, poll_seconds=30, spill_over_hours=48)
    provider.holds = True
    provider.fate = lambda question, before: (
        EXPIRED if "Bregenz" in question and not before else "answered"
    )
    submission = pipeline.submit(PARAGRAPH, OTHER, options=in_batches("100"))
    pipeline.work(submission)
    schedule(pipeline)
    pass_hours(pipeline, 24)
    provider.holds = False

    schedule(pipeline)
    pipeline.work(submission)

    assert sorted(job.status for job in pipeline.jobs(submission)) == ["succeeded", "waiting"]
    pass_the_night(pipeline, submission)
    assert [len(batch.lines) for batch in provider.batches] == [2, 1]
    assert pipeline.model.requests == []
    judge(pipeline, provider)


def test_a_batch_that_never_ends_is_forgotten_after_days(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """Nobody looks at it for ever; what it did cost counts in full."""
    provider.holds = True
    submission = pipeline.submit(PARAGRAPH, options=in_batches("100"))
    pipeline.work(submission)
    schedule(pipeline)
    pass_hours(pipeline, 21)
    pipeline.work(submission)
    provider.statuses = {"cancel": 503}
    schedule(pipeline)

    pass_hours(pipeline, 60)
    provider.statuses = {}
    schedule(pipeline)

    assert pipeline.value("SELECT status FROM batches") == "failed"
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE finished_at IS NULL") == 0
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE cost_usd IS NULL") == 1
    assert pipeline.value(RESERVED) == 0


@pytest.mark.parametrize("scope", ["run:%", "day:%"])
def test_money_that_is_gone_when_the_answers_come(
    small_chunks: Settings, provider: BatchProvider, scope: str
) -> None:
    """What was reserved is paid and its answers are stored; the next question pauses the run."""
    settings = small_chunks.model_copy(
        update={"budget": small_chunks.budget.model_copy(update={"usd_per_day": Decimal(900)})}
    )
    pipeline = opened(settings, provider)
    submission = pipeline.submit(LONG, options=in_batches("500"))
    pipeline.work(submission)
    pass_time(pipeline)
    before = pipeline.value(RESERVED)
    pipeline.execute(
        "UPDATE budgets SET spent_usd = cap_usd - reserved_usd WHERE scope LIKE :scope", scope=scope
    )

    for _ in range(3):
        pass_time(pipeline)
        pipeline.execute(
            "UPDATE budgets SET spent_usd = cap_usd WHERE scope LIKE :scope AND reserved_usd = 0",
            scope=scope,
        )
        pipeline.work(submission)

    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert before
    assert pipeline.value("SELECT count(*) FROM chunks WHERE status = 'succeeded'") == chunks
    assert pipeline.job(submission).error_code == "budget_exceeded"
    assert [len(batch.lines) for batch in provider.batches] == [chunks]

    pipeline.execute("UPDATE budgets SET spent_usd = 1 WHERE scope LIKE :scope", scope=scope)
    retry.retry(pipeline.context, submission.run_id)
    pass_the_night(pipeline, submission)
    assert [len(batch.lines) for batch in provider.batches] == [chunks, 1]
    assert len(handed_in(provider)) == pipeline.value("SELECT count(*) FROM model_calls")
    judge(pipeline, provider)
