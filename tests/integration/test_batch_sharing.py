"""Tests of identical questions in batches: each is asked and paid for once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from chordwise.pipeline import batches
from chordwise.pipeline.batches import MAX_ATTEMPTS
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.settings import Settings
from tests.fakes.batch_nights import (
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
from tests.fakes.counting import recorded
from tests.fakes.pipeline import LONG, PARAGRAPH, Pipeline
from tests.peers.batch_provider import EXPIRED, INVALID, BatchProvider
from tests.peers.batch_server import serving_batches

# Different documents, since their hashes differ, with the same question: texts are trimmed.
TWINS = (PARAGRAPH, f"\n\n{PARAGRAPH}", f"   {PARAGRAPH}\n")
OTHER = f"Something else. {PARAGRAPH}"
FOLLOWING = "SELECT count(*) FROM batch_requests WHERE status = 'following'"
STATUSES = "SELECT string_agg(status, ' ' ORDER BY status) FROM batch_requests"
HITS = "SELECT count(*) FROM model_calls WHERE cache_hit AND cost_usd = 0 AND input_tokens = 0"
PAID = "SELECT sum(spent_usd) FROM budgets WHERE run_id IS NOT NULL"
ONE_QUESTION = Decimal("0.01")


def steps_of_storing(pipeline: Pipeline, submission: Submission) -> int:
    pipeline.work(submission)
    pass_time(pipeline)
    pipeline.execute("UPDATE batches SET poll_at = now() - interval '1 second'")
    with recorded() as statements:
        batches.tick(pipeline.context)
    return len(statements)


@pytest.fixture
def pipeline(small_chunks: Settings, provider: BatchProvider) -> Pipeline:
    return opened(small_chunks, provider)


def test_a_question_is_asked_once_in_a_batch(pipeline: Pipeline, provider: BatchProvider) -> None:
    submission = pipeline.analyze(*TWINS, options=in_batches("100"))
    assert pipeline.value(FOLLOWING) == 2
    reserved = pipeline.value(RESERVED)
    assert pipeline.value("SELECT count(reserved_usd) FROM batch_requests") == 1

    finish(pipeline, provider, submission)

    assert reserved
    assert len(handed_in(provider)) == 1
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}
    assert pipeline.value("SELECT count(*) FROM results") == 3
    assert pipeline.value(HITS) == 2
    assert pipeline.value("SELECT bool_and(valid) FROM model_calls")
    assert pipeline.value("SELECT count(DISTINCT chunk_id) FROM model_calls") == 3
    assert pipeline.value(PAID) == ONE_QUESTION


def test_one_of_two_workers_asks_the_question(pipeline: Pipeline, provider: BatchProvider) -> None:
    spaces = [" " * count + PARAGRAPH for count in range(12)]
    submission = pipeline.submit(*spaces, options=in_batches("100"))
    for job in pipeline.jobs(submission):
        fan_out(pipeline.context, job.id)
    owners = [
        (job.id, chunk_id)
        for job in pipeline.jobs(submission)
        for chunk_id in pipeline.open_chunks(job.id)
    ]

    with ThreadPoolExecutor(len(owners)) as workers:
        list(workers.map(lambda owner: analyze_chunk(pipeline.context, owner[1]), owners))

    assert pipeline.value(FOLLOWING) == len(owners) - 1
    assert pipeline.value("SELECT count(*) FROM batch_requests WHERE leads") == 1
    assert pipeline.value("SELECT count(reserved_usd) FROM batch_requests") == 1
    finish(pipeline, provider, submission)
    assert len(handed_in(provider)) == 1


def test_many_followers_need_few_statements(pipeline: Pipeline, provider: BatchProvider) -> None:
    few = pipeline.submit(*TWINS, options=in_batches("100"))
    many = pipeline.submit(*(" " * n + OTHER for n in range(9)), options=in_batches("100"))

    steps = [steps_of_storing(pipeline, submission) for submission in (few, many)]

    assert steps[0] == steps[1]
    finish(pipeline, provider, few, many)
    assert pipeline.value(HITS) == 2 + 8


def test_without_the_cache_each_job_asks(pipeline: Pipeline, provider: BatchProvider) -> None:
    """They neither follow nor lead: a run that uses the cache does not wait for their answers."""
    asking = pipeline.submit(*TWINS, options=in_batches(use_cache=False))
    sharing = pipeline.submit(*TWINS, options=in_batches(threshold=0.5))
    pipeline.work(asking)
    pipeline.work(sharing)

    finish(pipeline, provider, asking, sharing)

    assert len(handed_in(provider)) == 3 + 1
    assert pipeline.value(HITS) == 2


@pytest.mark.parametrize(
    ("fates", "batches", "online", "error"),
    [
        ([EXPIRED], 2, 0, None),
        ([EXPIRED] * MAX_ATTEMPTS, MAX_ATTEMPTS, 1, None),
        (["400"], 1, 0, "model_request"),
    ],
    ids=["resubmitted once", "asked online once", "failed for all"],
)
def test_a_question_without_an_answer_has_one_outcome_for_all_followers(
    small_chunks: Settings, fates: list[str], batches: int, online: int, error: str | None
) -> None:
    provider, left = BatchProvider(), iter(fates)
    provider.fate = lambda _question, _before: next(left, "answered")
    pipeline = opened(small_chunks, provider)
    submission = pipeline.submit(*TWINS, options=in_batches("100"))

    finish(pipeline, provider, submission)

    assert [len(batch.lines) for batch in provider.batches] == [1] * batches
    assert len(pipeline.model.requests) == online
    assert {job.error_code for job in pipeline.jobs(submission)} == {error}
    assert pipeline.value("SELECT count(*) FROM results") == (0 if error else len(TWINS))


@pytest.mark.parametrize(("votes", "sizes"), [(1, [1, 1]), (3, [3, 1])])
def test_an_invalid_answer_is_repaired_once(
    pipeline: Pipeline, provider: BatchProvider, votes: int, sizes: list[int]
) -> None:
    """An invalid sample is repaired later than the others."""
    fates = iter([INVALID])
    provider.fate = lambda _question, _before: next(fates, "answered")
    submission = pipeline.submit(*TWINS, options=in_batches(votes=votes))

    finish(pipeline, provider, submission)

    assert [len(batch.lines) for batch in provider.batches] == sizes
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}
    stages = "SELECT stage, valid, count(*) FROM model_calls GROUP BY 1, 2 ORDER BY 1, 2"
    valid = [("analyze", True, 3 * (votes - 1))] if votes > 1 else []
    assert pipeline.rows(stages) == [("analyze", False, 3), *valid, ("repair", True, 3)]
    agreement = pipeline.value("SELECT min(agreement) FROM results")
    assert agreement == (1 if votes > 1 else None)


def test_a_cancelled_runs_follower_asks_again(pipeline: Pipeline, provider: BatchProvider) -> None:
    """Before submission a follower becomes the leader, paid for by its own run."""
    first = pipeline.submit(TWINS[0], options=in_batches("100"))
    second = pipeline.submit(*TWINS[1:], options=in_batches("200"))
    pipeline.work(first)
    pipeline.work(second)
    assert pipeline.value(STATUSES) == "following following pending"

    run_control.cancel(pipeline.context.database, first.run_id)
    finish(pipeline, provider, second)

    assert len(handed_in(provider)) == 1
    assert {job.status for job in pipeline.jobs(second)} == {"succeeded"}
    assert pipeline.value("SELECT spent_usd FROM budgets WHERE cap_usd = 100") == 0
    assert pipeline.value("SELECT spent_usd FROM budgets WHERE cap_usd = 200") == ONE_QUESTION


def test_a_batch_is_kept_for_its_followers(pipeline: Pipeline, provider: BatchProvider) -> None:
    """The run that asked was cancelled during the batch and has paid; others use the answer."""
    provider.holds = True
    first = pipeline.analyze(TWINS[0], options=in_batches("100"))
    pass_time(pipeline)
    second = pipeline.analyze(TWINS[1], options=in_batches("200"))
    run_control.cancel(pipeline.context.database, first.run_id)
    pass_time(pipeline)
    assert not provider.batches[0].is_cancelled

    provider.holds = False
    finish(pipeline, provider, second)

    assert len(handed_in(provider)) == 1
    assert pipeline.value("SELECT count(*) FROM results") == 1
    assert pipeline.value("SELECT spent_usd FROM budgets WHERE cap_usd = 100") == ONE_QUESTION


def test_a_paused_run_is_not_waited_for(pipeline: Pipeline, provider: BatchProvider) -> None:
    """Its question is dropped, since others ask it; when resumed, it finds the answer."""
    first = pipeline.submit(TWINS[0], options=in_batches("100"))
    second = pipeline.submit(TWINS[1], options=in_batches("100"))
    pipeline.work(first)
    pipeline.work(second)
    paused = "UPDATE jobs SET status = 'paused' WHERE run_id = :run"
    pipeline.execute(paused, run=str(first.run_id))

    for _ in range(3):
        pass_time(pipeline)
        pipeline.work(second)
    assert pipeline.job(second).status == "succeeded"

    run_control.retry(pipeline.context, first.run_id)
    finish(pipeline, provider, first)
    assert len(handed_in(provider)) == 1


def test_followers_may_have_earlier_deadlines(pipeline: Pipeline, provider: BatchProvider) -> None:
    provider.holds = True
    submission = pipeline.analyze(*TWINS[:2], options=in_batches("100"))
    pass_time(pipeline)
    pipeline.execute(
        "UPDATE jobs SET batch_until = now() FROM batch_requests AS request "
        "WHERE request.job_id = jobs.id AND request.status = 'following'"
    )
    pipeline.execute("UPDATE chunks SET due_at = now()")

    pipeline.work(submission)

    assert len(pipeline.model.requests) == 1
    assert sorted(job.status for job in pipeline.jobs(submission)) == ["succeeded", "waiting"]
    provider.holds = False
    finish(pipeline, provider, submission)


def test_a_question_that_arrives_while_the_answer_is_stored_is_not_lost(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """It follows no other question, is dropped, and finds the answer in the cache."""
    submission = pipeline.analyze(*TWINS[:2], options=in_batches())
    pipeline.execute("UPDATE batch_requests SET key = 'other' WHERE status = 'following'")

    finish(pipeline, provider, submission)

    assert pipeline.value(HITS) == 1
    assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}


def test_an_answered_question_has_no_followers(pipeline: Pipeline, provider: BatchProvider) -> None:
    """Nor has one that an older scheduler finished, which knew no followers."""
    submission = pipeline.analyze(*TWINS[:2], options=in_batches())
    pipeline.execute(
        "UPDATE batch_requests SET finished_at = now(), status = 'failed', "
        "error_code = 'model_request' WHERE leads"
    )

    work_until_finished(pipeline, submission)

    assert len(handed_in(provider)) == 1
    assert sorted(job.status for job in pipeline.jobs(submission)) == ["failed", "succeeded"]


@pytest.mark.parametrize("name", ["openai", pytest.param("anthropic", marks=pytest.mark.nightly)])
def test_chunks_synthesis_and_shared_questions_over_http(small_chunks: Settings, name: str) -> None:
    with serving_batches() as server:
        pipeline = over_the_wire(small_chunks, name, server.base_url)
        server.fate = lambda question, before: (
            EXPIRED if not before and sum(question.encode()) % 3 == 0 else "answered"
        )
        submission = pipeline.submit(LONG, *TWINS, options=in_batches("500"))

        finish(pipeline, server, submission)

        assert {job.status for job in pipeline.jobs(submission)} == {"succeeded"}
        assert pipeline.value("SELECT bool_and(service_tier = 'batch') FROM model_calls")
        assert pipeline.value(HITS) == len(TWINS) - 1


def test_another_process_takes_over_the_followers(
    pipeline: Pipeline, provider: BatchProvider, small_chunks: Settings
) -> None:
    provider.loses_answer = True
    submission = pipeline.analyze(*TWINS, options=in_batches("100"))
    pass_time(pipeline)

    work_until_finished(opened(small_chunks, provider), submission)

    assert len(provider.batches) == 1
    assert pipeline.value(HITS) == 2
    check_invariants(pipeline, provider)


def test_critique_and_revision_are_two_batches(pipeline: Pipeline, provider: BatchProvider) -> None:
    """One batch each, after those of the chunks and the synthesis; all samples share a batch.

    An answer whose critique fails in its batch is kept.
    """
    submission = pipeline.submit(LONG, options=in_batches("100", votes=2, critique=True))

    finish(pipeline, provider, submission)

    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert isinstance(chunks, int)
    assert [len(batch.lines) for batch in provider.batches] == [2 * chunks, 2, 1, 1]
    assert pipeline.job(submission).status == "succeeded"
    assert pipeline.value("SELECT agreement FROM results") == 1
    condition = "WHERE stage IN ('analyze', 'synthesize') GROUP BY 1 ORDER BY 1"
    samples = pipeline.rows(f"SELECT sample, count(*) FROM model_calls {condition}")  # noqa: S608
    assert samples == [(1, chunks + 1), (2, chunks + 1)]
    assert pipeline.value("SELECT critique_outcome FROM document_results") == "revised"
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE stage = 'critique'") == 1
    assert pipeline.value("SELECT bool_and(service_tier = 'batch') FROM model_calls")
    assert pipeline.model.requests == []
    provider.fate = lambda question, _: "400" if "analysis between" in question else "answered"
    failing = pipeline.submit(PARAGRAPH, options=in_batches(critique=True))
    finish(pipeline, provider, failing)
    outcome = "SELECT critique_outcome FROM document_results WHERE job_id = :job"
    job = pipeline.job(failing)
    assert (job.status, pipeline.value(outcome, job=job.id)) == ("succeeded", "failed")
