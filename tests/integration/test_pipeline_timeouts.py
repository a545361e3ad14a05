"""A provider that is slower than its deadline: how often it is asked, with how much time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.models.client import Models
from chordwise.settings import ModelSettings, Settings
from tests.fakes.pipeline import Pipeline, a_pipeline, with_settings
from tests.fakes.processes import wait_until
from tests.peers.answering_server import AnsweringServer
from tests.peers.serving import serving_in_a_thread

DEADLINE_SECONDS = 1.6
# Room for a second request, and not for one with as much time.
TOTAL_SECONDS = 3.0
SLOW_SECONDS = 4.0
_GRANTED = "SELECT error_code, error_message FROM model_calls ORDER BY started_at"
_CHUNK = "SELECT status, error_code, hint FROM chunks"


@pytest.fixture
def provider() -> Iterator[AnsweringServer]:
    """Return a server that answers properly and too late."""
    server = AnsweringServer(SLOW_SECONDS)
    with serving_in_a_thread(server):
        yield server


def pipeline_asking(provider: AnsweringServer, settings: Settings) -> Pipeline:
    """Return a pipeline that asks this provider over HTTP."""
    named = ModelSettings(
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
    opened = a_pipeline(settings, named=named)
    asking = with_settings(
        opened.context.settings,
        "retries",
        attempts=4,
        base_seconds=0.01,
        total_seconds=TOTAL_SECONDS,
    )
    context = replace(opened.context, settings=asking, models=Models(asking))
    return replace(opened, context=context)


def test_every_request_has_the_whole_deadline_and_they_end(
    settings: Settings, provider: AnsweringServer
) -> None:
    """A chunk is put off, not asked about again with less time, and then fails with a hint."""
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
    late = f"127.0.0.1 did not complete its answer within {DEADLINE_SECONDS:g} s."
    assert pipeline.rows(_GRANTED) == [("model_timeout", late)] * 2
    for advice in ("timeout_seconds", "retries.total_seconds", "pipeline.chunk_tokens"):
        assert advice in str(last[2])
    assert pipeline.job(submission).hint == last[2]
