"""Tests of wide schemas in runs: results, tables, the quote, and chunks with missing fields."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from chordwise.domain import grounding, json_values, validation
from chordwise.domain.analyses.extraction import ANALYSIS
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Stage
from chordwise.domain.estimates import Interval
from chordwise.domain.states import Lane
from chordwise.llm.middleware.cached import key_of
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.quoting import quote
from chordwise.pipeline.quoting.quote import QuotedLine
from chordwise.pipeline.quoting.tally import UnaskedModel
from chordwise.readers.reader import ReadDocument
from chordwise.settings import Settings
from tests.fakes import wide_schemas as wide
from tests.fakes.commands import output_of
from tests.fakes.pipeline import AWAY, SCRIPTED, Pipeline, a_document, a_pipeline, a_run
from tests.fakes.scripted_model import Answer, Line

pytestmark = pytest.mark.usefixtures("addressed")
DOCUMENT = a_document(wide.text(" "), "deed.txt")
OPTIONS = AnalysisOptions(schema=wide.SCHEMA)


def a_wide_pipeline(settings: Settings, line: Line) -> Pipeline:
    """Open a pipeline whose settings agree with the profile of the scripted model."""
    model = AWAY.model_copy(update={"max_output_tokens_on_retry": 2_048})
    return a_pipeline(settings, line, repeat_last=True, model_settings=model)


def run_options(options: AnalysisOptions = OPTIONS) -> RunOptions:
    return replace(a_run(AnalysisType.EXTRACTION, analysis=options), save_as="deeds")


def without_payments(request: CompletionRequest) -> Answer:
    is_last = '"payments"' in json.dumps(request.schema)
    return "no JSON" if is_last else wide.replay(request)


def is_within(value: object, interval: Interval) -> bool:
    return isinstance(value, int | float) and interval.low <= value <= interval.high


def quoted(pipeline: Pipeline, document: ReadDocument) -> QuotedLine:
    (line,) = quote.estimate(pipeline.context, [document], run_options()).lines
    return line


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("", id="agree", marks=pytest.mark.nightly),
        pytest.param(f"\n\n{wide.CONTRADICTION}", id="contradict"),
    ],
)
@pytest.mark.parametrize(
    "separator",
    [
        pytest.param(" ", id="few chunks"),
        pytest.param("\n\n", id="many chunks", marks=pytest.mark.nightly),
    ],
)
def test_a_run_has_all_fields_and_costs_what_was_quoted(
    settings: Settings, separator: str, end: str
) -> None:
    """Quotes assume that chunks contradict each other, so that a model has to join them."""
    pipeline = a_wide_pipeline(settings, wide.replay)
    document = a_document(wide.text(separator) + end, "deed.txt")
    line = quoted(pipeline, document)

    submission = pipeline.analyze(document, options=run_options())

    result, job = pipeline.result(pipeline.job(submission).id), pipeline.job(submission)
    assert (job.status, result.output["data"]) == ("succeeded", wide.GOLD)
    plain = json_values.as_object(grounding.without_spans(result.output))
    assert not validation.problems(plain, ANALYSIS.schema(OPTIONS))
    assert pipeline.value("SELECT bool_and(valid) FROM model_calls")
    chunks = pipeline.value("SELECT count(*) FROM chunks")
    by_stage = Counter(request.task.stage for request in pipeline.model.requests)
    assert (line.chunks, line.questions) == (chunks, by_stage[Stage.ANALYZE])
    assert line.questions == 10 * line.chunks
    keys = {key_of(request, {}) for request in pipeline.model.requests}
    assert len(keys) == pipeline.value("SELECT count(*) FROM cached_completions")
    if end:
        assert is_within(by_stage[Stage.SYNTHESIZE], line.syntheses)
        unasked = UnaskedModel(pipeline.context.settings, SCRIPTED, Lane.ONLINE)
        read = sum(map(unasked.tokens_of, pipeline.model.requests))
        assert is_within(read, line.input_tokens)
        written = pipeline.value("SELECT sum(output_tokens)::float FROM model_calls")
        assert is_within(written, line.output_tokens)


def test_the_table_and_the_explanation_have_the_fields_of_all_groups(
    settings: Settings, tmp_path: Path
) -> None:
    known = AWAY.model_dump(include={"provider", "model", "base_url", "price"})
    lines = [f"{name} = {json.dumps(value)}" for name, value in known.items()]
    (tmp_path / "chordwise.toml").write_text("\n".join([f"[models.{SCRIPTED}]", *lines]))
    pipeline = a_wide_pipeline(settings, wide.replay)
    submission = pipeline.analyze(DOCUMENT, options=run_options())

    columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'deeds'"
    deep = "part_2_head_2_item_2_line_1_code_2"
    shown = f"SELECT mark_0, {deep}, {deep}_trust, needs_review FROM answers.deeds"  # noqa: S608 - a name
    quoted = f"SELECT {deep}_quote FROM answers.deeds_evidence"  # noqa: S608 - a name of the test
    names = deep.replace("_", " ")
    job = str(pipeline.job(submission).id)
    explained = json.loads(output_of("explain", job, "--json").out)

    assert int(str(pipeline.value(columns))) > 2 * (wide.FIELDS - 6)
    assert pipeline.rows(shown) == [("V-1-0", "V-5-2-2-2-1-2", "supported", False)]
    assert pipeline.rows(quoted) == [(f"{names} has the code V-5-2-2-2-1-2.",)]
    assert pipeline.value("SELECT count(*) FROM answers.deeds_payments") == 8
    first = explained["explanation"]["chunks"][0]
    assert '"mark_0"' in first["prompt"]["system"]
    assert '"payments"' in first["prompt"]["system"]


def test_fields_of_an_invalid_group_are_missing_and_unread(settings: Settings) -> None:
    pipeline = a_wide_pipeline(settings, without_payments)

    submission = pipeline.analyze(DOCUMENT, options=run_options())

    job = pipeline.job(submission)
    result = pipeline.result(job.id)
    chunks = pipeline.value("SELECT count(*) FROM chunks WHERE status = 'succeeded'")
    assert (job.status, job.error_code) == ("partial", "missing_fields")
    lost = "39 of 369 fields have no valid answer (/part_2/head_2, /payments)"
    assert job.error_message == f"{lost}: {NO_JSON}"
    assert lost in (result.review_reason or "")
    assert [entry["error_code"] for entry in json_values.objects(result.failed_chunks)] == [
        "missing_fields"
    ] * int(str(chunks))
    assert "payments" not in json_values.as_object(result.output["data"])
    cell = "part_2_head_2_code_0"
    assert pipeline.rows(
        f"SELECT mark_0, mark_3_trust, {cell}, {cell}_trust FROM answers.deeds"  # noqa: S608 - a name
    ) == [("V-1-0", "unread", None, "unread")]
    stages = pipeline.rows("SELECT DISTINCT stage FROM model_calls ORDER BY 1")
    assert stages == [("analyze",), ("repair",)]


NO_JSON = "The answer is not JSON, or is incomplete."
