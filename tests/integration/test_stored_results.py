"""Tests of stored results, found by run, type and name, or as the newest answers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.pipeline.learning import scope
from chordwise.relations import results as stored_results
from chordwise.relations.results import ResultSelection
from chordwise.settings import Settings
from chordwise.storage.database import driver
from tests.fakes.pipeline import PARAGRAPH, Pipeline, a_document, a_pipeline, a_run

_RESULTS = """
INSERT INTO results (id, job_id, document_id, analysis_type, output, confidence, quality, coverage,
                     needs_review, failed_chunks, provider, model, language_model, prompt_version)
SELECT uuidv7(), id, document_id, analysis_type, '{}', 1, 1, 1, false, '[]', 'p', 'm', true, 'x@1'
FROM jobs WHERE run_id = :run_id ORDER BY id
"""
BOTH = (AnalysisType.SUMMARY, AnalysisType.SENTIMENT)


def answered(pipeline: Pipeline, source: str, text: str = PARAGRAPH) -> uuid.UUID:
    """Take a document in under a name, and store two results as if it had been analyzed."""
    submission = pipeline.submit(a_document(text, source), options=a_run(*BOTH, fresh=True))
    pipeline.execute(_RESULTS, run_id=submission.run_id)
    return submission.run_id


def sources_of(pipeline: Pipeline, selection: ResultSelection) -> Sequence[tuple[str, str]]:
    """Return sources and types of the results, and check that they are counted and listed."""
    with pipeline.context.database.read() as session:
        results = stored_results.read(driver(session), selection)
        assert stored_results.count(driver(session), selection) == len(results)
        assert stored_results.read(driver(session), selection, limit=1) == results[:1]
        listed = {row["job_id"] for row in scope.listed(session, selection)}
        assert listed == {row["job_id"] for row in results}
        return [(row["source"], row["analysis_type"]) for row in results]


def test_only_the_newest_answers_are_found(settings: Settings) -> None:
    """A document is found by each of its names, and a run has all of its results."""
    pipeline = a_pipeline(settings)
    first = answered(pipeline, "old.txt")
    answered(pipeline, "old-copy.txt")
    answered(pipeline, "other.txt", "Another text. It is short.")
    answered(pipeline, "new.txt")
    summaries = (AnalysisType.SUMMARY,)

    assert sources_of(pipeline, ResultSelection()) == [
        ("new.txt", "sentiment"),
        ("new.txt", "summary"),
        ("other.txt", "sentiment"),
        ("other.txt", "summary"),
    ]
    selected = ResultSelection(types=summaries, document="OTHER")
    assert sources_of(pipeline, selected) == [("other.txt", "summary")]
    selected = ResultSelection(types=summaries, document="old")
    assert sources_of(pipeline, selected) == [("old-copy.txt", "summary")]
    assert sources_of(pipeline, ResultSelection(run_id=first)) == [
        ("old.txt", "summary"),
        ("old.txt", "sentiment"),
    ]


ADDING_UP: JsonObject = {
    "type": "object",
    "properties": {
        "parts": {"type": "array", "items": {"type": "integer"}},
        "total": {"type": "integer"},
    },
    "x-checks": [{"check": "sum", "of": "/parts/*", "equals": "/total"}],
}


def test_a_failed_check_is_stored_with_the_result(settings: Settings) -> None:
    written = json.dumps({"data": {"parts": [5, 6], "total": 12}, "evidence": []})
    pipeline = a_pipeline(settings, written, repeat_last=True)
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(schema=ADDING_UP))

    submission = pipeline.analyze(PARAGRAPH, options=options)

    with pipeline.context.database.read() as session:
        (stored,) = stored_results.read(driver(session), ResultSelection(run_id=submission.run_id))
    problem = "the sum of /parts/* is not /total"
    failed = {"check": "sum", "path": "/data/total", "found": "11", "expected": "12"}
    assert stored["failed_checks"] == [{**failed, "problem": problem}]
    # Its values have no quotes, which leaves no quality that the check could lower.
    assert (stored["status"], stored["quality"], stored["needs_review"]) == ("succeeded", 0.0, True)
    assert len(pipeline.model.requests) == 2
    shown = "SELECT failed_checks FROM document_results"
    assert pipeline.value(shown) == stored["failed_checks"]


def test_the_data_have_the_order_in_which_they_were_asked(settings: Settings) -> None:
    """The database orders the members of an object by their length."""
    names = ["governing law", "date", "parties"]
    text: JsonObject = {"type": "string"}
    schema: JsonObject = {"type": "object", "properties": dict.fromkeys(names, text)}
    data = dict.fromkeys(reversed(names), "It rained.")
    pipeline = a_pipeline(settings, json.dumps({"data": data, "evidence": []}), repeat_last=True)
    options = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(schema=schema))

    submission = pipeline.analyze(PARAGRAPH, options=options)

    with pipeline.context.database.read() as session:
        (stored,) = stored_results.read(driver(session), ResultSelection(run_id=submission.run_id))
    assert list(stored["output"]["data"]) == names
