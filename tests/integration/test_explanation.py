"""Tests of `chordwise explain`: prompts, completions, changes by validation, and calls."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType, Stage
from chordwise.domain.json_values import JsonObject
from chordwise.errors import ExitCode, ModelRequestError
from chordwise.llm.model import CompletionRequest
from chordwise.settings import Settings
from tests.fakes.commands import output_of, run
from tests.fakes.generated_answers import a_field
from tests.fakes.pipeline import (
    AWAY,
    LONG,
    SCRIPTED,
    a_document,
    a_label,
    a_pipeline,
    a_run,
    a_summary,
    with_settings,
)

TEXT = "The harbour was rebuilt in 1856. It cost more than the town had planned."
SUMMARY = a_summary("It cost more than the town had planned.")
LEASE = "The fee is 500 EUR a year, or 510 EUR. There is nothing else in this lease."
pytestmark = pytest.mark.usefixtures("addressed")


@pytest.fixture(autouse=True)
def known_model(tmp_path: Path) -> None:
    """Name the model of the pipeline in the settings of commands."""
    settings = AWAY.model_dump(include={"provider", "model", "base_url", "price"})
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (tmp_path / "chordwise.toml").write_text("\n".join([f"[models.{SCRIPTED}]", *lines]))


def test_an_answer_is_explained_with_votes_and_corrections(
    settings: Settings, snapshot: SnapshotAssertion
) -> None:
    fees = [a_field("annual fee", fee, 9, quote=f"fee is {fee}") for fee in ("500 EUR", "510 EUR")]
    pipeline = a_pipeline(settings, *(json.dumps({"fields": [fee]}) for fee in fees))
    options = AnalysisOptions(instructions="annual fee", votes=2)
    april = replace(a_run(AnalysisType.EXTRACTION, analysis=options), name="april")
    document = a_document(LEASE, "lease.txt")
    job_id = str(pipeline.job(pipeline.analyze(document, options=april)).id)
    correction = ["feedback", job_id, "--correct", "annual fee=505 EUR", "--author", "Ada"]
    assert run(correction) == ExitCode.SUCCESS
    other = str(pipeline.job(pipeline.submit(document, options=replace(a_run(), name="may"))).id)
    pipeline.execute("UPDATE model_calls SET latency_ms = 12")

    printed = output_of("explain", job_id, "--full").out
    brief = output_of("explain", job_id).out

    printed = printed.replace(job_id, "JOB").replace(other, "OTHER")
    printed = re.sub(r"TEXT-\w+", "MARK", re.sub(r"2\d{3}-\d\d-\d\d \d\d:\d\d", "TIME", printed))
    begin = printed.index("  System prompt")
    first_lines = re.sub(r"(    .*\n)(    .*\n)+", r"\1", printed[begin:])
    assert re.sub(r" +\n", "\n", printed[:begin] + first_lines) == snapshot
    assert [line.partition(" ")[0] for line in brief.splitlines()] == snapshot


REASONING = (
    '{"considerations": "First the fact.", "logical_flow": [{"step": "a fact", "role": "premise",'
    ' "quote": "rebuilt in 1856"}], "argument_strength": 5, "weaknesses": [], "gaps": [],'
    ' "evidence_quality": {"score": 5, "assessment": "thin"}, "overall_assessment": "plausible",'
    ' "confidence": 6}'
)
LABEL = a_label("lease", 0.9, "The  harbour was rebuilt")


@pytest.mark.parametrize(
    ("kind", "completion", "changes"),
    [
        (AnalysisType.SUMMARY, f"```json\n{SUMMARY}\n```", []),
        (AnalysisType.REASONING, REASONING, []),
        (AnalysisType.CLASSIFICATION, f"{LABEL[:-1]},}}", ["/features/0/quote"]),
    ],
    ids=["a fence", "considerations", "a comma and a space too many"],
)
def test_changes_by_validation_are_listed(
    settings: Settings, kind: AnalysisType, completion: str, changes: list[str]
) -> None:
    """The prompt is rendered again, and the completion is read from the cache."""
    pipeline = a_pipeline(settings, completion)
    options = AnalysisOptions(labels=("lease", "letter"))
    submission = pipeline.analyze(TEXT, options=a_run(kind, analysis=options))

    printed = output_of("explain", str(pipeline.job(submission).id), "--json").out

    explained = json.loads(printed)["explanation"]
    (request,), (chunk,), (call,) = pipeline.model.requests, explained["chunks"], explained["calls"]
    assert chunk["prompt"] == {"system": request.system, "user": request.user}
    assert (chunk["completion"], chunk["changes"]) == (completion, changes)
    assert (call["chunk"], call["stage"], call["valid"]) == (0, "analyze", True)


def test_the_command_finds_a_document_by_a_part_of_its_name(settings: Settings) -> None:
    pipeline = a_pipeline(settings, a_summary("rebuilt in 1856"), repeat_last=True)
    pipeline.analyze(a_document(TEXT, "harbour-1.txt"), a_document(LEASE, "harbour-2.txt"))
    Path("chordwise.toml").unlink()

    shown = output_of("explain", "R-1", "--chunk", "1").out
    ambiguous = output_of("explain", "harbour", code=ExitCode.USAGE).err

    assert "harbour-1.txt" in shown
    assert "its template or model is unknown here" in shown
    assert "2 documents match: harbour-1.txt, harbour-2.txt" in ambiguous
    assert run(["explain", "nothing-like-it"]) == ExitCode.USAGE


OBJECTION: JsonObject = {"principle": 1, "path": "/main_topic", "problem": "It names no place."}


def objecting(request: CompletionRequest) -> str:
    """Answer and revise; as a critique, object to the answer."""
    return json.dumps({"violations": [OBJECTION]}) if request.task.is_critique else SUMMARY


@pytest.mark.parametrize("content", [TEXT, LONG], ids=["one part", "several parts"])
def test_synthesis_critique_and_revision_are_shown_with_their_prompts(
    settings: Settings, content: str
) -> None:
    """The draft of a revised synthesis is not kept."""
    small = with_settings(settings, "pipeline", chunk_tokens=800)
    pipeline = a_pipeline(small, objecting, repeat_last=True)
    options = AnalysisOptions(critique=True, principles=("Name the place.",))
    submission = pipeline.analyze(content, options=a_run(analysis=options))

    printed = output_of("explain", str(pipeline.job(submission).id), "--json").out

    later = [call for call in pipeline.model.requests if call.task.stage is not Stage.ANALYZE]
    assert [
        (step["stage"], step["prompt"]["system"], step["prompt"]["user"], step["completion"])
        for step in json.loads(printed)["steps"]
    ] == [
        (request.task.stage, request.system, request.user, objecting(request))
        for request in (later if content is TEXT else later[:1])
    ]


def test_a_job_without_a_result_is_explained(settings: Settings) -> None:
    """A reused answer links to the job that asked; it has no empty tables of parts and calls."""
    refusal = ModelRequestError("The provider rejects this text.")
    pipeline = a_pipeline(settings, refusal, SUMMARY)
    submission = pipeline.analyze(TEXT, options=a_run(AnalysisType.SENTIMENT))
    pipeline.submit(TEXT)
    job_id = pipeline.job(submission).id

    explained = json.loads(output_of("explain", str(job_id), "--json").out)["explanation"]

    assert (explained["analysis_type"], explained["result"]) == ("sentiment", None)
    assert [job["status"] for job in explained["jobs"]] == ["running", "failed"]
    assert "The provider rejects this text." in output_of("explain", str(job_id)).out
    first, second = (pipeline.job(pipeline.analyze(TEXT)).id for _ in range(2))
    shown = output_of("explain", str(second)).out
    assert f"chordwise explain {first}" in shown
    assert "Characters" not in shown
