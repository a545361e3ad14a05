"""Tests of wide schemas: their groups, and the one answer that joins those of all groups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from chordwise import AnalysisRequest, DocumentAnalyzer
from chordwise.domain import grounding, json_values, validation
from chordwise.domain.analyses.extraction import ANALYSIS
from chordwise.domain.analysis_tasks import (
    AnalysisOptions,
    AnalysisTask,
    AnalysisType,
    Example,
    Stage,
)
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.schemas import CHECKS
from chordwise.errors import (
    AwaitingBatchError,
    InvalidAnswerError,
    ModelOverloadedError,
    RefusedError,
    TruncatedError,
)
from chordwise.llm.middleware.cached import key_of
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.asking import ask
from chordwise.pipeline.asking.assessment import AssessedAnswer
from chordwise.pipeline.asking.critique import examine_answer
from chordwise.pipeline.asking.merge import Synthesizer
from chordwise.pipeline.asking.question import groups_of, parts_of, request_for
from tests.fakes import wide_schemas as wide
from tests.fakes.asking import question
from tests.fakes.scripted_model import Answer as Scripted
from tests.fakes.scripted_model import Line, ScriptedModel, a_profile

TEXT = wide.text()
NO_OPTIONS = AnalysisOptions()


def members(schema: JsonObject) -> JsonObject:
    return json_values.as_object(schema["properties"])


def a_task(schema: JsonObject = wide.SCHEMA, options: AnalysisOptions = NO_OPTIONS) -> AnalysisTask:
    options = replace(options, schema=schema)
    return AnalysisTask(
        analysis_type=AnalysisType.EXTRACTION,
        stage=Stage.ANALYZE,
        options=options,
        text=TEXT,
        is_whole=True,
    )


def ask_for(line: Line, task: AnalysisTask | None = None) -> tuple[Answer, ScriptedModel]:
    model = ScriptedModel([line], repeat_last=True)
    return ask(question(model, task or a_task(), TEXT)), model


@cache
def whole() -> tuple[Answer, ScriptedModel]:
    """Return the answer that has every value, and the model that gave it."""
    return ask_for(wide.replay)


def about(*names: str) -> Callable[[CompletionRequest], bool]:
    """Return whether the data of a request has one of these members."""
    return lambda request: any(f'"{name}":' in json.dumps(request.schema) for name in names)


LAST = about("payments")


def replaying(changed: Callable[[CompletionRequest, JsonObject], Scripted]) -> Line:
    """Return a line that answers with the replayed gold after a change."""

    def answer(request: CompletionRequest) -> Scripted:
        replayed = wide.replay(request)
        return changed(request, json.loads(replayed)) if isinstance(replayed, str) else replayed

    return answer


def columns(count: int, prefix: str = "field") -> JsonObject:
    """Return the schema of an object with `count` texts or nulls."""
    properties: JsonObject = {f"{prefix}_{n}": {"type": ["string", "null"]} for n in range(count)}
    return {"type": "object", "properties": properties, "required": [*properties]}


def nulls(request: CompletionRequest) -> str:
    """Answer with null for every member, and an empty list for every list."""
    schema = json_values.as_object(request.schema)
    data = members(json_values.as_object(members(schema)["data"]))
    empty: JsonObject = {
        name: [] if json_values.member(member, "type") == "array" else None
        for name, member in data.items()
    }
    return json.dumps({"data": empty, "evidence": []})


def test_369_fields_are_asked_for_in_groups_and_joined_without_a_loss() -> None:
    answer, model = whole()

    fields = [wide.fields_of(request) for request in model.requests]
    assert sum(fields) == wide.FIELDS
    assert max(fields) <= wide.LIMIT
    assert answer.output["data"] == wide.GOLD
    plain = json_values.as_object(grounding.without_spans(answer.output))
    assert not validation.problems(plain, ANALYSIS.schema(AnalysisOptions(schema=wide.SCHEMA)))
    assert ANALYSIS.without_evidence(answer.output, a_task().options) == []
    evidence = json_values.objects(answer.output["evidence"])
    values = [path for path, value in json_values.scalars(wide.GOLD) if value]
    rows = len(json_values.objects(wide.GOLD["payments"]))
    assert len(evidence) == len([path for path in values if "/payments" not in path]) + rows
    assert all(entry["grounded"] for entry in evidence)
    assert (answer.quality, answer.repaired, answer.missing_fields) == (1, False, "")
    assert len({key_of(request, {}) for request in model.requests}) == len(model.requests)


def test_the_whole_schema_at_once_gives_no_answer() -> None:
    """The scripted provider fails as those of the benchmark do."""
    model = ScriptedModel([wide.replay])
    completion = model.complete(request_for(model, a_task()))

    with pytest.raises(InvalidAnswerError):
        validation.parse(completion.text)


@pytest.mark.parametrize("count", [1, 59, 60])
def test_a_narrow_schema_is_one_question_as_it_is(count: int) -> None:
    task = a_task(columns(count))

    _, model = ask_for(nulls, task)

    assert model.requests == [request_for(model, task)]
    assert not groups_of(model, task)
    assert model.requests[0].task.options.schema is task.options.schema


def a_model(max_output_tokens: int = 8_192) -> ScriptedModel:
    return ScriptedModel([], profile=a_profile(max_output_tokens=max_output_tokens))


def test_the_size_of_a_group_follows_from_the_length_of_an_answer_and_the_choices() -> None:
    schema = columns(100)
    sizes = {
        limit: max(group.fields for group in groups_of(a_model(limit), a_task(schema)))
        for limit in (100, 1_080, 2_048, 8_192)
    }
    for number in range(90, 100):
        choices: list[JsonValue] = [f"choice {n}" for n in range(400)]
        members(schema)[f"field_{number}"] = {"type": "string", "enum": choices}

    groups = groups_of(a_model(), a_task(schema))

    assert sizes == {100: 20, 1_080: 30, 2_048: 56, 8_192: 60}
    assert [group.fields for group in groups] == [60, 32, 2, 2, 2, 2]


def test_an_invalid_group_is_repaired_alone() -> None:
    failures = Counter[str]()

    def once_invalid(request: CompletionRequest, replayed: JsonObject) -> str:
        failures[request.system] += 1
        is_first = about("payments")(request) and failures[request.system] == 1
        return "no JSON" if is_first else json.dumps(replayed)

    answer, model = ask_for(replaying(once_invalid))

    stages = Counter(request.task.stage for request in model.requests)
    assert stages == {Stage.ANALYZE: len(groups_of(model, a_task())), Stage.REPAIR: 1}
    assert (answer.output["data"], answer.repaired) == (wide.GOLD, True)


def test_only_the_fields_of_an_invalid_group_are_missing_and_the_answer_says_so() -> None:
    """A failure of all groups is a failure."""
    answer, _ = ask_for(
        replaying(lambda request, gold: "no JSON" if LAST(request) else json.dumps(gold))
    )

    lost = "39 of 369 fields have no valid answer (/part_2/head_2, /payments):"
    assert answer.missing_fields == f"{lost} The answer is not JSON, or is incomplete."
    kept = json.loads(json.dumps(wide.GOLD))
    del kept["payments"], kept["part_2"]["head_2"]
    assert answer.output["data"] == kept
    assert answer.quality == pytest.approx(1 - 39 / 369, abs=1e-3)
    with pytest.raises(InvalidAnswerError):
        ask_for("no JSON")


def test_a_group_that_has_to_wait_keeps_the_answer_waiting() -> None:
    """All groups are put into a batch."""
    overloaded = ModelOverloadedError("Not now.")
    model = ScriptedModel([AwaitingBatchError("Later.")], repeat_last=True)

    with pytest.raises(ModelOverloadedError):
        ask_for(replaying(lambda request, gold: overloaded if LAST(request) else json.dumps(gold)))
    with pytest.raises(AwaitingBatchError):
        ask(question(model, a_task(), TEXT))

    assert len(model.requests) == len(groups_of(model, a_task()))


def test_each_group_has_its_votes() -> None:
    lost = {2: about("part_1"), 3: LAST}
    split = replaying(
        lambda request, gold: (
            "no JSON"
            if request.task.sample in lost and lost[request.task.sample](request)
            else json.dumps(gold)
        )
    )

    answer, model = ask_for(split, a_task(options=AnalysisOptions(votes=3)))

    questions = [request for request in model.requests if request.task.stage is Stage.ANALYZE]
    assert len(questions) == 3 * len(groups_of(model, a_task()))
    assert (answer.output["data"], answer.agreement) == (wide.GOLD, 1)


def test_a_check_within_a_group_is_repaired_and_one_between_groups_is_reported() -> None:
    near: JsonObject = {"check": "required", "field": "/mark_1", "if": "/mark_0"}
    far: JsonObject = {"check": "required", "field": "/part_2/code_1", "if": "/mark_0"}

    def forgetful(request: CompletionRequest, replayed: JsonObject) -> str:
        data = json_values.as_object(replayed["data"])
        if about("mark_1")(request) and request.task.stage is Stage.ANALYZE:
            data["mark_1"] = None
        if isinstance(last := data.get("part_2"), dict) and "code_1" in last:
            last["code_1"] = None
        return json.dumps(replayed)

    task = a_task({**wide.SCHEMA, CHECKS: [near, far]})
    answer, model = ask_for(replaying(forgetful), task)

    failed = AssessedAnswer(answer=answer).failed_checks(task)
    assert [failure.path for failure in failed] == ["/data/part_2/code_1"]
    assert Counter(request.task.stage for request in model.requests)[Stage.REPAIR] == 1


def test_an_object_that_one_group_denies_has_no_values_for_its_members() -> None:
    """Each part of chapter 1 may be null; a section may not."""

    def denying(request: CompletionRequest, replayed: JsonObject) -> str:
        data = json_values.as_object(replayed["data"])
        is_second = "part_1" in data and about("head_1")(request)
        return json.dumps({"data": {"part_1": None}, "evidence": []} if is_second else replayed)

    answer, _ = ask_for(replaying(denying))

    chapter = json_values.at(answer.output["data"], "/part_1")
    assert isinstance(chapter, dict)
    assert {value for _, value in json_values.scalars(chapter["head_1"])} == {None}
    gold = json_values.as_object(wide.GOLD["part_1"])
    assert chapter == {**gold, "head_1": chapter["head_1"]}


def test_groups_that_do_not_fit_together_are_no_answer() -> None:
    """A required number cannot be left out of an object that another group gives."""
    part: JsonObject = {**columns(80), "required": ["total"]}
    members(part)["total"] = {"type": "number"}
    schema = columns(1, "code")
    optional: JsonObject = {"anyOf": [part, {"type": "null"}]}
    members(schema)["part"] = optional

    def half(request: CompletionRequest) -> str:
        data: JsonObject = {"code_0": None, "part": {}} if about("code_0")(request) else {}
        return json.dumps({"data": data or {"part": None}, "evidence": []})

    with pytest.raises(InvalidAnswerError, match="do not match the schema together"):
        ask_for(half, a_task(schema))


def test_a_list_stays_whole_and_its_failure_names_its_width() -> None:
    schema = columns(30)
    members(schema)["rows"] = {"type": "array", "items": columns(70)}

    groups = groups_of(a_model(), a_task(schema))
    answer, _ = ask_for(
        lambda request: "no JSON" if about("rows")(request) else nulls(request), a_task(schema)
    )

    assert [(group.fields, len(group.members)) for group in groups] == [(30, 30), (70, 1)]
    assert (
        "(/rows): The answer is not JSON, or is incomplete. These fields cannot be split"
        in answer.missing_fields
    )


def test_an_object_with_rules_for_several_members_stays_whole() -> None:
    ruled: JsonObject = {**columns(70), "minProperties": 3}

    with pytest.raises(
        InvalidAnswerError, match="These fields cannot be split, and are more than 60"
    ):
        ask_for("no JSON", a_task(ruled))

    (group,) = groups_of(a_model(), a_task(ruled))
    assert group.options.schema == ruled


def test_a_definition_inside_itself_is_one_field() -> None:
    person = columns(40)
    members(person)["parent"] = {"$ref": "#/$defs/person"}
    recursive: JsonObject = {**columns(1), "$defs": {"person": person}}
    members(recursive)["person"] = {"$ref": "#/$defs/person"}

    assert not groups_of(a_model(), a_task(recursive))


def test_lists_of_other_groups_may_have_the_records_that_a_list_lacks() -> None:
    schema = columns(70)
    properties = members(schema)
    rows: JsonObject = {"type": "array", "items": columns(3)}
    schema["properties"] = {"a_list": rows, **properties, "list": rows}

    _, model = ask_for(nulls, a_task(schema))
    _, other = whole()

    assert [request.task.lists_elsewhere for request in model.requests] == [True, True]
    assert not any(request.task.lists_elsewhere for request in other.requests)


def test_examples_show_the_fields_of_the_group() -> None:
    text = "mark 0 has the code V-1-0."
    quote: JsonObject = {"path": "/mark_0", "quote": text, "confidence": 9}
    answer: JsonObject = {"data": wide.GOLD, "evidence": [quote]}
    example = Example(analysis_type=AnalysisType.EXTRACTION, text=text, answer=answer)

    for task in (
        a_task(options=AnalysisOptions(examples=(example,))),
        replace(a_task(), examples=(example,)),
    ):
        model = ScriptedModel([])
        requests = [request_for(model, part) for part in parts_of(model, task)]
        first, *others = [request.system + request.user for request in requests]
        assert f'"evidence": [{json.dumps(quote)}]' in first
        assert all('"evidence": []' in other for other in others)
        assert '"mark_9": "V-1-9"' not in first


def test_contested_values_of_chunks_are_reconciled_in_groups() -> None:
    answer, _ = whole()
    other = replace(answer, output=json.loads(json.dumps(answer.output)))
    json_values.as_object(other.output["data"])["mark_0"] = "V-9-9"

    def keeping(request: CompletionRequest) -> str:
        return json.dumps(grounding.without_spans(request.task.answers[0]))

    model = ScriptedModel([keeping], repeat_last=True)
    synthesizer = Synthesizer(document=question(model, replace(a_task(), text=""), TEXT))
    synthesis = synthesizer.synthesize([answer, other])

    data = json_values.as_object(synthesis.answer.output["data"])
    assert (synthesis.error, data["mark_0"]) == (None, "V-1-0")
    assert max(map(wide.fields_of, model.requests)) <= wide.LIMIT
    broken = ScriptedModel([TruncatedError("Too long.")], repeat_last=True)
    document = question(broken, replace(a_task(), text=""), TEXT)
    assert Synthesizer(document=document).synthesize([answer, other]).error is not None


def test_an_answer_is_revised_in_groups() -> None:
    draft, _ = whole()
    objection = {"principle": 1, "path": "/data/mark_0", "problem": "Look again."}

    def examining(request: CompletionRequest) -> Scripted:
        if request.task.stage is Stage.CRITIQUE:
            return json.dumps({"violations": [objection]})
        return wide.replay(request)

    model = ScriptedModel([examining], repeat_last=True)
    examined = examine_answer(
        draft, question(model, a_task(options=AnalysisOptions(critique=True)), TEXT)
    )

    assert examined.critique is not None
    assert (examined.critique.outcome, examined.answer.output["data"]) == ("revised", wide.GOLD)
    assert len(model.requests) == 1 + len(groups_of(model, a_task()))


def test_the_library_says_which_fields_are_missing() -> None:
    error = RefusedError("It declines.")
    line = replaying(lambda request, gold: error if LAST(request) else json.dumps(gold))
    model = ScriptedModel([line], repeat_last=True)
    request = AnalysisRequest(text=TEXT, analysis_type=AnalysisType.EXTRACTION, schema=wide.SCHEMA)

    analysis = DocumentAnalyzer(model, chunk_tokens=9_000).analyze_document(request)

    assert analysis.is_partial
    assert "39 of 369 fields have no valid answer" in analysis.missing_fields
    assert analysis.missing_fields in analysis.review_reason
