"""Runs with votes, through the whole pipeline and a real database."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chordwise.domain.tasks import AnalysisOptions, AnalysisType
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.run_options import RunOptions, identity
from chordwise.pipeline.intake.submit import Submission
from chordwise.settings import Settings
from tests.fakes.pipeline import LONG, PARAGRAPH, Pipeline, a_pipeline, a_run

LABELS = {1: "history", 2: "money", 3: "history", 4: "money", 5: "history"}


def with_votes(votes: int, *, fresh: bool = False) -> RunOptions:
    """Return options of a run that classifies with so many votes."""
    options = AnalysisOptions(labels=("history", "money"), votes=votes)
    return a_run(AnalysisType.CLASSIFICATION, analysis=options, fresh=fresh)


def a_label(label: str) -> str:
    """Return a classification's answer."""
    feature = {"feature": "it says so", "quote": "rebuilt in 1856"}
    return json.dumps(
        {
            "primary_label": label,
            "secondary_label": None,
            "confidence": 0.8,
            "features": [feature],
            "uncertainty_factors": [],
        }
    )


def voting(request: CompletionRequest) -> str:
    """Say what the sample of this number says; a synthesis is unanimous."""
    return a_label("history" if request.task.answers else LABELS[request.task.sample])


def worked(pipeline: Pipeline, text: str, options: RunOptions) -> Submission:
    """Take a text in as a run and do all there is to do."""
    submission = pipeline.submit(text, options=options)
    pipeline.work(submission)
    assert pipeline.job(submission).status == "succeeded"
    return submission


def test_a_vote_is_a_result_with_an_agreement_and_a_row_for_each_sample(settings: Settings) -> None:
    """Three of five: what won is stored, what it is worth, and every call that it took."""
    pipeline = a_pipeline(settings, voting, repeat_last=True)

    submission = worked(pipeline, PARAGRAPH, with_votes(5))

    result = pipeline.result(pipeline.job(submission).id)
    assert result is not None
    assert (result.output["primary_label"], result.agreement) == ("history", 0.6)
    assert result.confidence == pytest.approx(0.48)
    assert result.output["confidence"] == 0.8
    assert pipeline.rows("SELECT agreement, confidence FROM chunks") == [(0.6, 0.8)]
    assert pipeline.rows("SELECT sample, stage, valid FROM model_calls ORDER BY id") == [
        (number, "analyze", True) for number in range(1, 6)
    ]
    assert pipeline.value("SELECT agreement FROM document_results") == 0.6
    assert pipeline.value("SELECT bool_and(grounded) FROM facts WHERE quote IS NOT NULL")
    assert pipeline.value("SELECT options ->> 'votes' FROM runs") == "5"


def test_a_synthesis_is_voted_on_and_no_surer_than_its_chunks(small_chunks: Settings) -> None:
    """Unanimous itself, it has the mean of its chunks; all samples are in the ledger."""
    pipeline = a_pipeline(small_chunks, voting, repeat_last=True)

    submission = worked(pipeline, LONG, with_votes(3))

    result = pipeline.result(pipeline.job(submission).id)
    assert result is not None
    assert result.agreement == pytest.approx(2 / 3, abs=1e-5)
    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert isinstance(chunks, int)
    assert chunks > 1
    counts = "SELECT stage, sample, count(*) FROM model_calls GROUP BY 1, 2 ORDER BY 1, 2"
    assert pipeline.rows(counts) == [
        *(("analyze", number, chunks) for number in (1, 2, 3)),
        *(("synthesize", number, 1) for number in (1, 2, 3)),
    ]


def test_votes_are_part_of_a_results_identity_and_off_they_are_not(settings: Settings) -> None:
    """The same number is reused without a call; without votes the identity is that of before."""
    pipeline = a_pipeline(settings, voting, repeat_last=True)
    worked(pipeline, PARAGRAPH, with_votes(3))
    asked = len(pipeline.model.requests)

    again = pipeline.submit(PARAGRAPH, options=with_votes(3))
    hashes = {
        identity(pipeline.context, AnalysisType.CLASSIFICATION, with_votes(votes))
        for votes in (1, 3, 5)
    }

    assert pipeline.job(again).reused_from is not None
    assert pipeline.result(pipeline.job(again).id).agreement == pytest.approx(2 / 3, abs=1e-5)  # type: ignore[union-attr]  # it is there
    assert len(pipeline.model.requests) == asked == 3
    assert len(hashes) == 3
    assert "votes" not in pipeline.job(pipeline.submit(LONG, options=with_votes(1))).options


def test_the_first_sample_is_the_question_without_votes(settings: Settings) -> None:
    """More votes need only the further samples, whoever has asked for the first ones."""
    pipeline = a_pipeline(settings, voting, repeat_last=True)
    worked(pipeline, PARAGRAPH, with_votes(1))

    worked(pipeline, PARAGRAPH, with_votes(3))
    worked(pipeline, PARAGRAPH, with_votes(5))

    assert [request.task.sample for request in pipeline.model.requests] == [1, 2, 3, 4, 5]


def test_a_vote_that_was_put_off_goes_on_with_the_samples_it_has(settings: Settings) -> None:
    """The cache has them: a restart asks for what is missing alone."""
    pipeline = a_pipeline(settings, voting, repeat_last=True)
    submission = pipeline.submit(PARAGRAPH, options=with_votes(3))
    pipeline.work(submission)
    pipeline.execute("DELETE FROM facts")
    pipeline.execute("DELETE FROM results")
    pipeline.execute("UPDATE chunks SET status = 'pending', lease_token = NULL, answer = NULL")
    pipeline.execute("UPDATE jobs SET status = 'running', lease_token = NULL")

    pipeline.work(submission)

    assert pipeline.job(submission).status == "succeeded"
    assert len(pipeline.model.requests) == 3
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE cache_hit") == 3


def test_the_built_in_model_has_no_votes(settings: Settings) -> None:
    """Nothing in the run, the job or its identity speaks of them, so results are reused."""
    pipeline = a_pipeline(settings)

    submission = pipeline.submit(PARAGRAPH, options=replace(with_votes(5), model="extractive"))

    assert submission.options.analysis.votes == 1
    assert "votes" not in pipeline.job(submission).options
    assert pipeline.value("SELECT options ->> 'votes' FROM runs") is None


def test_a_worker_that_has_lost_its_work_asks_for_no_further_sample(settings: Settings) -> None:
    """What is in flight is its last request; whoever takes the chunk over goes on from there."""
    leaves = [True]

    def leaving(request: CompletionRequest) -> str:
        if request.task.sample == 2 and leaves:
            leaves.clear()
            pipeline.context.leases.release_all()
        return voting(request)

    pipeline = a_pipeline(settings, leaving, repeat_last=True)
    submission = pipeline.submit(PARAGRAPH, options=with_votes(5))
    pipeline.work(submission)
    before = len(pipeline.model.requests)

    pipeline.work(submission)

    assert before == 2
    assert [request.task.sample for request in pipeline.model.requests] == [1, 2, 3, 4, 5]
    assert pipeline.job(submission).status == "succeeded"
