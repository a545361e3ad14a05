"""Tests of work that is postponed, paused, lost or returned, as its worker or a service fails."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import pytest

from chordwise import errors
from chordwise.domain.states import ChunkStatus, IntakeOutcome, JobStatus
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.submit import claim, open_run
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.jobs.analyze_chunk import ChunkOutcome, SliceClaims, analyze_chunk
from chordwise.pipeline.jobs.dispatch import dispatch
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize, synthesize_claimed
from chordwise.pipeline.recovery.recover import recover
from chordwise.pipeline.runtime.leases import Lease
from chordwise.settings import ModelSettings, Settings
from chordwise.storage.claims import ClaimedSynthesis
from tests.fakes.commits import unconfirmed
from tests.fakes.pipeline import (
    LONG,
    NOW,
    PARAGRAPH,
    Pipeline,
    a_document,
    a_pipeline,
    a_run,
    offered,
    quoting_the_text,
    with_models,
    with_settings,
)
from tests.fakes.processes import wait_until
from tests.fakes.scripted_model import Answer, Line
from tests.peers.answering_server import AnsweringServer
from tests.peers.serving import serving_in_a_thread


def lose_worker(pipeline: Pipeline, *chunk_ids: uuid.UUID) -> None:
    for chunk_id in chunk_ids:
        pipeline.claim(chunk_id)
    pipeline.expire_leases()
    recover(pipeline.context)


def test_a_finished_chunk_is_only_read(settings: Settings) -> None:
    """One that does not exist is unknown."""
    pipeline = a_pipeline(settings, quoting_the_text)
    ((_, chunk_id),) = pipeline.fan_out(PARAGRAPH)
    outcomes = [analyze_chunk(pipeline.context, id_) for id_ in (uuid.uuid4(), chunk_id)]
    before = pipeline.value("SELECT xmax::text || ctid::text FROM jobs")

    assert outcomes == [ChunkOutcome.UNKNOWN, ChunkOutcome.ENDED]
    assert analyze_chunk(pipeline.context, chunk_id) is ChunkOutcome.ENDED
    assert pipeline.value("SELECT xmax::text || ctid::text FROM jobs") == before
    assert len(pipeline.model.requests) == 1


def test_a_fan_out_with_unconfirmed_commits_counts_as_one_attempt(settings: Settings) -> None:
    """However often its first step is repeated, the document is not quarantined.

    A document with an unconfirmed commit is taken in once.
    """
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)
    end = unconfirmed(pipeline, "INSERT INTO intakes")
    submission.take_in(offered(a_document(LONG)))
    submission.close()
    assert end()
    assert pipeline.value("SELECT outcome FROM intakes") == IntakeOutcome.ACCEPTED
    assert pipeline.value("SELECT intakes_balance AND jobs_planned = 1 FROM run_accounts")

    max_attempts = pipeline.context.settings.pipeline.max_attempts
    ends = [unconfirmed(pipeline, "UPDATE jobs j SET attempts") for _ in range(max_attempts)]
    sent = fan_out(pipeline.context, pipeline.job(submission).id)

    assert all(end() for end in ends)
    assert sent == pipeline.value("SELECT count(*) FROM chunks")
    assert pipeline.value("SELECT status FROM jobs") == JobStatus.RUNNING


def raising(error: BaseException) -> object:
    def fail(*_: object) -> object:
        raise error

    return fail


def test_a_slice_that_could_not_be_claimed_is_not_claimed_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = a_pipeline(settings, quoting_the_text)
    ids = [chunk_id for _, chunk_id in pipeline.fan_out(PARAGRAPH, LONG)]
    claims = SliceClaims(pipeline.context, ids)
    is_away = errors.ServiceUnavailableError("PostgreSQL cannot be reached.", "Wait for it.")

    monkeypatch.setattr(pipeline.context.stores.chunks, "claim", raising(is_away))
    with pytest.raises(errors.ServiceUnavailableError):
        analyze_chunk(pipeline.context, ids[0], claims)
    monkeypatch.undo()
    with pytest.raises(errors.ServiceUnavailableError):
        analyze_chunk(pipeline.context, ids[1], claims)

    assert pipeline.value("SELECT count(*) FROM chunks WHERE status <> 'pending'") == 0


@pytest.mark.parametrize(("was_called", "attempts"), [(False, 0), (True, 1)])
def test_only_a_database_error_after_a_call_counts_as_an_attempt(
    settings: Settings, *, was_called: bool, attempts: int
) -> None:
    """A model that keeps failing is not asked without end."""
    pipeline = a_pipeline(settings, errors.ServiceUnavailableError("PostgreSQL is away."))
    ((_, chunk_id),) = pipeline.fan_out(PARAGRAPH)
    with pytest.raises(errors.ServiceUnavailableError):
        analyze_chunk(pipeline.context, chunk_id)
    if not was_called:
        pipeline.execute("DELETE FROM model_calls")

    pipeline.context.leases.beat()

    assert pipeline.value("SELECT status || attempts FROM chunks") == f"pending{attempts}"
    assert pipeline.value("SELECT reason FROM outbox") == "database unavailable"


def test_a_slow_fan_out_is_not_repeated(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    job = pipeline.job(pipeline.submit(LONG))
    pipeline.context.stores.fan_outs.begin(job.id)
    pipeline.execute("UPDATE outbox SET due_at = now() - interval '1 second'")

    with pipeline.context.leases.fanning_out(job.id):
        pipeline.context.leases.beat()

    assert dispatch(pipeline.context).sent == 0


@pytest.mark.parametrize(
    ("error", "postponements"),
    [(errors.ModelOverloadedError("Busy."), 1), (errors.RateLimitedError("Too many requests."), 0)],
)
def test_a_transient_error_postpones_a_chunk_without_an_attempt(
    settings: Settings, error: errors.ModelError, postponements: int
) -> None:
    """Rate limiting does not count as a postponement."""
    pipeline = a_pipeline(settings, error, quoting_the_text)
    submission = pipeline.analyze(PARAGRAPH)
    job = pipeline.job(submission)
    assert job.status == JobStatus.WAITING
    counted = "SELECT status, attempts, postponements FROM chunks"
    assert pipeline.rows(counted) == [(ChunkStatus.WAITING, 0, postponements)]
    early = dispatch(pipeline.context).sent
    for table in ("outbox", "chunks"):
        pipeline.execute(f"UPDATE {table} SET due_at = now() - interval '1 second'")  # noqa: S608 - our own words

    sent = dispatch(pipeline.context).sent
    pipeline.work_on(job.id)

    assert (early, sent) == (0, 1)
    assert pipeline.job(submission).status == JobStatus.SUCCEEDED


def test_a_rejected_key_pauses_the_run_until_a_retry(settings: Settings) -> None:
    pipeline = a_pipeline(
        settings, errors.ModelAccessError("The key is refused."), quoting_the_text, quoting_the_text
    )
    submission = pipeline.analyze(PARAGRAPH, f"Another text. {PARAGRAPH}")
    assert [job.status for job in pipeline.jobs(submission)] == [JobStatus.PAUSED] * 2
    assert pipeline.value("SELECT status FROM runs") == "paused"
    assert len(pipeline.model.requests) == 1

    retried = run_control.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert retried == 2
    assert [job.status for job in pipeline.jobs(submission)] == [JobStatus.SUCCEEDED] * 2
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_a_chunk_that_kills_its_workers_is_quarantined(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    ((job_id, chunk_id),) = pipeline.fan_out(PARAGRAPH)
    for _ in range(3):
        pipeline.claim(chunk_id)
        pipeline.expire_leases()
        recover(pipeline.context)

    synthesize(pipeline.context, job_id)

    assert pipeline.value("SELECT status FROM chunks") == ChunkStatus.QUARANTINED
    assert pipeline.rows("SELECT status, error_code FROM jobs") == [
        (JobStatus.QUARANTINED, "worker_lost")
    ]


def test_a_document_whose_splitting_ends_workers_is_quarantined(settings: Settings) -> None:
    """Each attempt counts; the message is repeated when the attempt has made no progress."""
    pipeline = a_pipeline(settings)
    job = pipeline.jobs(pipeline.submit(LONG))[0]
    begun: list[bool] = []
    for _ in range(4):
        begun.append(pipeline.context.stores.fan_outs.begin(job.id) is not None)
        pipeline.execute("UPDATE jobs SET last_progress_at = now() - interval '2 hours'")
        pipeline.execute("UPDATE outbox SET due_at = now()")
        dispatch(pipeline.context)

    fan_out(pipeline.context, job.id)

    assert begun == [True, True, True, False]
    assert pipeline.value("SELECT status FROM jobs") == "quarantined"


def test_only_one_synthesis_is_run(small_chunks: Settings) -> None:
    """It waits for every chunk; the callback of the chord and a message may both arrive."""
    pipeline = a_pipeline(small_chunks, quoting_the_text, repeat_last=True)
    chunks = pipeline.fan_out(LONG)
    job_id = chunks[0][0]
    results = "SELECT (SELECT count(*) FROM results), (SELECT count(*) FROM result_history)"
    for _, chunk_id in chunks:
        synthesize(pipeline.context, job_id)
        assert pipeline.value("SELECT status FROM jobs") == JobStatus.RUNNING
        assert pipeline.rows(results) == [(0, 0)]
        analyze_chunk(pipeline.context, chunk_id)

    for _ in range(2):
        synthesize(pipeline.context, job_id)

        assert pipeline.rows(results) == [(1, 0)]


def test_a_shutdown_releases_its_chunks(settings: Settings) -> None:
    def shut_down(request: CompletionRequest) -> str:
        assert pipeline.context.leases.release_all() == 1
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, shut_down)
    ((_, chunk_id),) = pipeline.fan_out(PARAGRAPH)

    assert analyze_chunk(pipeline.context, chunk_id) is ChunkOutcome.NOT_ENDED
    assert pipeline.value("SELECT status = 'pending' AND attempts = 0 FROM chunks")
    assert pipeline.value("SELECT reason FROM outbox") == "shutdown"


def test_chunks_that_lost_workers_together_get_a_last_attempt_alone(settings: Settings) -> None:
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    work = pipeline.fan_out(*[f"{number}. {PARAGRAPH}" for number in range(3)])
    poison, *innocent = [chunk_id for _, chunk_id in work]
    for _ in range(2):
        lose_worker(pipeline, poison, *innocent)
    alone = pipeline.value("SELECT bool_and(reason = 'last attempt') FROM outbox")

    pipeline.claim(poison)
    refused = analyze_chunk(pipeline.context, innocent[0])
    later = pipeline.value("SELECT count(*) FROM outbox WHERE due_at > now()")
    lose_worker(pipeline)
    for chunk_id in innocent:
        analyze_chunk(pipeline.context, chunk_id)

    assert alone is True
    assert (refused, later) == (ChunkOutcome.NOT_ENDED, 1)
    states = "SELECT string_agg(status, ' ' ORDER BY status) FROM chunks"
    assert pipeline.value(states) == "quarantined succeeded succeeded"


def test_a_retry_does_not_repeat_calls_in_flight(small_chunks: Settings) -> None:
    pipeline = a_pipeline(small_chunks, errors.ModelAccessError("The key is refused."))
    submission = pipeline.submit(LONG)
    job = pipeline.job(submission)
    fan_out(pipeline.context, job.id)
    flying, refused, *_ = pipeline.open_chunks(job.id)
    token = pipeline.claim(flying)
    analyze_chunk(pipeline.context, refused)
    assert pipeline.job(submission).status == JobStatus.PAUSED

    run_control.retry(pipeline.context, submission.run_id)

    assert pipeline.value("SELECT lease_token FROM chunks WHERE status = 'running'") == token


def test_a_run_that_was_lost_before_its_list_is_finished(settings: Settings) -> None:
    """A kill of `refresh`, for example; one that has documents stays interrupted."""
    pipeline = a_pipeline(settings, quoting_the_text)
    empty, begun = (open_run(pipeline.context, a_run(), NOW) for _ in range(2))
    begun.take_in(offered(a_document(PARAGRAPH)))
    pipeline.execute("UPDATE runs SET lease_until = now()")
    recover(pipeline.context)
    assert pipeline.rows("SELECT DISTINCT status FROM runs") == [("open",)]

    pipeline.execute("UPDATE runs SET lease_until = now() - interval '11 minutes'")
    recover(pipeline.context)

    statuses = {row[0]: row[1] for row in pipeline.rows("SELECT id, status FROM runs")}
    assert statuses == {empty.run_id: "finished", begun.run_id: "open"}


def test_a_submitter_with_an_expired_lease_may_continue(settings: Settings) -> None:
    pipeline = a_pipeline(settings, quoting_the_text)
    submission = open_run(pipeline.context, a_run(), NOW)
    submission.take_in(offered(a_document(PARAGRAPH)))
    pipeline.execute("UPDATE runs SET lease_until = now()")
    recover(pipeline.context)
    submission.take_in(offered(a_document(f"Another text. {PARAGRAPH}")))
    pipeline.execute("UPDATE runs SET lease_until = now()")
    other = claim(pipeline.context, submission.run_id)

    assert other is not None
    with pytest.raises(errors.LeaseLostError):
        submission.take_in(offered(a_document(f"A third text. {PARAGRAPH}")))
    submission.close()
    assert pipeline.value("SELECT intake_status FROM run_accounts") == "taking_in"
    other.close()

    assert pipeline.rows("SELECT accepted, intake_status FROM run_accounts") == [(2, "finished")]


def end_with_claim(pipeline: Pipeline) -> Sequence[tuple[Lease, ClaimedSynthesis]]:
    """Analyze a document; return the syntheses that were claimed with its last chunk."""
    ids = [chunk_id for _, chunk_id in pipeline.fan_out(LONG)]
    claims = SliceClaims(pipeline.context, ids, claims_syntheses=True)
    outcomes = [analyze_chunk(pipeline.context, chunk_id, claims) for chunk_id in ids]
    assert outcomes == [ChunkOutcome.ENDED] * len(ids)
    assert len(ids) > 1
    return claims.syntheses


@pytest.mark.parametrize("is_released", [False, True])
def test_the_last_chunk_claims_the_synthesis(
    settings: Settings,
    is_released: bool,  # noqa: FBT001 - a parameter
) -> None:
    """It waits for a free thread under a lease; at a shutdown another process continues it."""
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    ((lease, claimed),) = end_with_claim(pipeline)
    calls = len(pipeline.model.requests)
    pipeline.execute("UPDATE jobs SET lease_until = now() + interval '1 second'")
    pipeline.context.leases.beat()
    assert pipeline.value("SELECT lease_until > now() + interval '5 seconds' FROM jobs")

    if is_released:
        assert pipeline.context.leases.release_all() == 1
        synthesize_claimed(pipeline.context, lease, claimed)
        assert pipeline.value("SELECT status FROM jobs") == JobStatus.RUNNING
        assert pipeline.value("SELECT count(*) FROM outbox WHERE reason = 'shutdown'") == 1
        synthesize(pipeline.context, lease.job_id)
    else:
        assert synthesize(pipeline.context, lease.job_id)
        assert len(pipeline.model.requests) == calls
        synthesize_claimed(pipeline.context, lease, claimed)
        assert pipeline.value("SELECT attempts FROM jobs") == 1

    assert pipeline.value("SELECT status FROM jobs") == JobStatus.SUCCEEDED


def test_the_heartbeat_keeps_the_beginning_of_a_synthesis(settings: Settings) -> None:
    """It shows whether a model was called since; the fan-out around the synthesis continues."""
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    ((lease, _),) = end_with_claim(pipeline)
    begun = "UPDATE jobs SET last_progress_at = now() - interval '1 hour'"
    is_kept = "SELECT last_progress_at < now() - interval '1 minute' FROM jobs"

    with pipeline.context.leases.fanning_out(lease.job_id):
        pipeline.execute(begun)
        pipeline.context.leases.beat()
        assert pipeline.value(is_kept)
        pipeline.execute("UPDATE jobs SET status = 'running', lease_token = NULL")
        pipeline.context.leases.beat()
        assert not pipeline.value(is_kept)


TIMES = 2


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    """Return settings that allow one postponement of a chunk, which is due again at once."""
    return with_settings(
        settings,
        "pipeline",
        max_postponements=1,
        postponement_base_seconds=0.01,
        max_postponement_seconds=0.01,
        chunk_tokens=800,
    )


def failing(errors_left: Sequence[Answer], *, synthesis: bool) -> Line:
    """Return a model that fails with these errors in a stage and then answers."""
    left = list(errors_left)

    def answer(request: CompletionRequest) -> Answer:
        is_meant = bool(request.task.answers) is synthesis
        return left.pop(0) if is_meant and left else quoting_the_text(request)

    return answer


def work_until(pipeline: Pipeline, text: str, rounds: int) -> str:
    """Process a document the given number of times; return the status of its job."""
    submission = pipeline.submit(text)
    job_id = pipeline.job(submission).id
    fan_out(pipeline.context, job_id)
    for _ in range(rounds):
        for table in ("chunks", "jobs"):
            pipeline.execute(f"UPDATE {table} SET due_at = now() WHERE due_at IS NOT NULL")  # noqa: S608 - our own names
        for chunk_id in pipeline.open_chunks(job_id):
            analyze_chunk(pipeline.context, chunk_id)
        synthesize(pipeline.context, job_id)
    return pipeline.job(submission).status


@pytest.mark.parametrize("synthesis", [False, True])
def test_a_rate_limited_document_is_never_given_up(impatient: Settings, *, synthesis: bool) -> None:
    """Nor is one of which another error has used up all postponements."""
    rejections = [errors.RateLimitedError(str(number)) for number in range(TIMES)]
    script = failing([errors.ModelOverloadedError(""), *rejections], synthesis=synthesis)
    pipeline = a_pipeline(impatient, script, repeat_last=True)

    text = LONG if synthesis else PARAGRAPH
    assert work_until(pipeline, text, TIMES + 3) == JobStatus.SUCCEEDED
    counts = "SELECT (SELECT max(postponements) FROM chunks), max(postponements) FROM jobs"
    assert pipeline.rows(counts) == [(0, 1) if synthesis else (1, 0)]


@pytest.mark.nightly
def test_a_failing_provider_is_given_up(impatient: Settings) -> None:
    script = failing([errors.ModelOverloadedError("")] * 1_000, synthesis=False)
    pipeline = a_pipeline(impatient, script, repeat_last=True)

    assert work_until(pipeline, LONG, TIMES + 2) == JobStatus.FAILED


DEADLINE_SECONDS = 1.6


# Enough for a second request, but not for one with the whole deadline.
TOTAL_SECONDS = 3.0
SLOW_SECONDS = 4.0
_GRANTED = "SELECT error_code, error_message FROM model_calls ORDER BY started_at"
_CHUNK = "SELECT status, error_code, hint FROM chunks"


@pytest.fixture
def provider() -> Iterator[AnsweringServer]:
    server = AnsweringServer(SLOW_SECONDS)
    with serving_in_a_thread(server):
        yield server


def pipeline_asking(provider: AnsweringServer, settings: Settings) -> Pipeline:
    model_settings = ModelSettings(
        provider="openai",
        model="slow",
        base_url=provider.base_url,
        timeout_seconds=DEADLINE_SECONDS,
        input_usd_per_million_tokens=0,
        output_usd_per_million_tokens=0,
    )
    settings = with_settings(
        settings, "pipeline", max_postponements=1, postponement_base_seconds=0.01
    )
    opened = a_pipeline(settings, model_settings=model_settings)
    asking = with_settings(
        opened.context.settings,
        "retries",
        attempts=4,
        base_seconds=0.01,
        total_seconds=TOTAL_SECONDS,
    )
    return with_models(opened, asking)


def test_every_request_has_the_whole_deadline_and_attempts_are_limited(
    settings: Settings, provider: AnsweringServer
) -> None:
    pipeline = pipeline_asking(provider, settings)
    submission = pipeline.submit("The harbour of Lindau was rebuilt in 1856.")

    pipeline.work(submission)

    (first,) = pipeline.rows(_CHUNK)
    assert first[:2] == ("waiting", "model_timeout")
    assert len(provider.journal) == 1

    job = pipeline.job(submission)
    wait_until(
        lambda: pipeline.value("SELECT due_at <= clock_timestamp() FROM chunks") is True, 10, "due"
    )
    for chunk_id in pipeline.open_chunks(job.id):
        analyze_chunk(pipeline.context, chunk_id)
    synthesize(pipeline.context, job.id)

    (last,) = pipeline.rows(_CHUNK)
    assert last[:2] == ("failed", "model_timeout")
    assert len(provider.journal) == 2
    late = f"127.0.0.1 did not complete its response within {DEADLINE_SECONDS:g} s."
    assert pipeline.rows(_GRANTED) == [("model_timeout", late)] * 2
    for advice in ("timeout_seconds", "retries.total_seconds", "pipeline.chunk_tokens"):
        assert advice in str(last[2])
    assert pipeline.job(submission).hint == last[2]
