"""Tests of lists in results: rows of all chunks are joined, and missing rows are reported."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import JobStatus
from chordwise.errors import ExitCode
from chordwise.llm.model import Completion, CompletionRequest
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs.run_control import retry
from chordwise.settings import Settings
from tests.fakes.commands import output_of
from tests.fakes.order_rows import (
    EQUAL_COUNT,
    ORDER,
    ROW_COUNT,
    SCHEMA,
    TITLED,
    UNJOINABLE,
    an_extraction,
    extracting,
    rows_in,
    rows_of,
    straying,
    within_limits,
)
from tests.fakes.pipeline import Pipeline, a_pipeline, a_run
from tests.fakes.scripted_model import Line, cut_off

SCRIPTED_MODEL = """[models.scripted]
provider = "openai"
model = "scripted"
base_url = "http://127.0.0.1:9/v1"
"""
SENTENCE = "30 of 300 rows of `line_items` are in the result."
MEASURES = "SELECT status, quality, coverage, needs_review FROM document_results"


def an_extraction_run(schema: JsonObject = SCHEMA, **options: object) -> RunOptions:
    analysis = replace(AnalysisOptions(schema=schema), **options)  # type: ignore[arg-type]  # a test's options
    return a_run(AnalysisType.EXTRACTION, analysis=analysis)


def worked(
    settings: Settings, *script: Line, text: str = ORDER, options: RunOptions | None = None
) -> tuple[Pipeline, Submission]:
    pipeline = a_pipeline(settings, *script, repeat_last=True)
    submission = pipeline.analyze(text, options=options or an_extraction_run())
    return pipeline, submission


def stored_output(pipeline: Pipeline) -> JsonObject:
    return json_values.as_object(pipeline.value("SELECT output FROM results"))


def cut_off_in_syntheses(request: CompletionRequest) -> str | Completion:
    """Answer about chunks, and exceed the output limit in every synthesis."""
    text = extracting()(request)
    return cut_off(text) if request.task.answers else text


@pytest.mark.parametrize(
    ("size", "schema"),
    [("small", SCHEMA), ("default", TITLED)],
    ids=["joined by rule", "title by a model"],
)
def test_every_row_of_the_text_is_a_row_of_the_result(
    size: str, schema: JsonObject, settings: Settings, small_chunks: Settings
) -> None:
    """Answers end at 2,048 tokens and a synthesis has at most 30 rows; each row has its place."""
    chosen = small_chunks if size == "small" else settings
    script = within_limits(extracting(max_rows=30))
    pipeline, _ = worked(chosen, script, options=an_extraction_run(schema))

    is_decided = schema == TITLED  # the parts have other titles than the whole
    assert pipeline.rows(MEASURES) == [("succeeded", 1.0, 1.0, is_decided)]
    assert rows_of(stored_output(pipeline)) == rows_in(ORDER)
    rows = pipeline.rows(
        "SELECT row_index, value, substr(d.text, f.start_char + 1, f.end_char - f.start_char)"
        " FROM facts AS f JOIN results AS r USING (job_id) JOIN documents AS d"
        " ON d.id = r.document_id WHERE item = 'line_items.name' ORDER BY row_index"
    )
    assert [(row, line) for row, _, line in rows] == list(enumerate(ORDER.splitlines()))
    assert [name for _, name, _ in rows].count("Coffee") == EQUAL_COUNT
    places = "SELECT count(DISTINCT start_char) FROM facts WHERE item = 'line_items.name'"
    assert pipeline.value(places) == ROW_COUNT
    syntheses = [request for request in pipeline.model.requests if request.task.answers]
    assert bool(syntheses) == (schema is TITLED)


def test_a_result_records_the_origin_of_its_lists(small_chunks: Settings) -> None:
    def failing_first(request: CompletionRequest) -> str:
        is_first = request.task.text.startswith(ORDER[:30])
        return "no JSON" if is_first else extracting()(request)

    pipeline, submission = worked(small_chunks, failing_first)

    assert pipeline.job(submission).status == JobStatus.PARTIAL
    kept = len(rows_of(stored_output(pipeline)))
    chunks = "SELECT jsonb_array_length(answer -> 'data' -> 'line_items') FROM chunks"
    by_chunk = [count for (count,) in pipeline.rows(f"{chunks} ORDER BY position")]
    start = pipeline.value("SELECT start_char FROM chunks WHERE position = 1")
    assert by_chunk[0] is None
    assert pipeline.value("SELECT row_counts -> 0 FROM document_results") == {
        "path": "/data/line_items",
        "by_chunk": by_chunk,
        "repeated": 0,
        "kept": kept,
        "located": kept,
        "unread": 0,
        "start_char": start,
        "end_char": len(ORDER) - 1,
    }


def test_rows_of_the_next_chunk_replace_no_missing_ones(small_chunks: Settings) -> None:
    pipeline, submission = worked(small_chunks, straying)

    job = pipeline.job(submission)
    kept = len(rows_of(stored_output(pipeline)))
    assert (job.status, job.error_code) == ("partial", "missing_rows")
    assert f"{kept} of {ROW_COUNT} rows" in str(job.error_message)
    read = "SELECT sum(jsonb_array_length(answer -> 'data' -> 'line_items'))::text FROM chunks"
    repeated = int(str(pipeline.value(read))) - kept
    assert pipeline.value("SELECT row_counts -> 0 -> 'repeated' FROM results") == repeated


def test_a_gap_in_the_middle_of_a_list_makes_it_partial(small_chunks: Settings) -> None:
    middle = ORDER.splitlines()[ROW_COUNT // 2 + 1]

    def passing_over(request: CompletionRequest) -> str:
        return an_extraction([]) if middle in request.task.text else extracting()(request)

    pipeline, submission = worked(small_chunks, passing_over)

    kept = len(rows_of(stored_output(pipeline)))
    empty = pipeline.value(
        "SELECT position + 1 FROM chunks"
        " WHERE jsonb_array_length(answer -> 'data' -> 'line_items') = 0"
    )
    said = (
        f"{kept:,} of {ROW_COUNT} rows of `line_items` (without: part {empty}) are in the result."
    )
    job = pipeline.job(submission)
    assert (job.status, job.error_code, job.error_message) == ("partial", "missing_rows", said)
    assert "x-selection" in str(job.hint)
    reviewed = "SELECT needs_review, review_reason, coverage FROM document_results"
    assert pipeline.rows(reviewed) == [(True, said, pytest.approx(kept / ROW_COUNT))]
    assert pipeline.value("SELECT row_counts -> 0 ->> 'unread' FROM results") == str(
        ROW_COUNT - kept
    )


def test_the_header_of_a_table_is_sent_with_each_chunk(small_chunks: Settings) -> None:
    header = "| name | price 1 |\n|---|---|"
    rows = [f"| Part-{number} | {number} |" for number in range(200)]
    text = "\n".join(["About the parts.\n", header, *rows])

    def reading(request: CompletionRequest) -> str:
        lines = [line for line in request.task.text.splitlines() if line.startswith("| Part")]
        items = [{"name": line.split()[1], "price": int(line.split()[3])} for line in lines]
        evidence = [
            {"path": f"/line_items/{position}", "quote": quote, "confidence": 9}
            for position, quote in enumerate(["| name | price 1 |", *lines])
        ]
        data = {"line_items": [{"name": "name", "price": 1}, *items]}
        return json.dumps({"data": data, "evidence": evidence})

    pipeline, submission = worked(small_chunks, reading, text=text)

    requests = pipeline.model.requests
    assert [header in request.user for request in requests] == [True] * len(requests)
    assert [header in request.task.text for request in requests] == [True] + [False] * (
        len(requests) - 1
    )
    assert pipeline.job(submission).chunk_count == len(requests) > 2
    assert len(rows_of(stored_output(pipeline))) == 201
    assert pipeline.value("SELECT row_counts -> 0 ->> 'repeated' FROM results") == str(
        len(requests) - 1
    )
    assert pipeline.rows(MEASURES) == [("succeeded", 1.0, 1.0, False)]
    assert pipeline.value(
        "SELECT start_char FROM facts WHERE item = 'line_items.name' AND row_index = 0"
    ) == text.index(header)


@pytest.mark.usefixtures("addressed")
def test_a_synthesis_that_drops_rows_is_partial_until_a_retry_keeps_them(
    small_chunks: Settings, tmp_path: Path
) -> None:
    """With any number of levels, the rows of the chunks are the reference.

    Neither the partial result nor the cached completion that lost rows is reused.
    """
    answers = [extracting(max_rows=30)]

    def better_later(request: CompletionRequest) -> str:
        return answers[-1](request)

    pipeline = a_pipeline(small_chunks, better_later, repeat_last=True)
    pipeline.model.narrow(context_tokens=20_000)
    submission = pipeline.analyze(ORDER, options=an_extraction_run(UNJOINABLE))

    expect_partial(pipeline, submission)
    expect_missing_rows(submission.name, tmp_path)
    second = pipeline.submit(ORDER, options=an_extraction_run(UNJOINABLE))
    assert pipeline.job(second).status == JobStatus.QUEUED
    assert pipeline.job(second).reused_from is None
    answers.append(extracting())
    retry(pipeline.context, submission.run_id)
    pipeline.work(submission)
    assert pipeline.rows(MEASURES) == [("succeeded", 1.0, 1.0, True)]
    assert pipeline.rows("SELECT item, reasons FROM review_queue") == [
        ("kind", ["chunks disagree"])
    ]
    assert len(rows_of(stored_output(pipeline))) == ROW_COUNT


@pytest.mark.usefixtures("addressed")
def test_the_proposed_command_recovers_missing_rows(settings: Settings, tmp_path: Path) -> None:
    """The same question is asked again; a retry would keep the answer."""
    first, later = an_extraction(rows_in(ORDER)[:9]), extracting()
    text = "".join(ORDER.splitlines(keepends=True)[:30])
    pipeline = a_pipeline(settings, first, first, later, repeat_last=True)
    submission = pipeline.analyze(text, options=an_extraction_run())
    (tmp_path / "chordwise.toml").write_text(SCRIPTED_MODEL, "utf-8")
    said = output_of("wait", submission.name, code=3).in_one_line

    output_of("refresh", submission.name, "--failed", "--yes", "--no-wait")
    job_id = pipeline.value("SELECT id FROM jobs WHERE status <> 'partial'")
    pipeline.work_on(UUID(str(job_id)))

    assert f"'{submission.name}' --failed" in said
    assert "retry" not in said
    statuses = "SELECT status, jsonb_array_length(output -> 'data' -> 'line_items')"
    assert pipeline.rows(f"{statuses} FROM document_results ORDER BY created_at") == [
        ("partial", 9),
        ("succeeded", 30),
    ]


def expect_partial(pipeline: Pipeline, submission: Submission) -> None:
    """Check the stored values of a result that has 30 of all rows."""
    job = pipeline.job(submission)
    assert (job.status, job.error_code, job.error_message) == (
        JobStatus.PARTIAL,
        "missing_rows",
        SENTENCE,
    )
    assert "chordwise continue" in str(job.hint)
    assert pipeline.rows(MEASURES) == [("partial", 0.1, 0.1, True)]
    assert pipeline.value("SELECT missing_rows FROM document_results") == [
        {
            "path": "/data/line_items",
            "kept": 30,
            "found": ROW_COUNT,
            "max_items": None,
            "records": 0,
            "where": [],
        }
    ]
    assert pipeline.value("SELECT count(*) > 1 FROM model_calls WHERE stage = 'synthesize'")
    assert pipeline.value("SELECT coverage < 1 FROM document_coverage")
    assert pipeline.value("SELECT error_message FROM failures WHERE what = 'job'") == SENTENCE


def expect_missing_rows(run: str, folder: Path) -> None:
    """Check that missing rows are reported in commands, JSON, SQL and exports."""
    (folder / "chordwise.toml").write_text(SCRIPTED_MODEL, "utf-8")

    def said(*arguments: str, code: int = 0) -> str:
        return " ".join(output_of(*arguments, code=code).out.split())

    assert SENTENCE in said("wait", run, code=3)
    assert SENTENCE in said("runs", run)
    shown = said("results", "--run", run)
    assert SENTENCE in shown
    assert "partial · needs review" in shown
    assert "coverage 10.0 %" in shown
    (result,) = json.loads(said("results", "--run", run, "--json"))["results"]
    assert result["missing_rows"][0]["found"] == ROW_COUNT
    assert '"kept": 30' in said("sql", "SELECT missing_rows FROM results")
    path = folder / "results.csv"
    said("export", "document_results", "--output", str(path))
    csv.field_size_limit(10_000_000)
    (row,) = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    assert json.loads(row["missing_rows"])[0]["kept"] == 30


def test_the_merge_after_a_truncated_synthesis_loses_no_row(small_chunks: Settings) -> None:
    pipeline, submission = worked(
        small_chunks, cut_off_in_syntheses, options=an_extraction_run(TITLED)
    )

    job = pipeline.job(submission)
    output = stored_output(pipeline)
    rows = rows_of(output)
    assert (job.status, job.error_code) == (JobStatus.PARTIAL, "truncated")
    # One value has no quote.
    assert pipeline.rows(MEASURES) == [("partial", 0.797, 1.0, True)]
    assert rows == rows_in(ORDER)
    assert rows.count({"name": "Coffee", "price": 3}) == EQUAL_COUNT
    assert pipeline.value("SELECT missing_rows FROM results") == []
    for entry in json_values.objects(output["evidence"]):
        row = json_values.as_object(rows[int(str(entry["path"]).rpartition("/")[2])])
        assert str(entry["quote"]).startswith(f"{row['name']} costs")
        assert ORDER[int(str(entry["start_char"])) :].startswith(str(entry["quote"]))


def test_failed_chunks_and_missing_rows_are_both_named(small_chunks: Settings) -> None:
    def failing_first(request: CompletionRequest) -> str:
        is_first = request.task.text.startswith(ORDER[:30])
        return "no JSON" if is_first else extracting(max_rows=30)(request)

    pipeline, submission = worked(
        small_chunks, failing_first, options=an_extraction_run(UNJOINABLE)
    )

    message = str(pipeline.job(submission).error_message)
    ((_, _, coverage, needs_review),) = pipeline.rows(MEASURES)
    assert "1 of " in message
    assert "rows of `line_items` are in the result" in message
    assert float(str(coverage)) < 30 / (ROW_COUNT * 5 / 6)
    assert needs_review


def test_a_repair_that_drops_rows_is_partial(settings: Settings) -> None:
    """The reference is the invalid answer, also of one chunk; a repair that keeps them succeeds."""
    text = "".join(ORDER.splitlines(keepends=True)[:20])
    rows = rows_in(text)
    invalid = an_extraction([*rows[:-1], {"name": "Part-19"}])

    pipeline, submission = worked(settings, invalid, an_extraction(rows[:5]), text=text)

    job = pipeline.job(submission)
    assert (job.status, job.error_code) == (JobStatus.PARTIAL, "missing_rows")
    assert job.error_message == "5 of 20 rows of `line_items` are in the result."
    assert "chordwise refresh RUN --failed" in str(job.hint)
    assert pipeline.rows(MEASURES) == [("partial", 0.2, 0.25, True)]
    assert pipeline.value("SELECT missing_rows -> 0 ->> 'found' FROM chunks") == "20"
    pipeline.execute("TRUNCATE runs, documents, cached_completions CASCADE")
    pipeline, _ = worked(settings, invalid, an_extraction(rows), text=text)
    assert pipeline.rows(MEASURES) == [("succeeded", 0.8, 1.0, False)]


def test_a_revision_that_drops_rows_is_rejected(settings: Settings) -> None:
    text = "".join(ORDER.splitlines(keepends=True)[:20])
    rows = rows_in(text)
    violation = {"principle": 1, "path": "/data/line_items/3", "problem": "It is wrong."}
    objection = json.dumps({"violations": [violation]})
    script = [an_extraction(rows), objection, an_extraction(rows[:5])]

    pipeline, _ = worked(settings, *script, text=text, options=an_extraction_run(critique=True))

    assert len(rows_of(stored_output(pipeline))) == 20
    assert pipeline.value("SELECT critique_outcome FROM document_results") == "kept"
    assert "5 of 20 rows" in str(pipeline.value("SELECT critique ->> 'reason' FROM results"))
    assert pipeline.value("SELECT needs_review FROM results")


NIGHT = (
    "The night was quiet. A pump failed in the north hall, and a fitter came within the hour.\n"
    "Later the lift of the south wing stopped between two floors. The lift was empty.\n"
)
INCIDENTS: JsonObject = {
    "type": "object",
    "properties": {"incidents": {"type": "array", "items": {"type": "string"}, "x-count": True}},
    "required": ["incidents"],
    "additionalProperties": False,
}


@pytest.mark.usefixtures("addressed")
def test_a_row_that_is_counted_and_not_given_makes_the_result_partial(
    settings: Settings, tmp_path: Path
) -> None:
    """The output has no counts, and the exit code is 3."""
    quote = "A pump failed in the north hall"
    omitting = {
        "counts": {"incidents": 2},
        "data": {"incidents": [quote]},
        "evidence": [{"path": "/incidents/0", "quote": quote, "confidence": 9}],
    }
    (tmp_path / "chordwise.toml").write_text(SCRIPTED_MODEL, "utf-8")
    pipeline, _ = worked(
        settings, json.dumps(omitting), text=NIGHT, options=an_extraction_run(INCIDENTS)
    )

    waited = output_of("wait", "latest", code=ExitCode.INCOMPLETE)

    assert "1 of 2 rows of `incidents` are in the result." in waited.in_one_line
    assert len(pipeline.model.requests) == 2
    ((output, missing, status),) = pipeline.rows(
        "SELECT output, missing_rows, status FROM document_results"
    )
    assert (sorted(json_values.as_object(output)), status) == (["data", "evidence"], "partial")
    assert missing == [
        {
            "path": "/data/incidents",
            "kept": 1,
            "found": 2,
            "max_items": None,
            "records": 1,
            "where": [],
        }
    ]
    facts = "SELECT count(*) FROM facts WHERE item LIKE '%counts%' OR path LIKE '%counts%'"
    assert pipeline.value(facts) == 0
