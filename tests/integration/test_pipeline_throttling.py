"""Waiting for one's turn is no failure, however often and however long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chordwise.domain.states import JobStatus
from chordwise.errors import ModelOverloadedError, RateLimitedError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.settings import Settings
from tests.fakes.pipeline import LONG, Pipeline, a_pipeline, quoting_the_text, with_settings
from tests.fakes.scripted_model import Answer, Line

TIMES = 4


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    """Return settings under which a chunk may be put off once, and is due again at once."""
    return with_settings(
        settings,
        "pipeline",
        max_postponements=1,
        postponement_base_seconds=0.01,
        postponement_max_seconds=0.01,
        chunk_tokens=800,
    )


def failing(error: Callable[[str], Answer], times: int, *, synthesis: bool) -> Line:
    """Return a model that fails so often at the analysis or at the synthesis, then answers."""
    left = [error(str(number)) for number in range(times)]

    def answer(request: CompletionRequest) -> Answer:
        is_meant = bool(request.task.answers) is synthesis
        return left.pop() if is_meant and left else quoting_the_text(request)

    return answer


def work_until(pipeline: Pipeline, text: str, rounds: int) -> str:
    """Let workers take a document up so often; return the status of its job."""
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
def test_a_throttled_document_is_never_given_up(impatient: Settings, *, synthesis: bool) -> None:
    """Refused again and again, at the analysis or the synthesis, it succeeds in the end."""
    script = failing(RateLimitedError, TIMES, synthesis=synthesis)
    pipeline = a_pipeline(impatient, script, repeat_last=True)

    status = work_until(pipeline, LONG, TIMES + 2)

    assert status == JobStatus.SUCCEEDED
    assert pipeline.value("SELECT max(postponements) FROM chunks") == 0
    assert pipeline.value("SELECT max(postponements) FROM jobs") == 0


@pytest.mark.nightly
def test_a_broken_provider_is_given_up(impatient: Settings) -> None:
    """What is no throttling uses the postponements up."""
    script = failing(ModelOverloadedError, 1_000, synthesis=False)
    pipeline = a_pipeline(impatient, script, repeat_last=True)

    status = work_until(pipeline, LONG, TIMES)

    assert status == JobStatus.FAILED
