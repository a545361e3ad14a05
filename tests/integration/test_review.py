"""Tests of the review queue: its content, its order, and the statements that read it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from psycopg import Connection

from chordwise.domain.learning.feedback_input import FeedbackInput
from chordwise.domain.learning.truths import Verdict
from chordwise.errors import UsageError
from chordwise.pipeline.learning import feedback
from chordwise.pipeline.learning.feedback import Signed
from chordwise.relations import relation, review
from chordwise.relations.relation import Row, Values
from chordwise.settings import Settings
from chordwise.storage.database import driver
from tests.fakes.learning import classified, extracted
from tests.fakes.pipeline import Pipeline, a_pipeline, a_summary

DOCUMENTS = 3_000
_COPIES = """
INSERT INTO jobs (id, run_id, intake_id, document_id, analysis_type, options, options_hash, model,
                  status, attempts, postponements)
SELECT uuidv7(), run_id, intake_id, document_id, analysis_type, options, n::text, model, status,
       1, 0
FROM jobs, generate_series(1, :size) AS n
"""
_RESULTS = """
INSERT INTO results (id, job_id, document_id, analysis_type, output, confidence, quality, coverage,
                     needs_review, failed_chunks, provider, model, language_model, prompt_version)
SELECT uuidv7(), j.id, j.document_id, j.analysis_type, r.output,
       (row_number() OVER () % 97) / 100.0, 1, 1, row_number() OVER () % 3 = 0,
       '[]', r.provider, r.model, true, r.prompt_version
FROM jobs AS j, results AS r WHERE j.options_hash ~ '^[0-9]{1,4}$'
"""
_FACTS = """
INSERT INTO facts (id, job_id, path, item, value, confidence, grounding, value_in_quote)
SELECT uuidv7(), job_id, '/fields/' || n, 'item ' || n, 'Miller', 0.3, 'none', true
FROM results, generate_series(0, 3) AS n
WHERE NOT EXISTS (SELECT FROM facts WHERE facts.job_id = results.job_id)
"""


def queue(pipeline: Pipeline, scope: Values) -> Iterator[Row]:
    """Yield the questions to a person who skips all of them."""
    after = None
    while True:
        with pipeline.context.database.read() as session:
            found = review.next_item(driver(session), scope, after)
        if found is None:
            return
        yield found
        after = found["place"]


def test_the_queue_begins_with_the_most_doubtful_results(pipeline: Pipeline) -> None:
    extracted(
        pipeline,
        {
            "a.txt": {"buyer": ("Miller", 9), "price": ("12", 3)},
            "b.txt": {"buyer": ("Smith", 9), "price": ("13", 9)},
            "c.txt": {"buyer": ("Jones", 9), "price": ("14", 4)},
        },
    )
    classified(pipeline, {"d.txt": ("letter", 0.2), "e.txt": ("letter", 0.9)})
    pipeline.execute("UPDATE results SET needs_review = confidence = 0.6")
    pipeline.execute("UPDATE facts SET grounding = 'none' WHERE value = 'Smith'")

    found = list(queue(pipeline, {}))

    assert [(q["source"], q["value"]["value"], *q["reasons"]) for q in found] == [
        ("a.txt", "12", "needs review", "low confidence"),
        ("a.txt", "Miller", "needs review"),
        ("d.txt", "letter", "low confidence"),
        ("c.txt", "14", "low confidence"),
        ("b.txt", "Smith", "ungrounded"),
    ]
    assert [(q["left"], q["is_all"]) for q in found] == [(left, True) for left in (5, 4, 3, 2, 1)]
    assert found[0]["excerpt"]["quote"] == "12"
    assert [q["source"] for q in queue(pipeline, {"analysis_type": "classification"})] == ["d.txt"]


def test_the_queue_uses_calibrated_confidence(pipeline: Pipeline) -> None:
    extracted(pipeline, {"a.txt": {"buyer": ("Miller", 4), "price": ("12", 3)}})
    pipeline.execute("UPDATE results SET needs_review = false")
    pipeline.execute(
        "INSERT INTO calibrations (id, analysis_type, provider, model, part, method, points,"
        " judged, judged_right, error_before, error_after, max_error_rate, accept_from)"
        " SELECT gen_random_uuid(), analysis_type, provider, model, 'field', 'isotonic',"
        " '[[0, 0.1], [1, 0.9]]', 100, 50, 0.1, 0.1, 0.05, 0.4 FROM results"
    )

    (found,) = queue(pipeline, {})

    assert found["value"]["item"] == "price"
    assert found["calibrated_confidence"] == pytest.approx(0.34)


def test_an_answer_as_a_whole_is_decided_once(settings: Settings) -> None:
    pipeline = a_pipeline(settings, a_summary("The harbour", confidence=3), repeat_last=True)
    pipeline.analyze("The harbour of Lindau was rebuilt in 1856.")
    (asked,) = queue(pipeline, {})
    assert (asked["path"], asked["value"]) == ("", None)
    accepted = Signed(entered=FeedbackInput(verdict=Verdict.APPROVED), author="Ada")

    with pipeline.context.database.write() as session:
        said = feedback.decide(session, asked["job_id"], asked["result_id"], accepted)

    assert list(queue(pipeline, {})) == []
    assert said is not None
    with pipeline.context.database.write() as session:
        feedback.withdraw(session, said.id, "Ben")
        (past,) = review.decisions(driver(session))
    assert (past["author"], past["withdrawn_by"]) == ("Ada", "Ben")
    assert [each["path"] for each in queue(pipeline, {})] == [""]


def test_a_decision_about_a_replaced_answer_is_refused(pipeline: Pipeline) -> None:
    classified(pipeline, {"a.txt": ("letter", 0.2)})
    (asked,) = queue(pipeline, {})
    pipeline.execute("UPDATE results SET id = gen_random_uuid()")
    accepted = Signed(entered=FeedbackInput(verdict=Verdict.APPROVED, path=asked["path"]))

    with (
        pytest.raises(UsageError, match="analyzed again"),
        pipeline.context.database.write() as session,
    ):
        feedback.decide(session, asked["job_id"], asked["result_id"], accepted)


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
            feedback.decide(session, job_id, result_id, Signed(entered=entered))

    assert pipeline.value("SELECT count(*) FROM feedback") == 0


def test_the_queue_is_read_from_an_index(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted(pipeline, {"a.txt": {"buyer": ("Miller", 9)}})
    pipeline.execute(_COPIES.replace(":size", str(DOCUMENTS)))
    pipeline.execute(_RESULTS)
    pipeline.execute(_FACTS)
    pipeline.execute("ANALYZE")
    plans = list[str]()

    def explaining(connection: Connection, statement: str, values: Values) -> list[Row]:
        explained = rows(connection, f"EXPLAIN {statement}", values)
        plans.append("\n".join(row["QUERY PLAN"] for row in explained))
        return rows(connection, statement, values)

    rows = relation.rows
    with pipeline.context.database.read() as session:
        connection = driver(session)
        monkeypatch.setattr(relation, "rows", explaining)
        first = review.next_item(connection, {})
        assert first is not None
        review.next_item(connection, {}, (True, 0.5, *first["place"][2:]))
        review.table(connection, {}, 25, first["place"])

    assert len([plan for plan in plans if "ix_results_review" in plan]) == 3
    assert [plan for plan in plans if "Seq Scan on results" in plan] == []
