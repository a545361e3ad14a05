"""Tests of batches at a provider that fails, has a full queue, or takes a day or longer."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import cast

import pytest

from chordwise.llm.batching import BatchState, LineOutcome, PreparedBatch
from chordwise.pipeline import batches
from chordwise.pipeline.jobs import run_control
from chordwise.settings import Settings
from tests.fakes.batch_nights import (
    OTHER,
    RESERVED,
    check_invariants,
    finish,
    handed_in,
    in_batches,
    opened,
    pass_hours,
    pass_time,
    schedule,
    work_until_finished,
)
from tests.fakes.in_memory_batches import InMemoryBatches
from tests.fakes.pipeline import LONG, PARAGRAPH, SCRIPTED, Pipeline, a_pipeline, quoting_the_text
from tests.peers.batch_provider import EXPIRED, BatchProvider

RUNNING = "SELECT status = 'running' FROM batches"
NEXT_POLL = "SELECT extract(epoch FROM poll_at - clock_timestamp())::float FROM batches"


@pytest.fixture
def pipeline(small_chunks: Settings, provider: BatchProvider) -> Pipeline:
    return opened(small_chunks, provider, poll_seconds=30)


def seconds_to_the_next_poll(pipeline: Pipeline) -> float:
    seconds = pipeline.value(NEXT_POLL)
    assert isinstance(seconds, float)
    return seconds


@pytest.mark.parametrize(("operation", "status"), [("upload", 429), ("results", 503)])
def test_a_busy_provider_is_retried_after_the_requested_pause(
    pipeline: Pipeline, provider: BatchProvider, operation: str, status: int
) -> None:
    provider.statuses, provider.retry_after = {operation: status}, 400
    submission = pipeline.analyze(PARAGRAPH, options=in_batches("100"))
    pass_time(pipeline)
    pass_time(pipeline)
    requests = provider.asked[operation]

    for _ in range(3):
        schedule(pipeline)

    assert provider.asked[operation] == requests
    assert 300 < seconds_to_the_next_poll(pipeline) <= 400
    assert pipeline.value("SELECT error_code IS NOT NULL FROM batches")
    assert pipeline.job(submission).status == "waiting"
    provider.statuses = {}
    finish(pipeline, provider, submission)
    assert len(provider.batches) == 1
    assert pipeline.value("SELECT error_code IS NULL FROM batches")


def test_without_retry_after_the_pauses_grow(pipeline: Pipeline, provider: BatchProvider) -> None:
    provider.statuses = {"retrieve": 500}
    pipeline.analyze(PARAGRAPH, options=in_batches())
    pauses = []
    for _ in range(12):
        pass_time(pipeline)
        pauses.append(round(seconds_to_the_next_poll(pipeline)))

    # A pause is read a moment after it has begun.
    assert all(after >= before - 1 for before, after in pairwise(pauses))
    assert pauses[0] == pytest.approx(30, abs=1)
    longest = pipeline.context.settings.batch.max_poll_seconds
    assert pauses[-1] == pytest.approx(longest, abs=1)


@pytest.mark.parametrize(
    ("operation", "status", "online"), [("upload", 401, 0), ("create", 401, 0), ("upload", 404, 2)]
)
def test_a_wrong_key_pauses_the_run_before_anything_is_submitted(
    pipeline: Pipeline,
    provider: BatchProvider,
    small_chunks: Settings,
    operation: str,
    status: int,
    online: int,
) -> None:
    """A server without a Batch API pauses it, too, and can be asked online afterwards."""
    provider.statuses = {operation: status}
    submission = pipeline.submit(PARAGRAPH, OTHER, options=in_batches("100"))
    for _ in range(2):
        pipeline.work(submission)
        pass_time(pipeline)
    pipeline.work(submission)
    paused = {(job.status, job.error_code) for job in pipeline.jobs(submission)}
    assert paused == {("paused", "model_access")}
    said = str(pipeline.jobs(submission)[0].error_message)
    assert ("has no Batch API" in said) is (status == 404)
    assert provider.asked[operation] == 1
    assert pipeline.value(RESERVED) == 0

    run_control.retry(pipeline.context, submission.run_id)

    if not online:
        provider.statuses = {}
        finish(pipeline, provider, submission, rejected=2)
        assert [len(batch.lines) for batch in provider.batches] == [2]
        return
    known = pipeline.context.settings.model_named(SCRIPTED).model_copy(update={"batch": False})
    without = a_pipeline(small_chunks, quoting_the_text, repeat_last=True, model_settings=known)
    without.work(submission)
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}
    assert len(without.model.requests) == online
    assert pipeline.value(RESERVED) == 0


def test_a_batch_that_may_exist_is_kept_while_the_list_is_unreadable(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """The batch was created, the response was lost, and the list cannot be read for now.

    Nor is a batch lost whose key is changed while it is running.
    """
    provider.loses_answer, provider.statuses = True, {"find": 404}
    submission = pipeline.analyze(PARAGRAPH, options=in_batches("100"))
    for _ in range(4):
        pass_time(pipeline)
    assert pipeline.value("SELECT status FROM batches") == "preparing"
    provider.statuses = {"retrieve": 401, "results": 401}
    for _ in range(5):
        pass_time(pipeline)
    assert pipeline.rows("SELECT status, error_code FROM batches") == [("running", "model_access")]

    provider.statuses = {}
    finish(pipeline, provider, submission)

    assert len(provider.batches) == 1


def test_an_unreadable_batch_does_not_block_other_batches(
    pipeline: Pipeline, provider: BatchProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    submissions = [
        pipeline.submit(content, options=in_batches("100")) for content in (PARAGRAPH, OTHER)
    ]
    read = InMemoryBatches.results

    def unreadable(api: InMemoryBatches, state: BatchState) -> Iterator[LineOutcome]:
        if state.provider_id == provider.batches[0].id:
            raise ZeroDivisionError
        return read(api, state)

    monkeypatch.setattr(InMemoryBatches, "results", unreadable)
    for submission in submissions:
        pipeline.work(submission)
        pass_time(pipeline)
    for _ in range(2):
        pass_time(pipeline)
    requests = provider.asked["retrieve"]
    schedule(pipeline)
    assert provider.asked["retrieve"] == requests
    batches = pipeline.rows("SELECT status, error_code FROM batches ORDER BY id")
    assert batches == [("running", "model_transport"), ("ended", None)]

    monkeypatch.undo()
    finish(pipeline, provider, *submissions)


def test_two_leaders_create_a_batch_once(
    pipeline: Pipeline, provider: BatchProvider, small_chunks: Settings
) -> None:
    """One leader has lost its leadership without knowing it; the second creates nothing."""
    upload = InMemoryBatches.upload

    class Overtaken(InMemoryBatches):
        """Lets another leader run during each upload."""

        def upload(self, batch: PreparedBatch) -> str:
            file = upload(self, batch)
            batches.tick(pipeline.context)
            return file

    slow = a_pipeline(
        opened(small_chunks, provider).context.settings,
        quoting_the_text,
        repeat_last=True,
        model_settings=pipeline.context.settings.model_named(SCRIPTED),
        batch_api=Overtaken(provider),
    )
    submission = pipeline.analyze(PARAGRAPH, options=in_batches("100"))

    schedule(slow)

    assert provider.asked["upload"] == 2
    assert len(provider.batches) == 1
    assert seconds_to_the_next_poll(pipeline) > 500
    finish(pipeline, provider, submission)


def test_a_full_queue_leads_to_smaller_batches_submitted_one_at_a_time(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """The rejection is not an attempt: no question is asked online, at twice the price.

    A file that is too large is split until its questions are asked online.
    """
    texts = [f"{PARAGRAPH} It was number {number}." for number in range(8)]
    submission = pipeline.analyze(*texts, options=in_batches("500"))
    for _ in range(2):
        provider.refuses = "token_limit_exceeded"
        schedule(pipeline)
        pass_time(pipeline)

    finish(pipeline, provider, submission)

    sizes = [8, 4, 2, 2, 2, 2]
    assert [len(batch.lines) for batch in provider.batches] == sizes
    assert pipeline.model.requests == []
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}
    provider.statuses = {"upload": 413}
    large = pipeline.submit(PARAGRAPH, OTHER, options=in_batches("100"))
    work_until_finished(pipeline, large)
    assert len(provider.batches) == len(sizes)
    split = "SELECT array_agg(DISTINCT request_count) FROM batches WHERE status = 'failed'"
    assert {1, 2} <= {*cast("list[int]", pipeline.value(split))}
    assert len(pipeline.model.requests) == 2
    assert {job.status for job in pipeline.jobs(large)} == {"succeeded"}


def test_a_question_rejected_by_a_full_queue_waits_before_resubmission(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    submission = pipeline.analyze(PARAGRAPH, options=in_batches("100"))
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
    check_invariants(pipeline, provider)


def test_the_deadline_holds_for_slow_providers(pipeline: Pipeline, provider: BatchProvider) -> None:
    provider.holds = True
    submission = pipeline.analyze(LONG, options=in_batches("500"))
    schedule(pipeline)
    for polls, hours in enumerate((1, 1, 1, 1, 15), start=1):
        pass_hours(pipeline, hours)
        for _ in range(3):
            schedule(pipeline)
        pipeline.work(submission)
        assert provider.asked["retrieve"] == polls
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
    check_invariants(pipeline, provider)


def test_the_answers_of_an_expired_batch_are_fetched(
    small_chunks: Settings, provider: BatchProvider
) -> None:
    pipeline = opened(small_chunks, provider, poll_seconds=30, spill_over_hours=48)
    provider.holds = True
    provider.fate = lambda question, before: (
        EXPIRED if "Bregenz" in question and not before else "answered"
    )
    submission = pipeline.analyze(PARAGRAPH, OTHER, options=in_batches("100"))
    schedule(pipeline)
    pass_hours(pipeline, 24)
    provider.holds = False

    schedule(pipeline)
    pipeline.work(submission)

    assert sorted(job.status for job in pipeline.jobs(submission)) == ["succeeded", "waiting"]
    finish(pipeline, provider, submission)
    assert [len(batch.lines) for batch in provider.batches] == [2, 1]
    assert pipeline.model.requests == []


def test_an_endless_batch_is_abandoned(pipeline: Pipeline, provider: BatchProvider) -> None:
    provider.holds = True
    submission = pipeline.analyze(PARAGRAPH, options=in_batches("100"))
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
def test_answers_are_stored_although_the_budget_is_used_up(
    small_chunks: Settings, provider: BatchProvider, scope: str
) -> None:
    settings = small_chunks.model_copy(
        update={"budget": small_chunks.budget.model_copy(update={"usd_per_day": Decimal(900)})}
    )
    pipeline = opened(settings, provider)
    submission = pipeline.analyze(LONG, options=in_batches("500"))
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
    run_control.retry(pipeline.context, submission.run_id)
    finish(pipeline, provider, submission)
    assert [len(batch.lines) for batch in provider.batches] == [chunks, 1]
    assert len(handed_in(provider)) == pipeline.value("SELECT count(*) FROM model_calls")
