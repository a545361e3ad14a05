"""Tests of the review queue: its content, its order, and the statements that read it."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chordwise.client import Client
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.learning.feedback_input import FeedbackInput
from chordwise.domain.learning.truths import Verdict
from chordwise.errors import UsageError
from chordwise.pipeline.learning import feedback
from chordwise.relations import review
from chordwise.relations.relation import Row, Values
from chordwise.settings import Settings
from chordwise.storage import results
from chordwise.storage.database import driver
from tests.fakes.commands import output_of
from tests.fakes.generated_answers import a_field
from tests.fakes.learning import classified, doubted, extracted
from tests.fakes.pipeline import Pipeline, a_pipeline, a_run, a_summary

DOCUMENTS = 3_000


def queue(pipeline: Pipeline, scope: Values) -> Iterator[Row]:
    """Yield the questions to a person who skips all of them."""
    after = None
    while True:
        with pipeline.context.database.read() as session:
            item = review.next_item(driver(session), scope, after)
        if item is None:
            return
        yield item
        after = item["place"]


def test_the_queue_begins_with_the_most_doubtful_cells(pipeline: Pipeline) -> None:
    """A cell is asked about for its own reasons, not for those of another cell of its result."""
    extracted(
        pipeline,
        {
            "a.txt": {"buyer": ("Miller", 9), "price": ("12", 3)},
            "b.txt": {"buyer": ("Smith", 9), "price": ("13", 9)},
            "c.txt": {"buyer": ("Jones", 9), "price": ("14", 4)},
        },
    )
    classified(pipeline, {"d.txt": ("letter", 0.2), "e.txt": ("letter", 0.9)})
    doubted(pipeline, "12", "chunks disagree", "value not in quote")
    doubted(pipeline, "Smith", "quote not found")
    doubted(pipeline, "letter", "votes disagree", source="d.txt")

    questions = list(queue(pipeline, {}))

    assert [(q["source"], q["value"]["value"], *q["reasons"]) for q in questions] == [
        ("a.txt", "12", "chunks disagree", "value not in quote"),
        ("d.txt", "letter", "votes disagree"),
        ("b.txt", "Smith", "quote not found"),
    ]
    assert [q["left"] for q in questions] == [3, 2, 1]
    assert questions[0]["excerpt"]["quote"] == "12"
    assert [q["source"] for q in queue(pipeline, {"analysis_type": "classification"})] == ["d.txt"]


def test_replaced_answers_are_not_in_the_queue(pipeline: Pipeline) -> None:
    """A decision about one is refused."""
    for _ in range(2):
        extracted(pipeline, {"a.txt": {"buyer": ("Miller", 9)}})
        doubted(pipeline, "Miller", "quote not found")

    (question,) = queue(pipeline, {})
    assert question["run"] == pipeline.value("SELECT max(name) FROM runs")
    pipeline.execute("UPDATE results SET id = gen_random_uuid()")
    accepted = FeedbackInput(verdict=Verdict.APPROVED, path=question["path"])
    with (
        pytest.raises(UsageError, match="analyzed again"),
        pipeline.context.database.write() as session,
    ):
        feedback.decide(session, question["job_id"], question["result_id"], accepted)


def test_a_warning_about_a_whole_answer_is_seen_and_its_values_stay(pipeline: Pipeline) -> None:
    """Having read a warning about a document says nothing about the values."""
    extracted(pipeline, {"a.txt": {"buyer": ("Miller", 9)}})
    pipeline.execute("UPDATE intakes SET message = 'Page 2 has no text.'")
    pipeline.execute("UPDATE results SET needs_review = true")
    (question,) = queue(pipeline, {})
    seen = FeedbackInput(verdict=Verdict.SEEN, author="Ada")

    with pipeline.context.database.write() as session:
        feedback.decide(session, question["job_id"], question["result_id"], seen)

    assert (question["path"], question["reasons"]) == ("", ["Page 2 has no text."])
    assert list(queue(pipeline, {})) == []
    assert pipeline.value("SELECT needs_review FROM results") is False
    assert pipeline.value("SELECT trust FROM fact_quotes") == "supported"


def test_the_queue_uses_calibrated_confidence(pipeline: Pipeline) -> None:
    submission = extracted(pipeline, {"a.txt": {"buyer": ("Miller", 4), "price": ("12", 3)}})
    pipeline.execute(
        "INSERT INTO calibrations (id, analysis_type, provider, model, part, method, points,"
        " judged, judged_right, error_before, error_after, max_error_rate, accept_from)"
        " SELECT gen_random_uuid(), analysis_type, provider, model, 'field', 'isotonic',"
        " '[[0, 0.1], [1, 0.9]]', 100, 50, 0.1, 0.1, 0.05, 0.4 FROM results"
    )
    with pipeline.context.database.write() as session:
        results.update_reviews(session, [pipeline.job(submission).id])

    (question,) = queue(pipeline, {})

    assert question["value"]["item"] == "price"
    assert question["calibrated_confidence"] == pytest.approx(0.34)


def test_an_answer_as_a_whole_is_decided_once(settings: Settings) -> None:
    pipeline = a_pipeline(settings, a_summary("The harbour", confidence=3), repeat_last=True)
    pipeline.analyze("The harbour of Lindau was rebuilt in 1856.")
    pipeline.execute(
        """UPDATE results SET doubts = '{"": ["The critique failed."]}', needs_review = true"""
    )
    (question,) = queue(pipeline, {})
    assert (question["path"], question["value"]) == ("", None)
    accepted = FeedbackInput(verdict=Verdict.APPROVED, author="Ada")

    with pipeline.context.database.write() as session:
        said = feedback.decide(session, question["job_id"], question["result_id"], accepted)

    assert list(queue(pipeline, {})) == []
    assert said is not None
    with pipeline.context.database.write() as session:
        feedback.withdraw(session, said.id, "Ben")
        (past,) = review.decisions(driver(session))
    assert (past["author"], past["withdrawn_by"]) == ("Ada", "Ben")
    assert [question["path"] for question in queue(pipeline, {})] == [""]


def test_a_selection_outside_the_document_is_refused(pipeline: Pipeline) -> None:
    submission = extracted(pipeline, {"a.txt": {"price": ("12 EUR", 4)}})
    job_id = pipeline.job(submission).id
    result_id = pipeline.value("SELECT id FROM results")
    assert isinstance(result_id, uuid.UUID)

    for span in ((6, 7), (5, 100_000), (7, 6)):
        entered = FeedbackInput(verdict=Verdict.CORRECTED, path="price", value="13", span=span)
        with (
            pytest.raises(UsageError, match="no text"),
            pipeline.context.database.write() as session,
        ):
            feedback.decide(session, job_id, result_id, entered)

    assert pipeline.value("SELECT count(*) FROM feedback") == 0


@pytest.mark.usefixtures("addressed")
def test_the_terminal_shows_all_values_to_which_a_decision_applies(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several values of an item is doubtful; rejecting it keeps the others."""
    names = ("Miller", "Smith", "Jones")
    fields = [a_field("parties", name, 9, quote=name) for name in names]
    pipeline = a_pipeline(settings, json.dumps({"fields": fields}))
    asked = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(items=("parties",)))
    pipeline.analyze("Miller, Smith and Jones.", options=asked)
    doubted(pipeline, "Smith", "quote not found")
    monkeypatch.setattr("sys.stdin", io.StringIO("x\n"))

    shown = output_of("review", "latest").in_one_line

    others = "accept also applies to the other values, which reject and correct keep: Miller; Jones"
    assert others in shown
    rejected = pipeline.value("SELECT array_agg(value) FROM facts WHERE verdict = 'rejected'")
    assert rejected == ["Smith"]


@pytest.mark.usefixtures("addressed")
def test_the_client_and_the_command_have_the_same_queue(pipeline: Pipeline) -> None:
    extracted(
        pipeline,
        {"a.txt": {"buyer": ("Miller", 2), "price": ("12", 4)}, "b.txt": {"buyer": ("Ash", 9)}},
        threshold=0.5,
    )

    listed = json.loads(output_of("review", "latest", "--json").out)["to_check"]
    with Client() as client:
        (result,) = client.results(document="a.txt")
        before = {fact.item: (fact.trust, fact.reasons) for fact in result.all_facts}
        for question in client.cells_to_check("latest"):
            assert client.decide(question, "approved", author="Ada")
        (after,) = client.results(document="a.txt")
        assert list(client.cells_to_check()) == []

    assert [(cell["item"], cell["reasons"]) for cell in listed] == [
        ("buyer", ["low confidence"]),
        ("price", ["low confidence"]),
    ]
    assert before == dict.fromkeys(("buyer", "price"), ("check", ["low confidence"]))
    assert [fact.trust for fact in after.all_facts] == ["confirmed", "confirmed"]
    assert (result.needs_review, after.needs_review) == (True, False)


@pytest.mark.usefixtures("addressed")
def test_each_table_has_its_cells_in_the_queue(pipeline: Pipeline) -> None:
    """A table keeps its answer when the same question is saved in another one."""
    analysis = AnalysisOptions(instructions="buyer", confidence_threshold=0.5)
    for table in ("first", "second"):
        options = a_run(AnalysisType.EXTRACTION, analysis=analysis)
        text = 'VALUES {"buyer": ["Miller", 2]}'
        pipeline.analyze(text, options=replace(options, save_as=table, fresh=True))

    listed = [json.loads(output_of("review", table, "--json").out) for table in ("first", "second")]

    assert [len(one["to_check"]) for one in listed] == [1, 1]
    assert pipeline.rows("SELECT needs_check FROM answers.first") == [(1,)]
