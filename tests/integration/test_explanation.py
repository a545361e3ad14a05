"""Tests of `chordwise explain`: prompts, completions, changes by validation, and calls."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Stage
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import ExitCode, ModelRequestError, UsageError
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.runs import explanation
from chordwise.settings import Settings
from tests.fakes.commands import output_of, run
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import LONG, a_label, a_pipeline, a_run, a_summary, with_settings

TEXT = "The harbour was rebuilt in 1856. It cost more than the town had planned."
FIRST = "SELECT i.source FROM jobs j JOIN intakes i ON i.id = j.intake_id ORDER BY j.id LIMIT 1"
pytestmark = pytest.mark.usefixtures("addressed")


def test_a_job_is_explained(settings: Settings) -> None:
    """The prompt is rendered again, and the completion is read from the cache."""
    written = a_summary("It cost more than the town had planned.")
    pipeline = a_pipeline(settings, f"```json\n{written}\n```")
    submission = pipeline.analyze(f"{TEXT}\n")
    job_id = pipeline.job(submission).id

    with pipeline.context.database.read() as session:
        found = explanation.explain(session, pipeline.context.settings, job_id)

    (part,), (call,) = found.chunks, found.calls
    assert part.prompt is not None
    assert TEXT in part.prompt.user
    assert part.completion is not None
    assert json.loads(part.completion.strip("`").removeprefix("json")) == json.loads(written)
    assert part.changes == []
    assert (call.chunk, call.stage, call.valid) == (0, "analyze", True)
    assert found.result is not None
    assert found.result["confidence"] == part.confidence == 0.7


def test_a_reused_answer_links_to_the_job_that_asked(settings: Settings) -> None:
    """It has no parts and no calls itself, and shows no empty tables of them."""
    pipeline = a_pipeline(settings, a_summary("It cost more than the town had planned."))
    first = pipeline.analyze(TEXT)
    asked = pipeline.job(first).id
    second = pipeline.analyze(TEXT)

    shown = output_of("explain", str(pipeline.job(second).id)).out

    assert f"chordwise explain {asked}" in shown
    assert "Characters" not in shown


def test_changes_by_validation_are_listed(settings: Settings) -> None:
    """The model's answer has an extra space in a quote and a comma too many in its JSON."""
    written = a_label("lease", 0.9, "The  harbour was rebuilt")
    pipeline = a_pipeline(settings, written[:-1] + ",}")
    options = a_run(
        AnalysisType.CLASSIFICATION, analysis=AnalysisOptions(labels=("lease", "letter"))
    )
    submission = pipeline.analyze(TEXT, options=options)

    with pipeline.context.database.read() as session:
        job_id = pipeline.job(submission).id
        found = explanation.explain(session, pipeline.context.settings, job_id)

    assert found.chunks[0].changes == ["/features/0/quote"]
    assert found.result is not None


def test_the_removal_of_considerations_is_not_listed_as_a_change(settings: Settings) -> None:
    remark: JsonValue = []
    written: JsonObject = {
        "considerations": "First the fact, then its price.",
        "logical_flow": [{"step": "a fact", "role": "premise", "quote": "rebuilt in 1856"}],
        "argument_strength": 5,
        "weaknesses": remark,
        "gaps": remark,
        "evidence_quality": {"score": 5, "assessment": "thin"},
        "overall_assessment": "plausible",
        "confidence": 6,
    }
    pipeline = a_pipeline(settings, json.dumps(written))
    submission = pipeline.analyze(TEXT, options=a_run(AnalysisType.REASONING))

    job_id = pipeline.job(submission).id
    with pipeline.context.database.read() as session:
        found = explanation.explain(session, pipeline.context.settings, job_id)

    (part,), result = found.chunks, pipeline.result(job_id)
    assert result.output.keys() == written.keys() - {"considerations"}
    assert "First the fact" in (part.completion or "")
    assert part.changes == []


def test_the_command_finds_a_document_by_a_part_of_its_name(settings: Settings) -> None:
    pipeline = a_pipeline(settings, a_summary("rebuilt in 1856"), repeat_last=True)
    pipeline.analyze(TEXT, f"{TEXT} Twice.")

    assert "2 documents match" in output_of("explain", "document-", code=ExitCode.USAGE).err
    assert run(["explain", "nothing-like-it"]) == ExitCode.USAGE
    with pipeline.context.database.read() as session:
        with pytest.raises(UsageError):
            explanation.find(session, "document-")
        source = str(pipeline.value(FIRST))
        found = explanation.find(session, source)
    assert found == pipeline.value("SELECT id FROM jobs ORDER BY id LIMIT 1")
    shown = output_of("explain", source).out
    assert "its template or model is unknown here" in shown
    assert "rebuilt in 1856" in shown


def the_fee(value: str) -> str:
    """Return an answer that contains the fee."""
    return json.dumps({"fields": [a_field("annual fee", value, 9, quote=f"fee is {value}")]})


def test_an_explanation_has_votes_and_corrections(settings: Settings) -> None:
    """It shows the answer of each sample, and a person's correction first."""
    text = "The fee is 500 EUR a year, or 510 EUR. There is nothing else in this lease."
    pipeline = a_pipeline(settings, the_fee("500 EUR"), the_fee("510 EUR"), the_fee("500 EUR"))
    asked = AnalysisOptions(instructions="annual fee", votes=3)
    submission = pipeline.analyze(text, options=a_run(AnalysisType.EXTRACTION, analysis=asked))
    job_id = str(pipeline.job(submission).id)
    assert run(["feedback", job_id, "--correct", "annual fee=505 EUR"]) == ExitCode.SUCCESS

    with pipeline.context.database.read() as session:
        found = explanation.explain(session, pipeline.context.settings, uuid.UUID(job_id))

    said = [json.loads(sample or "")["fields"][0]["value"] for sample in found.chunks[0].samples]
    assert said == ["500 EUR", "510 EUR", "500 EUR"]
    assert [call.sample for call in found.calls] == [1, 2, 3]
    (fact,), (remark,) = found.facts, found.remarks
    assert (fact.final_value, fact.value, fact.verdict) == ("505 EUR", "500 EUR", "corrected")
    assert (remark.judged, remark.corrected) == (["500 EUR"], ["505 EUR"])
    shown = output_of("explain", job_id).out
    assert shown.index("505 EUR") < shown.index("500 EUR")


OBJECTION: JsonObject = {"principle": 1, "path": "/main_topic", "problem": "It names no place."}


def objecting(request: CompletionRequest) -> str:
    """Answer and revise; as a critique, object to the answer."""
    if request.task.is_critique:
        return json.dumps({"violations": [OBJECTION]})
    return a_summary("It cost more than the town had planned.")


@pytest.mark.parametrize("content", [TEXT, LONG], ids=["one part", "several parts"])
def test_synthesis_critique_and_revision_are_shown_with_their_prompts(
    settings: Settings, content: str
) -> None:
    """The draft of a revised synthesis is not kept."""
    small = with_settings(settings, "pipeline", chunk_tokens=800)
    pipeline = a_pipeline(small, objecting, repeat_last=True)
    asked = AnalysisOptions(critique=True, principles=("Name the place.",))
    submission = pipeline.analyze(content, options=replace(a_run(), analysis=asked))
    job_id = pipeline.job(submission).id

    with pipeline.context.database.read() as session:
        steps = explanation.steps(session, pipeline.context.settings, job_id)

    later = [each for each in pipeline.model.requests if each.task.stage is not Stage.ANALYZE]
    known = later if content is TEXT else later[:1]
    assert {each.task.stage.value for each in known} == (
        {"critique", "revise"} if content is TEXT else {"synthesize"}
    )
    assert [(each.prompt.system, each.prompt.user) for each in steps] == [
        (each.system, each.user) for each in known
    ]
    assert [each.completion for each in steps] == [objecting(each) for each in known]


def test_a_job_without_a_result_is_explained(settings: Settings) -> None:
    """It shows the error, and the other jobs about the document."""
    pipeline = a_pipeline(settings, ModelRequestError("The provider rejects this text."))
    submission = pipeline.analyze(TEXT, options=a_run(AnalysisType.SENTIMENT))
    pipeline.submit(TEXT)

    assert pipeline.job(submission).status == "failed"
    printed = output_of("explain", str(pipeline.value(FIRST)), "--json").out
    explained = json.loads(printed)["explanation"]
    assert explained["analysis_type"] == "sentiment"
    assert [job["status"] for job in explained["jobs"]] == ["running", "failed"]
    printed = output_of("explain", str(pipeline.job(submission).id)).out
    assert "The provider rejects this text." in printed
