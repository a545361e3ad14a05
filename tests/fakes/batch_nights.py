"""Drives runs in the batch lane step by step, with a model that answers in batches."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions
from chordwise.domain.states import Lane
from chordwise.pipeline import batches
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.recovery import recover
from chordwise.settings import ModelSettings, Settings
from tests.fakes.in_memory_batches import InMemoryBatches
from tests.fakes.pipeline import (
    PARAGRAPH,
    SCRIPTED,
    Pipeline,
    a_pipeline,
    a_run,
    quoting_the_text,
    with_settings,
)
from tests.peers.batch_provider import BatchProvider

OTHER = PARAGRAPH.replace("Lindau", "Bregenz")
RESERVED = "SELECT coalesce(sum(reserved_usd), 0) FROM budgets"
# The ids that both providers accept.
_LINE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CALLS = "SELECT count(*) FROM model_calls WHERE NOT cache_hit"
_ENDED = "SELECT bool_and(finished_at IS NOT NULL) FROM jobs"
_TIMES = """
SELECT table_name, string_agg(column_name, ',') FROM information_schema.columns
WHERE table_schema = 'public' AND data_type = 'timestamp with time zone'
AND table_name IN ('batches', 'batch_requests', 'jobs', 'chunks')
GROUP BY table_name
"""


def opened(
    settings: Settings, provider: BatchProvider, max_requests: int = 1_000, **lane: float
) -> Pipeline:
    """Open another pipeline over the same database, as another process would.

    It submits and polls batches at once, unless `lane` has other settings; online, its model
    returns valid answers.
    """
    at_once = {"gather_seconds": 0.0, "poll_seconds": 0.001, **lane}
    settings = with_settings(settings, "batch", max_requests=max_requests, **at_once)
    api = InMemoryBatches(provider)
    model_settings = priced("openai", "http://127.0.0.1:9/v1")
    return a_pipeline(
        settings, quoting_the_text, repeat_last=True, model_settings=model_settings, batch_api=api
    )


def over_the_wire(settings: Settings, provider: str, base_url: str) -> Pipeline:
    """Open such a pipeline over a Batch API on loopback."""
    settings = with_settings(settings, "batch", gather_seconds=0.0, poll_seconds=0.001)
    model_settings = priced(provider, base_url)
    return a_pipeline(settings, quoting_the_text, repeat_last=True, model_settings=model_settings)


def priced(provider: str, base_url: str) -> ModelSettings:
    """Return a model with batches; a question costs one cent in a batch, and two cents online."""
    options = {"provider": provider, "model": SCRIPTED, "base_url": base_url, "batch": True}
    prices = {"input_usd_per_million_tokens": 100, "output_usd_per_million_tokens": 200}
    return ModelSettings.model_validate(options | prices | {"api_key": "key"})


def in_batches(
    budget_usd: str = "",
    threshold: float | None = None,
    votes: int = 1,
    *,
    critique: bool = False,
    use_cache: bool = True,
) -> RunOptions:
    """Return the options of a run in the batch lane."""
    options = a_run(
        lane=Lane.BATCH,
        analysis=AnalysisOptions(confidence_threshold=threshold, votes=votes, critique=critique),
        budget_usd=Decimal(budget_usd) if budget_usd else None,
    )
    return replace(options, use_cache=use_cache)


def pass_time(pipeline: Pipeline) -> None:
    """Make all batches due, and do the scheduler's work for the batch lane."""
    pipeline.execute("UPDATE batches SET poll_at = now() - interval '1 second'")
    pipeline.execute("UPDATE batch_requests SET due_at = NULL")
    schedule(pipeline)


def schedule(pipeline: Pipeline) -> None:
    """Do the part of the scheduler's work that is due now."""
    batches.tick(pipeline.context)
    with pipeline.context.database.write() as session:
        recover.delete_unwanted(pipeline.context, session)
        recover.resend_answered(pipeline.context, session)


def pass_hours(pipeline: Pipeline, hours: float) -> None:
    """Advance the clock: move all stored times of the batch lane into the past."""
    for table, columns in pipeline.rows(_TIMES):
        earlier = ", ".join(
            f"{name} = {name} - make_interval(secs => :seconds)" for name in str(columns).split(",")
        )
        pipeline.execute(f"UPDATE {table} SET {earlier}", seconds=hours * 3_600)  # noqa: S608 - constants of the tests


def work_until_finished(pipeline: Pipeline, *submissions: Submission, ticks: int = 30) -> None:
    """Do the work of workers and scheduler in turn until every job has ended."""
    for _ in range(ticks):
        for submission in submissions:
            pipeline.work(submission)
        if pipeline.value(_ENDED) is True:
            return
        pass_time(pipeline)
    statuses = [job.status for submission in submissions for job in pipeline.jobs(submission)]
    pytest.fail(f"not ended: {statuses}")


def finish(
    pipeline: Pipeline, provider: BatchProvider, *submissions: Submission, rejected: int = 0
) -> None:
    """Do the work until every job has ended, and check what must hold then."""
    work_until_finished(pipeline, *submissions)
    check_invariants(pipeline, provider, rejected)


def handed_in(provider: BatchProvider) -> list[str]:
    """Return the id of every line that the provider has received."""
    return [str(line["custom_id"]) for batch in provider.batches for line in batch.lines]


def check_invariants(pipeline: Pipeline, provider: BatchProvider, rejected: int = 0) -> None:
    """Check the invariants that hold after all jobs have ended.

    `rejected` is the number of questions in the ledger that the provider rejected.
    """
    seen = len(handed_in(provider)) + len(pipeline.model.requests) + rejected
    assert len(set(handed_in(provider))) == len(handed_in(provider))
    assert all(_LINE_ID.fullmatch(line_id) for line_id in handed_in(provider))
    assert pipeline.value(_CALLS) == seen
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE finished_at IS NULL") == 0
    assert pipeline.value("SELECT max(postponements) FROM chunks") == 0
    assert pipeline.value("SELECT count(*) FROM batch_requests WHERE status = 'following'") == 0
    assert pipeline.value(RESERVED) == 0
