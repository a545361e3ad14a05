"""Tests of runs with votes or a critique, with a real database."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Stage
from chordwise.errors import ChordwiseError, ModelOverloadedError, QuotaExceededError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.run_options import RunOptions, identity
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs import run_control
from chordwise.settings import Settings
from tests.fakes.pipeline import (
    LONG,
    PARAGRAPH,
    Pipeline,
    a_label,
    a_pipeline,
    a_run,
    a_summary,
    quoting_the_text,
    with_settings,
)
from tests.fakes.scripted_model import Answer, Line

OBJECTION = {"principle": 1, "path": "/main_topic", "problem": "It names no harbour."}
REVISED = a_summary("The harbour of Lindau", topic="The harbour of Lindau.")
STAGES = "SELECT string_agg(stage, ' ' ORDER BY id) FROM model_calls WHERE NOT cache_hit"


def with_critique(*principles: str, votes: int = 1) -> RunOptions:
    return a_run(analysis=AnalysisOptions(critique=True, principles=principles, votes=votes))


def objecting(request: CompletionRequest) -> Answer:
    """Answer by quoting, object to that once, and correct it."""
    if request.task.stage is Stage.CRITIQUE:
        return json.dumps({"violations": [OBJECTION]})
    return REVISED if request.task.stage is Stage.REVISE else quoting_the_text(request)


def failing_once(stage: Stage, error: ChordwiseError) -> Line:
    """Answer as `objecting`, but let the first question of a stage fail."""
    failures = [error]

    def answer(request: CompletionRequest) -> Answer:
        fails = request.task.stage is stage and failures
        return failures.pop() if fails else objecting(request)

    return answer


def test_an_answer_is_examined_revised_and_stored_with_the_objection(settings: Settings) -> None:
    pipeline = a_pipeline(settings, objecting, repeat_last=True)

    submission = pipeline.analyze(PARAGRAPH, options=with_critique("Name the place.", "Be brief."))

    result = pipeline.result(pipeline.job(submission).id)
    assert pipeline.job(submission).status == "succeeded"
    assert result.output["main_topic"] == "The harbour of Lindau."
    assert result.critique == {
        "outcome": "revised",
        "violations": [{**OBJECTION, "principle": "Name the place."}],
        "reason": None,
        "principles": ["Name the place.", "Be brief."],
    }
    assert pipeline.value(STAGES) == "analyze critique revise"
    assert pipeline.value("SELECT bool_and(valid) FROM model_calls")
    assert pipeline.value("SELECT bool_and(grounded) FROM facts WHERE quote IS NOT NULL")
    assert pipeline.value("SELECT critique_outcome FROM document_results") == "revised"


def test_a_synthesis_is_examined_with_the_answers_of_its_chunks(small_chunks: Settings) -> None:
    pipeline = a_pipeline(small_chunks, objecting, repeat_last=True)

    submission = pipeline.analyze(LONG, options=with_critique(votes=3))

    by_stage = {
        stage: [r for r in pipeline.model.requests if r.task.stage is stage] for stage in Stage
    }
    (critique,), (revision,) = by_stage[Stage.CRITIQUE], by_stage[Stage.REVISE]
    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert len(critique.task.answers) == len(revision.task.answers) == chunks
    assert len(by_stage[Stage.SYNTHESIZE]) == 3
    assert revision.user.startswith(by_stage[Stage.SYNTHESIZE][0].user)
    result = pipeline.result(pipeline.job(submission).id)
    assert (result.output["main_topic"], result.agreement) == ("The harbour of Lindau.", 1)
    assert pipeline.value("SELECT bool_and(grounded) FROM facts WHERE quote IS NOT NULL")


@pytest.mark.parametrize(
    ("stage", "error", "status"),
    [
        (Stage.CRITIQUE, ModelOverloadedError("Not now."), "waiting"),
        (Stage.REVISE, ModelOverloadedError("Not now."), "waiting"),
        (Stage.CRITIQUE, QuotaExceededError("No money."), "paused"),
    ],
)
def test_an_outage_postpones_the_critique_without_repeated_questions(
    settings: Settings, stage: Stage, error: ChordwiseError, status: str
) -> None:
    """Without quota the run pauses."""
    pipeline = a_pipeline(settings, failing_once(stage, error), repeat_last=True)
    submission = pipeline.analyze(PARAGRAPH, options=with_critique())
    waiting = pipeline.job(submission).status
    pipeline.execute("UPDATE jobs SET due_at = now() - interval '1 second'")
    if status == "paused":
        run_control.retry(pipeline.context, submission.run_id)

    pipeline.work(submission)

    stages = [request.task.stage for request in pipeline.model.requests]
    assert (waiting, pipeline.job(submission).status) == (status, "succeeded")
    assert stages.count(Stage.ANALYZE) == 1
    assert stages.count(stage) == 2
    assert len(stages) == 4


def test_a_lasting_outage_of_the_critique_loses_no_answer(settings: Settings) -> None:
    impatient = a_pipeline(
        with_settings(settings, "pipeline", max_postponements=0),
        failing_once(Stage.CRITIQUE, ModelOverloadedError("Not now.")),
        repeat_last=True,
    )

    submission = impatient.analyze(PARAGRAPH, options=with_critique())

    result = impatient.result(impatient.job(submission).id)
    assert impatient.job(submission).status == "succeeded"
    assert result.critique is not None
    assert (result.critique["outcome"], result.critique["reason"]) == ("failed", "Not now.")
    assert result.needs_review


def test_principles_are_part_of_a_results_identity_unless_disabled(settings: Settings) -> None:
    changed = with_settings(settings, "critique", principles=("Say less.",))
    pipeline = a_pipeline(changed, objecting, repeat_last=True)
    first = pipeline.analyze(PARAGRAPH, options=with_critique())

    again = pipeline.submit(PARAGRAPH, options=with_critique("Say less."))
    hashes = {
        identity(pipeline.context.settings, AnalysisType.SUMMARY, options)
        for options in (with_critique(), with_critique("Say more."), a_run())
    }
    off = a_run(analysis=AnalysisOptions(principles=("Say more.",)))

    assert pipeline.job(again).reused_from == pipeline.job(first).id
    assert pipeline.job(first).options["principles"] == ["Say less."]
    assert len(hashes) == 3
    assert identity(pipeline.context.settings, AnalysisType.SUMMARY, off) in hashes
    assert "critique" not in pipeline.job(pipeline.submit(LONG, options=off)).options


def test_the_built_in_model_has_neither_critique_nor_votes(settings: Settings) -> None:
    pipeline = a_pipeline(settings)
    options = a_run(analysis=AnalysisOptions(votes=5, critique=True))

    submission = pipeline.analyze(PARAGRAPH, options=replace(options, model="extractive"))

    assert (submission.options.analysis.votes, submission.options.analysis.critique) == (1, False)
    assert not {"votes", "critique"} & set(pipeline.job(submission).options)
    assert pipeline.value("SELECT options ->> 'votes' FROM runs") is None
    assert pipeline.value("SELECT critique IS NULL FROM results")
    assert pipeline.value(STAGES) == "analyze"


LABELS = {1: "history", 2: "money", 3: "history", 4: "money", 5: "history"}


def with_votes(votes: int) -> RunOptions:
    options = AnalysisOptions(labels=("history", "money"), votes=votes)
    return a_run(AnalysisType.CLASSIFICATION, analysis=options)


def voting(request: CompletionRequest) -> str:
    """Answer with the label of the sample's number; syntheses are unanimous."""
    return a_label("history" if request.task.answers else LABELS[request.task.sample])


def voted(pipeline: Pipeline, text: str, options: RunOptions) -> Submission:
    submission = pipeline.analyze(text, options=options)
    assert pipeline.job(submission).status == "succeeded"
    return submission


def test_a_vote_has_a_result_an_agreement_and_a_call_for_each_sample(settings: Settings) -> None:
    pipeline = a_pipeline(settings, voting, repeat_last=True)

    submission = voted(pipeline, PARAGRAPH, with_votes(5))

    result = pipeline.result(pipeline.job(submission).id)
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


def test_the_agreement_of_a_synthesis_is_at_most_that_of_its_chunks(small_chunks: Settings) -> None:
    """Votes are part of a result's identity unless disabled."""
    pipeline = a_pipeline(small_chunks, voting, repeat_last=True)

    submission = voted(pipeline, LONG, with_votes(3))

    result = pipeline.result(pipeline.job(submission).id)
    assert result.agreement == pytest.approx(2 / 3, abs=1e-5)
    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert isinstance(chunks, int)
    assert chunks > 1
    counts = "SELECT stage, sample, count(*) FROM model_calls GROUP BY 1, 2 ORDER BY 1, 2"
    assert pipeline.rows(counts) == [
        *(("analyze", number, chunks) for number in (1, 2, 3)),
        *(("synthesize", number, 1) for number in (1, 2, 3)),
    ]
    calls = len(pipeline.model.requests)
    again = pipeline.submit(LONG, options=with_votes(3))
    hashes = {
        identity(pipeline.context.settings, AnalysisType.CLASSIFICATION, with_votes(votes))
        for votes in (1, 3, 5)
    }
    assert pipeline.job(again).reused_from is not None
    assert pipeline.result(pipeline.job(again).id).agreement == pytest.approx(2 / 3, abs=1e-5)
    assert len(hashes) == 3
    assert "votes" not in pipeline.job(pipeline.submit(LONG, options=with_votes(1))).options
    assert len(pipeline.model.requests) == calls


def test_a_repeated_vote_takes_its_samples_from_the_cache(settings: Settings) -> None:
    pipeline = a_pipeline(settings, voting, repeat_last=True)
    submission = pipeline.analyze(PARAGRAPH, options=with_votes(3))
    pipeline.execute("DELETE FROM facts")
    pipeline.execute("DELETE FROM results")
    pipeline.execute("UPDATE chunks SET status = 'pending', lease_token = NULL, answer = NULL")
    pipeline.execute("UPDATE jobs SET status = 'running', lease_token = NULL")

    pipeline.work(submission)

    assert pipeline.job(submission).status == "succeeded"
    assert len(pipeline.model.requests) == 3
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE cache_hit") == 3


def test_a_worker_that_lost_its_lease_requests_no_further_sample(settings: Settings) -> None:
    leaves = [True]

    def leaving(request: CompletionRequest) -> str:
        if request.task.sample == 2 and leaves:
            leaves.clear()
            pipeline.context.leases.release_all()
        return voting(request)

    pipeline = a_pipeline(settings, leaving, repeat_last=True)
    submission = pipeline.analyze(PARAGRAPH, options=with_votes(5))
    before = len(pipeline.model.requests)

    pipeline.work(submission)

    assert before == 2
    assert [request.task.sample for request in pipeline.model.requests] == [1, 2, 3, 4, 5]
    assert pipeline.job(submission).status == "succeeded"
