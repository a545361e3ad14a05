"""Votes and critiques in the batch lane: which questions go into which batch of a night."""

from __future__ import annotations

import pytest

from chordwise.settings import Settings
from tests.fakes.batch_nights import (
    in_batches,
    judge,
    opened,
    pass_the_night,
)
from tests.fakes.pipeline import LONG, PARAGRAPH, Pipeline
from tests.peers.batch_provider import INVALID, BatchProvider


@pytest.fixture
def pipeline(small_chunks: Settings, provider: BatchProvider) -> Pipeline:
    """Open a pipeline that hands in and looks at once; online, its model answers properly."""
    return opened(small_chunks, provider)


def test_all_samples_of_a_vote_go_into_the_same_batch(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """Those of all chunks into the first, those of the synthesis into the second."""
    submission = pipeline.submit(LONG, options=in_batches("100", votes=3))

    pass_the_night(pipeline, submission)

    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert isinstance(chunks, int)
    assert [len(batch.lines) for batch in provider.batches] == [3 * chunks, 3]
    assert pipeline.job(submission).status == "succeeded"
    assert pipeline.value("SELECT agreement FROM results") == 1
    samples = "SELECT sample, count(*) FROM model_calls GROUP BY 1 ORDER BY 1"
    assert pipeline.rows(samples) == [(number, chunks + 1) for number in (1, 2, 3)]
    assert pipeline.model.requests == []
    judge(pipeline, provider)


def test_a_sample_that_needs_repair_is_repaired_in_a_later_batch(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """The others wait for it with their answers, and nobody is asked twice."""
    fates = iter([INVALID])
    provider.fate = lambda _question, _before: next(fates, "answered")
    submission = pipeline.submit(PARAGRAPH, options=in_batches(votes=3))

    pass_the_night(pipeline, submission)

    assert [len(batch.lines) for batch in provider.batches] == [3, 1]
    assert pipeline.job(submission).status == "succeeded"
    assert pipeline.value("SELECT agreement FROM results") == 1
    judge(pipeline, provider)


def test_critique_and_revision_are_further_batches_of_the_same_night(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """After those of the chunks and of the synthesis, one each; the samples of votes together."""
    submission = pipeline.submit(LONG, options=in_batches("100", votes=2, critique=True))

    pass_the_night(pipeline, submission)

    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert isinstance(chunks, int)
    assert [len(batch.lines) for batch in provider.batches] == [2 * chunks, 2, 1, 1]
    assert pipeline.job(submission).status == "succeeded"
    assert pipeline.value("SELECT critique_outcome FROM document_results") == "revised"
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE stage = 'critique'") == 1
    assert pipeline.value("SELECT bool_and(service_tier = 'batch') FROM model_calls")
    assert pipeline.model.requests == []
    judge(pipeline, provider)


def test_an_answer_whose_critique_fails_in_its_batch_is_kept(
    pipeline: Pipeline, provider: BatchProvider
) -> None:
    """The provider rejects the line; the result says so, and the run is at its end."""
    provider.fate = lambda question, _: "400" if "analysis between" in question else "answered"
    submission = pipeline.submit(PARAGRAPH, options=in_batches(critique=True))

    pass_the_night(pipeline, submission)

    assert pipeline.job(submission).status == "succeeded"
    assert pipeline.value("SELECT critique_outcome FROM document_results") == "failed"
    judge(pipeline, provider)
