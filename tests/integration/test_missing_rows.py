"""Lists of a document's content: a result that has fewer rows than its parts says so."""

from __future__ import annotations

import csv
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import JobStatus
from chordwise.domain.tasks import AnalysisOptions, AnalysisType
from chordwise.llm.model import Completion, CompletionRequest, FinishReason
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs.retry import retry
from chordwise.settings import Settings
from tests.fakes import commands
from tests.fakes.order_rows import (
    EQUAL_COUNT,
    ORDER,
    ROW_COUNT,
    SCHEMA,
    an_extraction,
    extracting,
    rows_in,
    rows_of,
)
from tests.fakes.pipeline import LONG, Pipeline, a_pipeline, a_run
from tests.fakes.scripted_model import Line, ScriptedModel

SENTENCE = "30 of 1,200 rows of `line_items` are in the result."
MEASURES = "SELECT status, quality, coverage, needs_review FROM document_results"


def an_extraction_run(**options: object) -> RunOptions:
    """Return the options of an extraction by the schema of an order."""
    analysis = replace(AnalysisOptions(schema=SCHEMA), **options)  # type: ignore[arg-type]  # a test's options
    return a_run(AnalysisType.EXTRACTION, analysis=analysis)


def worked(
    settings: Settings, *script: Line, text: str = ORDER, options: RunOptions | None = None
) -> tuple[Pipeline, Submission]:
    """Analyze a text in one run, the last line of the script repeated."""
    pipeline = a_pipeline(settings, *script, repeat_last=True)
    submission = pipeline.submit(text, options=options or an_extraction_run())
    pipeline.work(submission)
    return pipeline, submission


def output_of(pipeline: Pipeline) -> JsonObject:
    """Return the output of the only result."""
    return json_values.as_object(pipeline.value("SELECT output FROM results"))


def cut_off(request: CompletionRequest) -> str | Completion:
    """Answer about chunks, and run into the output limit with every synthesis."""
    text = extracting()(request)
    if not request.task.answers:
        return text
    return replace(ScriptedModel([]).completion(text), finish_reason=FinishReason.LENGTH)


def test_a_synthesis_that_keeps_all_rows_succeeds(small_chunks: Settings) -> None:
    """Equal rows at different places are different rows, and none is missing."""
    pipeline, _ = worked(small_chunks, extracting())

    assert pipeline.rows(MEASURES) == [("succeeded", 1.0, 1.0, False)]
    assert pipeline.value("SELECT missing_rows FROM document_results") == []
    assert rows_of(output_of(pipeline)) == rows_in(ORDER)


def test_a_synthesis_that_drops_rows_is_partial_and_names_the_counts(
    small_chunks: Settings,
) -> None:
    """However many levels it takes, the rows of the chunks are what counts."""
    pipeline = a_pipeline(small_chunks, extracting(at_most=30), repeat_last=True)
    pipeline.model.narrow(context_tokens=16_000)
    submission = pipeline.submit(ORDER, options=an_extraction_run())
    pipeline.work(submission)

    job = pipeline.job(submission)
    assert (job.status, job.error_code, job.error_message) == (
        JobStatus.PARTIAL,
        "missing_rows",
        SENTENCE,
    )
    assert "chordwise retry" in str(job.hint)
    assert pipeline.rows(MEASURES) == [("partial", 0.025, 0.025, True)]
    assert pipeline.value("SELECT missing_rows FROM document_results") == [
        {"path": "/data/line_items", "kept": 30, "found": ROW_COUNT, "max_items": None}
    ]
    assert pipeline.value("SELECT count(*) > 1 FROM model_calls WHERE stage = 'synthesize'")
    assert pipeline.value("SELECT coverage < 1 FROM document_coverage")
    assert pipeline.value("SELECT error_message FROM failures WHERE what = 'job'") == SENTENCE


def test_one_missing_row_of_many_is_not_rounded_away(small_chunks: Settings) -> None:
    """Neither quality nor coverage says 1."""
    pipeline, _ = worked(small_chunks, extracting(at_most=ROW_COUNT - 1))

    ((status, quality, coverage, needs_review),) = pipeline.rows(MEASURES)
    assert (status, needs_review) == ("partial", True)
    assert quality == 0.999
    assert coverage == pytest.approx((ROW_COUNT - 1) / ROW_COUNT)


@pytest.mark.usefixtures("addressed")
def test_missing_rows_are_seen_wherever_a_result_is(
    small_chunks: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In the commands, as text and as JSON, in SQL and in exports."""
    _, submission = worked(small_chunks, extracting(at_most=30))
    model = '[models.scripted]\nprovider = "openai"\nmodel = "scripted"\n'
    (tmp_path / "chordwise.toml").write_text(f'{model}base_url = "http://127.0.0.1:9/v1"\n')

    def said(*arguments: str, code: int = 0) -> str:
        assert commands.run(arguments) == code
        return " ".join(capsys.readouterr().out.split())

    assert SENTENCE in said("wait", submission.name, code=3)
    assert SENTENCE in said("runs", submission.name)
    shown = said("results", "--run", submission.name)
    assert SENTENCE in shown
    assert "partial · needs review" in shown
    assert "coverage 2.5 %" in shown
    (result,) = json.loads(said("results", "--run", submission.name, "--json"))["results"]
    assert result["missing_rows"][0]["found"] == ROW_COUNT
    assert '"kept": 30' in said("sql", "SELECT missing_rows FROM results")
    path = tmp_path / "results.csv"
    said("export", "document_results", "--output", str(path))
    csv.field_size_limit(10_000_000)
    (row,) = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    assert json.loads(row["missing_rows"])[0]["kept"] == 30


def test_a_synthesis_that_is_cut_off_loses_no_row_to_the_rule(small_chunks: Settings) -> None:
    """Equal rows stay; the result is partial, of lower quality, and needs review."""
    pipeline, submission = worked(small_chunks, cut_off)

    job = pipeline.job(submission)
    rows = rows_of(output_of(pipeline))
    assert (job.status, job.error_code) == (JobStatus.PARTIAL, "truncated")
    assert pipeline.rows(MEASURES) == [("partial", 0.8, 1.0, True)]
    assert rows == rows_in(ORDER)
    assert rows.count({"name": "Coffee", "price": 3}) == EQUAL_COUNT
    assert pipeline.value("SELECT missing_rows FROM results") == []


def test_evidence_follows_its_row_past_equal_ones(small_chunks: Settings) -> None:
    """Each quote of the merged answer stands beside the row that it was found with."""
    pipeline, _ = worked(small_chunks, cut_off)

    output = output_of(pipeline)
    rows = rows_of(output)
    for entry in json_values.objects(output["evidence"]):
        row = json_values.as_object(rows[int(str(entry["path"]).rpartition("/")[2])])
        assert str(entry["quote"]).startswith(f"{row['name']} costs")
        assert ORDER[int(str(entry["start_char"])) :].startswith(str(entry["quote"]))


def test_a_retry_asks_for_the_synthesis_again(small_chunks: Settings) -> None:
    """The completion that lost rows is not taken out of the cache."""
    losing, complete = extracting(at_most=30), extracting()
    is_over = [False]

    def better_later(request: CompletionRequest) -> str:
        return (complete if is_over[0] else losing)(request)

    pipeline, submission = worked(small_chunks, better_later)
    is_over[0] = True

    retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert pipeline.rows(MEASURES) == [("succeeded", 1.0, 1.0, False)]
    assert len(rows_of(output_of(pipeline))) == ROW_COUNT


def test_a_partial_result_is_not_reused(small_chunks: Settings) -> None:
    """The next run asks for itself."""
    pipeline, _ = worked(small_chunks, extracting(at_most=30))

    second = pipeline.submit(ORDER, options=an_extraction_run())

    assert pipeline.job(second).status == JobStatus.QUEUED
    assert pipeline.job(second).reused_from is None


def test_failed_chunks_and_missing_rows_are_both_named(small_chunks: Settings) -> None:
    """The coverage counts both."""

    def failing_first(request: CompletionRequest) -> str:
        is_first = request.task.text.startswith(ORDER[:30])
        return "no JSON" if is_first else extracting(at_most=30)(request)

    pipeline, submission = worked(small_chunks, failing_first)

    message = str(pipeline.job(submission).error_message)
    ((_, _, coverage, needs_review),) = pipeline.rows(MEASURES)
    assert "1 of " in message
    assert "rows of `line_items` are in the result" in message
    assert float(str(coverage)) < 30 / 1_000
    assert needs_review


def test_a_repair_that_drops_rows_is_partial(settings: Settings) -> None:
    """The invalid answer before it had them: of one chunk, too."""
    text = "".join(ORDER.splitlines(keepends=True)[:20])
    rows = rows_in(text)
    invalid = an_extraction([*rows[:-1], {"name": "Part-19"}])

    pipeline, submission = worked(settings, invalid, an_extraction(rows[:5]), text=text)

    job = pipeline.job(submission)
    assert (job.status, job.error_code) == (JobStatus.PARTIAL, "missing_rows")
    assert job.error_message == "5 of 20 rows of `line_items` are in the result."
    assert "--fresh" in str(job.hint)
    assert pipeline.rows(MEASURES) == [("partial", 0.2, 0.25, True)]
    assert pipeline.value("SELECT missing_rows -> 0 ->> 'found' FROM chunks") == "20"


def test_a_repair_that_keeps_its_rows_succeeds(settings: Settings) -> None:
    """Its quality tells that it was one."""
    text = "".join(ORDER.splitlines(keepends=True)[:20])
    rows = rows_in(text)
    invalid = an_extraction([*rows[:-1], {"name": "Part-19"}])

    pipeline, _ = worked(settings, invalid, an_extraction(rows), text=text)

    assert pipeline.rows(MEASURES) == [("succeeded", 0.8, 1.0, False)]


def test_a_revision_that_drops_rows_is_not_taken(settings: Settings) -> None:
    """The answer before it stays, and a person looks at the objection."""
    text = "".join(ORDER.splitlines(keepends=True)[:20])
    rows = rows_in(text)
    violation = {"principle": 1, "path": "/data/line_items/3", "problem": "It is wrong."}
    objection = json.dumps({"violations": [violation]})
    script = [an_extraction(rows), objection, an_extraction(rows[:5])]

    pipeline, _ = worked(settings, *script, text=text, options=an_extraction_run(critique=True))

    assert len(rows_of(output_of(pipeline))) == 20
    assert pipeline.value("SELECT critique_outcome FROM document_results") == "kept"
    assert "5 of 20 rows" in str(pipeline.value("SELECT critique ->> 'reason' FROM results"))
    assert pipeline.value("SELECT needs_review FROM results")


def test_values_of_items_that_a_synthesis_drops_are_counted(small_chunks: Settings) -> None:
    """Each distinct value of an item counts once, wherever it stands."""
    numbers = itertools.count(1)

    def numbering(request: CompletionRequest) -> str:
        task = request.task
        quote = task.text.strip()[:30] or "The harbour of Lindau"
        values = ["1856"] if task.answers else ["1856", f"value {next(numbers)}"]
        fields = [
            {"item": "year", "status": "found", "value": v, "quote": quote, "confidence": 8}
            for v in values
        ]
        return json.dumps({"fields": fields})

    analysis = AnalysisOptions(instructions="year")
    options = a_run(AnalysisType.EXTRACTION, analysis=analysis)
    pipeline, submission = worked(small_chunks, numbering, text=LONG, options=options)

    job = pipeline.job(submission)
    assert (job.status, job.error_code) == (JobStatus.PARTIAL, "missing_rows")
    found = (job.chunk_count or 0) + 1
    assert job.error_message == f"1 of {found} values of `year` are in the result."
