"""Tests of learned examples: answers with feedback are shown in later prompts of a profile."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.learning.learned_examples import is_held_out
from chordwise.errors import ExitCode
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs.run_control import retry
from chordwise.pipeline.learning.evaluation import evaluate
from chordwise.pipeline.runs.explanation import Reconstruction, explain
from chordwise.relations.jobs import find
from chordwise.settings import Settings
from chordwise.storage import pruning
from chordwise.storage.database import driver
from tests.fakes.commands import output_of, run
from tests.fakes.counting import recorded
from tests.fakes.learning import LABELS, a_learner, a_scope, obeying
from tests.fakes.pipeline import LONG, Pipeline, a_document, a_label, a_pipeline, a_run, hash_of

pytestmark = pytest.mark.usefixtures("addressed")
SHOWN = """
    SELECT c.stage, e.source, e.version, cardinality(e.feedback_ids), e.answer ->> 'primary_label'
    FROM model_calls c LEFT JOIN call_examples e ON e.call_id = c.id
    WHERE c.run = (SELECT name FROM runs ORDER BY id DESC LIMIT 1) ORDER BY c.id, e.position"""


def texts(names: str, *, held_out: bool = False) -> Mapping[str, str]:
    """Return a text for each name, which tells the model what to answer."""
    chosen = {}
    for name in names.split():
        numbered = (
            f"The {name} is no. {number}: CHOOSE letter 0.5 and nothing else."
            for number in range(100)
        )
        chosen[name] = next(
            candidate for candidate in numbered if is_held_out(hash_of(candidate)) is held_out
        )
    return chosen


def run_with(profile: str = "post", **changes: object) -> RunOptions:
    options = a_run(
        AnalysisType.CLASSIFICATION,
        analysis=AnalysisOptions(labels=LABELS, confidence_threshold=0.0),
    )
    return replace(options, profile=profile, **changes)  # type: ignore[arg-type]  # by their names


def taken(pipeline: Pipeline, options: RunOptions, contents: Mapping[str, str]) -> Submission:
    return pipeline.submit(
        *(a_document(content, n) for n, content in contents.items()), options=options
    )


def worked(pipeline: Pipeline, options: RunOptions, contents: Mapping[str, str]) -> Submission:
    submission = taken(pipeline, options, contents)
    pipeline.work(submission)
    return submission


def correct(name: str, label: str = "invoice") -> None:
    command = ["feedback", "--document", name, "--correct", f"label={label}"]
    assert run([*command, "--author", "Ada"]) == ExitCode.SUCCESS


def prompts(pipeline: Pipeline, submission: Submission) -> list[str]:
    return [request.user for request in pipeline.model.requests[-len(pipeline.jobs(submission)) :]]


def test_a_correction_is_shown_to_later_documents(pipeline: Pipeline) -> None:
    """A new example does not cause a repetition; with `--fresh` it is used.

    The correction stays visible after a new answer.
    """
    first = worked(pipeline, run_with(), texts("boat canoe"))
    correct("boat")

    later = worked(pipeline, run_with(), texts("ship"))

    (prompt,) = prompts(pipeline, later)
    assert prompt.index(texts("boat")["boat"]) < prompt.index(texts("ship")["ship"])
    assert '"primary_label": "invoice"' in prompt
    assert "boat" not in pipeline.model.requests[-1].system
    assert pipeline.rows(SHOWN) == [("analyze", "boat", 1, 1, "invoice")]
    assert {job.options_hash for job in (*pipeline.jobs(first), pipeline.job(later))} == {
        pipeline.job(later).options_hash
    }
    assert later.example_count == 1
    again = pipeline.job(taken(pipeline, run_with(), texts("canoe")))
    assert (again.reused_from is not None, again.examples) == (True, None)
    fresh = worked(pipeline, run_with(fresh=True), texts("canoe boat"))
    assert [job.examples is not None for job in pipeline.jobs(fresh)] == [True, False]
    results = "SELECT label, answered_output ->> 'primary_label', judged_by FROM document_results"
    assert pipeline.rows(f"{results} WHERE source = 'boat'") == [("invoice", "letter", "Ada")] * 2
    facts = "SELECT final_value, value, judged_by, judged_at IS NOT NULL FROM fact_quotes"
    assert pipeline.rows(f"{facts} WHERE path = '/primary_label' AND source = 'boat'") == [
        *[("invoice", "letter", "Ada", True)] * 2
    ]
    said = "SELECT right_value, judged, author, results FROM corrections"
    assert pipeline.rows(said) == [("invoice", "letter", "Ada", 2)]


def test_examples_are_not_shown_where_they_must_not_be(pipeline: Pipeline) -> None:
    """A text is sent only to a provider that has received it; one of a suite is never shown."""
    worked(pipeline, run_with(), {**texts("boat"), **texts("raft", held_out=True)})
    correct("boat")
    correct("raft")

    runs = {
        "itself": worked(pipeline, run_with(fresh=True), texts("boat")),
        "another profile": worked(pipeline, run_with("else"), texts("ship")),
        "no profile": worked(pipeline, run_with(""), texts("canoe")),
        "off": worked(pipeline, run_with(learned_examples=False), texts("ferry")),
        "a suite": worked(pipeline, run_with(is_suite=True), texts("barge")),
    }

    assert {name for name, submission in runs.items() if pipeline.job(submission).examples} == set()
    assert worked(pipeline, run_with(), texts("yacht")).example_count == 1
    pipeline.execute("UPDATE jobs SET model = 'extractive'")
    assert worked(pipeline, run_with(), texts("ketch")).example_count == 0
    pipeline.execute("UPDATE jobs SET model = 'scripted'")
    worked(pipeline, run_with(is_suite=True, fresh=True), texts("boat"))
    assert worked(pipeline, run_with(), texts("brig")).example_count == 0


def test_withdrawn_feedback_is_not_shown(pipeline: Pipeline) -> None:
    worked(pipeline, run_with(), texts("boat"))
    correct("boat")
    worked(pipeline, run_with(), texts("ship"))
    correct("boat", "report")
    worked(pipeline, run_with(), texts("canoe"))
    assert pipeline.rows(SHOWN) == [("analyze", "boat", 2, 2, "report")]

    for _ in range(2):
        assert run(["feedback", "--document", "boat", "--withdraw"]) == ExitCode.SUCCESS

    assert worked(pipeline, run_with(), texts("yacht")).example_count == 0


def test_a_retry_shows_the_examples_chosen_before(settings: Settings) -> None:
    pipeline = a_learner(settings)
    worked(pipeline, run_with(), texts("boat"))
    correct("boat")
    submission = taken(pipeline, run_with(), texts("ship"))
    correct("boat", "report")
    chosen = pipeline.job(submission).examples
    pipeline.execute("UPDATE jobs SET status = 'failed' WHERE run_id = :id", id=submission.run_id)
    pipeline.execute(
        "UPDATE chunks SET status = 'failed' WHERE job_id = :id", id=pipeline.job(submission).id
    )

    assert retry(pipeline.context, submission.run_id) == 1
    pipeline.work(submission)

    assert pipeline.job(submission).examples == chosen
    assert pipeline.rows(SHOWN) == [("analyze", "boat", 1, 1, "invoice")]


def test_a_quote_from_an_example_is_refused_and_counted(settings: Settings) -> None:
    def answers(request: CompletionRequest) -> str:
        answer = json.loads(obeying(request))
        leaking = [{"feature": "a boat", "quote": "The boat is no."}]
        return json.dumps({**answer, "features": leaking} if request.task.examples else answer)

    pipeline = a_pipeline(settings, answers, repeat_last=True)
    worked(pipeline, run_with(), texts("boat"))
    correct("boat")

    submission = worked(pipeline, run_with(), texts("ship"))

    failed = "SELECT failed_checks -> 0 ->> 'check', needs_review FROM results WHERE job_id = "
    job_id = pipeline.job(submission).id
    assert pipeline.rows(f"{failed}'{job_id}'") == [("example", True)]


def test_every_chunk_of_a_document_shows_the_same_examples(small_chunks: Settings) -> None:
    pipeline = a_pipeline(small_chunks, a_label("letter", 0.5, None), repeat_last=True)
    worked(pipeline, run_with(), {"harbour": texts("harbour")["harbour"]})
    correct("harbour")

    submission = worked(pipeline, run_with(), {"long": LONG})

    assert (pipeline.job(submission).chunk_count or 0) > 1
    stages = {(stage, source) for stage, source, *_ in pipeline.rows(SHOWN)}
    assert stages == {("analyze", "harbour"), ("synthesize", None)}


def test_examples_need_no_further_statement(pipeline: Pipeline) -> None:
    worked(pipeline, run_with(), texts("boat"))
    correct("boat")
    counts = []
    for profile, name in (("post", "ship"), ("else", "canoe")):
        submission = taken(pipeline, run_with(profile), texts(name))
        with recorded() as statements:
            pipeline.work(submission)
        counts.append((len(statements), pipeline.job(submission).examples is not None))

    (with_examples, has), (without, has_none) = counts

    assert (has, has_none) == (True, False)
    assert with_examples == without


def test_held_out_documents_are_measured_separately(pipeline: Pipeline) -> None:
    both = {**texts("boat ship"), **texts("raft canoe", held_out=True)}
    worked(pipeline, run_with(), both)
    for name in both:
        correct(name)
    database = pipeline.context.database
    (before,) = evaluate(database, a_scope(pipeline))
    worked(pipeline, run_with(fresh=True), both)

    (after,) = evaluate(database, a_scope(pipeline))

    parts = [(part["is_whole"], part["is_held_out"], part["judged"]) for part in after["measured"]]
    assert [part["is_held_out"] for part in before["measured"]] == [False]
    assert parts == [(True, False, 4), (False, True, 2)]
    history = "SELECT DISTINCT is_whole, is_held_out, judged FROM evaluation_history ORDER BY 1, 2"
    assert pipeline.rows(history) == [(False, True, 2), (True, False, 4)]


def test_an_explanation_names_the_examples(pipeline: Pipeline) -> None:
    worked(pipeline, run_with(), texts("boat"))
    correct("boat")
    job = pipeline.job(worked(pipeline, run_with(), texts("ship")))

    printed = output_of("explain", str(job.id), "--full").out

    assert "Example in the prompt: boat, version 1, 1 remark" in printed
    with pipeline.context.database.read() as session:
        explained = explain(session, find(driver(session), str(job.id)))
        questions = Reconstruction(driver(session), pipeline.context.settings, explained)
        prompt = questions.about_chunk(0)["prompt"]
    assert [example["source"] for example in explained["examples"]] == ["boat"]
    assert prompt.user == pipeline.model.requests[-1].user


def test_examples_are_pruned_with_their_documents(pipeline: Pipeline) -> None:
    worked(pipeline, run_with(), texts("boat"))
    correct("boat")
    submission = taken(pipeline, run_with(), texts("ship"))
    pipeline.execute("UPDATE runs SET finished_at = now() - interval '9 days', status = 'finished'")
    pipeline.execute("UPDATE documents SET created_at = now() - interval '9 days'")
    first = pipeline.value("SELECT id FROM runs ORDER BY id LIMIT 1")
    with pipeline.context.database.write() as session:
        pruning.forget_jobs(session, uuid.UUID(str(first)), timedelta(days=1))
        pruning.forget_run(session, uuid.UUID(str(first)), timedelta(days=1))
        assert pruning.forget_documents(session, timedelta(days=1)) == 1
    pipeline.execute("UPDATE runs SET finished_at = NULL, status = 'open'")

    pipeline.work(submission)

    assert pipeline.value("SELECT count(*) FROM learned_examples") == 0
    assert pipeline.job(submission).status == "succeeded"
