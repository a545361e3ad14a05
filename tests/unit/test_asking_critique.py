"""Tests of the critique of an answer and of its revision."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chordwise import errors
from chordwise.domain import critique, json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonValue
from chordwise.domain.states import CritiqueOutcome
from chordwise.llm.providers.extractive import ExtractiveModel
from chordwise.pipeline.asking import ask
from chordwise.pipeline.asking.assessment import AssessedAnswer
from chordwise.pipeline.asking.critique import examine, examine_answer
from chordwise.pipeline.asking.merge import Synthesis, Synthesizer
from tests.fakes.asking import TEXT, question
from tests.fakes.completion_requests import a_task
from tests.fakes.pipeline import a_label, a_summary
from tests.fakes.scripted_model import Line, ScriptedModel

OPTIONS = AnalysisOptions(critique=True, principles=("Be brief.", "Say when."))
TASK = a_task(AnalysisType.SUMMARY, TEXT, OPTIONS)
DRAFT = a_summary("rebuilt in 1856", "had planned", topic="A harbour.")
BETTER = a_summary("rebuilt in 1856", topic="A harbour, rebuilt in 1856.")
OBJECTION = {"principle": 2, "path": "/main_topic", "problem": "It does not say when."}
FINE = json.dumps({"violations": []})
OBJECTED = json.dumps({"violations": [OBJECTION]})


def examined(
    *script: Line, task: AnalysisTask = TASK, draft: str = DRAFT
) -> tuple[AssessedAnswer, Answer, ScriptedModel]:
    """Critique an answer with a scripted model; also return the original answer."""
    answer = ask(question(ScriptedModel([draft]), task, TEXT))
    model = ScriptedModel(script)
    return examine_answer(answer, question(model, task, TEXT)), answer, model


def outcome_of(result: AssessedAnswer) -> CritiqueOutcome:
    assert result.critique is not None
    return result.critique.outcome


def test_an_answer_without_a_violation_is_not_revised() -> None:
    """Text and answer are between markers that they do not contain."""
    result, before, model = examined(FINE)

    (request,) = model.requests
    assert (result.answer, outcome_of(result)) == (before, CritiqueOutcome.PASSED)
    assert (request.task.stage, request.prompt_version) == (Stage.CRITIQUE, "critique@1")
    assert request.schema_name == "critique"
    assert "1. Be brief.\n2. Say when." in request.system
    assert TEXT.strip() in request.user
    assert "A harbour." in request.user
    assert "start_char" not in request.user
    mark = request.user.split("the mark ")[1].split(",")[0]
    assert request.user.count(f"\n{mark}") == 3
    assert mark not in TEXT + DRAFT
    repaired, _, asked_twice = examined("no JSON", FINE)
    assert outcome_of(repaired) is CritiqueOutcome.PASSED
    assert [one.task.stage for one in asked_twice.requests] == [Stage.CRITIQUE, Stage.REPAIR]


def test_an_objection_causes_one_revision_which_is_grounded() -> None:
    result, before, model = examined(OBJECTED, BETTER)

    first, second = model.requests
    assert result.answer.output["main_topic"] == "A harbour, rebuilt in 1856."
    assert result.answer.prompt_version == before.prompt_version == second.prompt_version
    assert second.task.stage is Stage.REVISE
    assert (first.schema_name, second.schema_name) == ("critique", "summary")
    assert "It does not say when." in second.user
    assert TEXT.strip() in second.user
    finding = result.answer.output["key_findings"]
    assert isinstance(finding, list)
    assert isinstance(finding[0], dict)
    assert (finding[0]["start_char"], finding[0]["grounded"]) == (26, True)
    assert result.critique is not None
    assert result.critique.to_json() == {
        "outcome": "revised",
        "violations": [{**OBJECTION, "principle": "Say when."}],
        "reason": None,
        "principles": ["Be brief.", "Say when."],
    }


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        (["no JSON", "nor this"], "is not JSON"),
        ([errors.RefusedError("It declines.")], "It declines."),
        ([a_summary("rebuilt in 1856", "built by giants")], "grounded less well"),
    ],
)
def test_the_original_is_kept_if_the_revision_fails_or_is_worse(
    revision: list[Line], reason: str
) -> None:
    """An answer without quotes would count as perfectly grounded, but is worse than one with."""
    options = replace(OPTIONS, labels=("a", "b"))
    task = replace(TASK, analysis_type=AnalysisType.CLASSIFICATION, options=options)

    result, before, _ = examined(OBJECTED, *revision)
    label, quoted, _ = examined(OBJECTED, a_label("a", quote=None), task=task, draft=a_label("a"))

    assert (result.answer, outcome_of(result)) == (before, CritiqueOutcome.KEPT)
    assert result.critique is not None
    assert reason in result.critique.reason
    assert [violation["problem"] for violation in result.critique.violations] == [
        "It does not say when."
    ]
    assert (label.answer, outcome_of(label)) == (quoted, CritiqueOutcome.KEPT)


@pytest.mark.parametrize(
    ("quotes", "kept", "outcome"),
    [
        (["rebuilt in 1856", "built by giants"], 1, CritiqueOutcome.REVISED),
        (["rebuilt in 1856", "had planned"], 1, CritiqueOutcome.KEPT),
        (["rebuilt in 1856", "had planned"], 2, CritiqueOutcome.REVISED),
    ],
)
def test_a_revision_may_drop_only_rows_that_are_not_in_the_text(
    quotes: list[str], kept: int, outcome: CritiqueOutcome
) -> None:
    """Removing an invented row is a correction; removing another row is a loss."""
    schema = json_values.as_object(
        {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "string"}}}}
    )
    options = replace(OPTIONS, schema=schema)
    task = replace(TASK, analysis_type=AnalysisType.EXTRACTION, options=options)

    def extraction(rows: list[str]) -> str:
        evidence = [
            {"path": f"/rows/{place}", "quote": quote, "confidence": 5}
            for place, quote in enumerate(rows)
        ]
        return json.dumps({"data": {"rows": rows}, "evidence": evidence})

    result, _, _ = examined(
        OBJECTED, extraction(quotes[:kept]), task=task, draft=extraction(quotes)
    )

    assert outcome_of(result) is outcome
    assert result.answer.missing_rows == ()


@pytest.mark.parametrize(
    "script",
    [
        ["no JSON", "nor this"],
        [json.dumps({"violations": [{**OBJECTION, "principle": 3}]})] * 2,
        [errors.RefusedError("It declines.")],
        [errors.ContextTooLongError("Text and answer do not fit.")],
    ],
)
def test_the_answer_is_kept_if_the_critique_fails(script: list[Line]) -> None:
    """The reason is stored; the text is not halved for a critique."""
    result, before, model = examined(*script)

    assert (result.answer, outcome_of(result)) == (before, CritiqueOutcome.FAILED)
    assert result.critique is not None
    assert result.critique.reason
    assert len(model.requests) == len(script)


@pytest.mark.parametrize("before", [[], [OBJECTED]])
@pytest.mark.parametrize(
    "error",
    [
        errors.ModelOverloadedError("Later."),
        errors.BudgetExceededError("No money."),
        errors.AwaitingBatchError("Tomorrow."),
    ],
)
def test_errors_that_time_or_the_user_can_resolve_are_raised(
    before: list[Line], error: errors.ChordwiseError
) -> None:
    """This holds for the critique and the revision: the job continues with them later."""
    with pytest.raises(type(error)):
        examined(*before, error)


def test_the_built_in_model_gives_and_gets_no_critique() -> None:
    """As a fallback for a revision, it does not replace the answer of a language model."""
    built_in = ask(question(ExtractiveModel(), TASK, TEXT))
    model = ScriptedModel([])
    as_fallback = replace(ScriptedModel([]).completion(BETTER), provider="extractive")

    by_it = question(ExtractiveModel(), TASK, TEXT)
    of_it = question(model, TASK, TEXT)
    result, before, _ = examined(OBJECTED, as_fallback)

    assert examine_answer(replace(built_in, provider="openai"), by_it).critique is None
    assert examine_answer(built_in, of_it).critique is None
    assert (result.answer, outcome_of(result)) == (before, CritiqueOutcome.KEPT)


def reasons(result: AssessedAnswer, task: AnalysisTask) -> str:
    """Return the sentences about an answer to a whole text."""
    _, _, doubts = result.assessment([result.answer.output], task)
    return " ".join(doubt.sentence for doubt in doubts)


@pytest.mark.parametrize(
    ("script", "doubt"),
    [
        ([FINE], False),
        ([OBJECTED, BETTER], False),
        ([OBJECTED, "no JSON", "nor this"], True),
        ([errors.RefusedError("It declines.")], True),
    ],
)
def test_objections_and_missing_critiques_need_review(script: list[Line], *, doubt: bool) -> None:
    """This does not depend on the confidence; other answers need no review for this reason."""
    result, _, _ = examined(*script)

    assert bool(reasons(result, TASK)) is doubt


@pytest.mark.parametrize(
    ("options", "answer", "review"),
    [
        # A single remaining sample.
        (AnalysisOptions(votes=5), {"agreement": None}, True),
        (AnalysisOptions(votes=5), {"agreement": 0.2}, False),
        (AnalysisOptions(votes=5), {"agreement": None, "provider": "extractive"}, False),
        (AnalysisOptions(votes=1), {"agreement": None}, False),
        # A confidence below the threshold of the user.
        (AnalysisOptions(), {"confidence": 0.2}, False),
        (AnalysisOptions(confidence_threshold=0.1), {"confidence": 0.2}, False),
        (AnalysisOptions(confidence_threshold=1.0), {"confidence": 0.2}, True),
    ],
)
def test_few_samples_and_a_low_confidence_need_review(
    options: AnalysisOptions, answer: dict[str, object], *, review: bool
) -> None:
    _, before, _ = examined(FINE)
    known = replace(before, **{"provider": "openai", **answer})  # type: ignore[arg-type]  # of the test

    result = AssessedAnswer(answer=known)

    assert bool(reasons(result, replace(TASK, options=options))) is review


def test_the_reason_for_a_review_names_the_ungrounded_parts() -> None:
    _, before, _ = examined(FINE)
    lost: list[JsonValue] = [
        {"finding": "a", "quote": "b", "grounded": number == 0} for number in range(3)
    ]
    other: list[JsonValue] = [
        {"item": f"item {number}", "quote": "c", "grounded": True, "value_in_quote": False}
        for number in range(7)
    ]

    said = [
        reasons(AssessedAnswer(answer=replace(before, output=output, quality=quality)), TASK)
        for output, quality in (
            ({**before.output, "key_findings": lost}, 0.333),
            ({**before.output, "key_findings": other}, before.quality),
        )
    ]

    assert said == [
        "2 of 3 quotes are not in the text: “b”.",
        "Values that are not in their quotes: item 0, item 1, item 2, item 3, item 4 and 2 more.",
    ]


def test_answers_merged_by_rule_report_that_they_had_no_critique() -> None:
    model = ScriptedModel([])
    answer = ask(question(ScriptedModel([DRAFT]), TASK, TEXT))
    with_critique = Synthesizer(document=question(model, TASK, TEXT))
    uncritical = replace(TASK, options=AnalysisOptions())
    without_critique = Synthesizer(document=question(model, uncritical, TEXT))
    merged = Synthesis(answer=answer, error=errors.InvalidAnswerError("No JSON."))

    result = examine(with_critique, merged, (0, len(TEXT)))

    assert (result.answer, outcome_of(result)) == (answer, CritiqueOutcome.FAILED)
    assert reasons(result, TASK).startswith("The parts were merged by rule.")
    assert examine(without_critique, merged, (0, len(TEXT))).critique is None


def test_critiques_and_revisions_have_no_votes() -> None:
    """The agreement describes the samples before the revision, which were not requested again."""
    task = replace(TASK, options=replace(OPTIONS, votes=3))
    voted = replace(ask(question(ScriptedModel([DRAFT]), TASK, TEXT)), agreement=0.8)
    model = ScriptedModel([OBJECTED, BETTER])

    result = examine_answer(voted, question(model, task, TEXT))

    assert (outcome_of(result), result.answer.agreement) == (CritiqueOutcome.REVISED, 0.8)
    assert [request.task.stage for request in model.requests] == [Stage.CRITIQUE, Stage.REVISE]


@pytest.mark.parametrize("kind", list(AnalysisType))
def test_every_analysis_type_has_its_own_principles(kind: AnalysisType) -> None:
    usual = {
        analysis_type: critique.principles_for(analysis_type, AnalysisOptions())
        for analysis_type in AnalysisType
    }

    assert len(usual[kind]) > 3
    assert list(usual.values()).count(usual[kind]) == 1
    assert critique.principles_for(kind, OPTIONS) == ("Be brief.", "Say when.")
