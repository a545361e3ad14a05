"""Tests of the library's public interface: `from chordwise import DocumentAnalyzer`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import chordwise
from chordwise import Analysis, AnalysisRequest, AnalysisType, DocumentAnalyzer
from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import Stage
from chordwise.domain.json_values import JsonObject
from chordwise.errors import ReadError, UsageError
from chordwise.llm.model import CompletionRequest
from tests.fakes import order_rows
from tests.fakes.asking import TEXT
from tests.fakes.pipeline import a_summary, quoting_the_text
from tests.fakes.scripted_model import ScriptedModel
from tests.house.checkout import ROOT

LONG = "".join(
    f"In {1500 + n} the harbour was rebuilt again. It cost too much. " for n in range(90)
)
EXTRACTION = AnalysisType.EXTRACTION


def analyzed(model: ScriptedModel, text: str) -> Analysis:
    return DocumentAnalyzer(model, chunk_tokens=300).analyze_document(AnalysisRequest(text=text))


def test_the_public_names_can_be_imported() -> None:
    assert all(getattr(chordwise, name).__name__ == name for name in chordwise.__all__)
    with pytest.raises(AttributeError, match="Missing"):
        _ = chordwise.Missing


def test_a_short_text_needs_one_request() -> None:
    model = ScriptedModel([a_summary("rebuilt in 1856", "nobody wrote this")])

    analysis = analyzed(model, TEXT)

    assert (analysis.chunk_count, len(model.requests)) == (1, 1)
    assert (analysis.confidence, analysis.quality) == (0.7, 0.5)
    assert (analysis.provider, analysis.model) == ("scripted", "script-1")
    assert analysis.language_model
    assert analysis.prompt_version == "summary.analyze@1"
    assert analysis.merged_without_model == ""
    assert len(json_values.objects(analysis.output["evidence"])) == 2


@pytest.mark.parametrize(
    ("confidence", "threshold", "review"),
    [(7, 0.8, True), (8, 0.8, False), (1, 0.0, False), (None, None, False), (None, 0.5, True)],
)
def test_low_confidence_needs_review(
    confidence: int | None, threshold: float | None, *, review: bool
) -> None:
    """That of the built-in model is derived from matching words, and needs a user's threshold."""
    summary = a_summary("rebuilt in 1856", confidence=confidence or 0)
    scripted = DocumentAnalyzer(ScriptedModel([summary]))
    request = AnalysisRequest(text=TEXT, confidence_threshold=threshold)

    analysis = (scripted if confidence else DocumentAnalyzer()).analyze_document(request)

    assert analysis.confidence < (0.9 if confidence else 0.5)
    assert analysis.needs_review is review
    assert analysis.review_reason.startswith("The confidence") is review


def test_values_without_a_quote_lower_the_quality() -> None:
    """Values that are not mentioned need no review."""
    members: JsonObject = {"year": {"type": "integer"}, "town": {"type": "string"}}
    schema: JsonObject = {"type": "object", "properties": members}
    quoted = {"path": "/town", "quote": "Lindau", "confidence": 9}
    answer = json.dumps({"data": {"year": 1856, "town": "Lindau"}, "evidence": [quoted]})
    request = AnalysisRequest(text=TEXT, analysis_type=EXTRACTION, schema=schema)
    passport = replace(request, schema=None, specific_instructions="passport number")

    analysis = DocumentAnalyzer(ScriptedModel([answer])).analyze_document(request)
    absent = DocumentAnalyzer().analyze_document(passport)

    assert analysis.quality == 0.5
    doubts = {fact.item: fact.doubts for fact in analysis.facts}
    assert doubts == {"year": ["no quote"], "town": None}
    assert not absent.needs_review
    assert [fact.value for fact in absent.facts] == [None]


def test_offsets_refer_to_the_normalized_text() -> None:
    model = ScriptedModel([a_summary("It cost more than the town had planned.")])
    text = TEXT.replace(". It", ".\r\n\r\n\0It")

    analysis = analyzed(model, text)

    assert analysis.text == TEXT.replace(". It", ".\n\nIt")
    (fact,) = [fact for fact in analysis.facts if fact.quote]
    assert fact.grounded
    assert analysis.text[fact.start_char : fact.end_char] == fact.quote


def test_a_long_text_is_analyzed_in_chunks_and_synthesized() -> None:
    model = ScriptedModel([quoting_the_text], repeat_last=True)

    analysis = analyzed(model, LONG)

    chunks = [request.task.text for request in model.requests if not request.task.answers]
    assert " ".join(chunks) == LONG.strip()
    assert len(chunks) == analysis.chunk_count > 3
    assert model.requests[-1].task.answers
    quoted_facts = [fact for fact in analysis.facts if fact.quote]
    assert all(
        analysis.text[fact.start_char : fact.end_char] == fact.quote for fact in quoted_facts
    )
    assert max(fact.start_char or 0 for fact in quoted_facts) > len(LONG) / 2


def test_a_failed_synthesis_is_reported() -> None:
    model = ScriptedModel(
        [lambda request: "no JSON" if request.task.answers else quoting_the_text(request)],
        repeat_last=True,
    )

    analysis = analyzed(model, LONG)

    assert "not JSON" in analysis.merged_without_model
    assert (analysis.quality, analysis.is_partial, analysis.needs_review) == (0.8, True, True)


def test_rows_dropped_by_a_synthesis_are_reported() -> None:
    """A list with the maximum length of its schema is complete."""
    schema = json.loads(json.dumps(order_rows.SCHEMA))
    schema["properties"]["line_items"]["maxItems"] = 60
    request = AnalysisRequest(
        text=order_rows.ORDER, analysis_type=EXTRACTION, schema=order_rows.UNJOINABLE
    )
    model = ScriptedModel([order_rows.extracting(max_rows=30)], repeat_last=True)

    losing, complete = (
        DocumentAnalyzer(
            ScriptedModel([order_rows.extracting(max_rows)], repeat_last=True), chunk_tokens=800
        ).analyze_document(request)
        for max_rows in (30, order_rows.ROW_COUNT)
    )
    full = DocumentAnalyzer(model, chunk_tokens=400).analyze_document(
        replace(request, schema=schema)
    )

    (missing,) = losing.missing_rows
    assert str(missing) == "30 of 300 rows of `line_items`"
    assert (losing.quality, losing.coverage) == (0.1, 0.1)
    assert (losing.is_partial, losing.needs_review) == (True, True)
    assert (complete.quality, complete.coverage, complete.missing_rows) == (1.0, 1.0, ())
    assert not complete.is_partial
    # The parts have another kind than the whole.
    assert complete.review_reason == "The chunks of the document give different values."
    assert [(rows.kept, rows.found, rows.max_items) for rows in full.missing_rows] == [
        (60, order_rows.ROW_COUNT, 60)
    ]
    assert (full.is_partial, full.needs_review, full.coverage) == (False, False, 1.0)
    assert not any(request.task.answers for request in model.requests)


def test_missing_rows_are_requested_once_per_chunk() -> None:
    request = AnalysisRequest(
        text=order_rows.ORDER, analysis_type=EXTRACTION, schema=order_rows.SCHEMA
    )

    def lazy(prompt: CompletionRequest) -> str:
        rows = order_rows.rows_in(prompt.task.text)
        is_mending = prompt.task.stage is Stage.REPAIR and "Part-1 costs" in prompt.task.text
        return order_rows.an_extraction(rows if is_mending else rows[: len(rows) * 2 // 5])

    model = ScriptedModel([lazy], repeat_last=True)

    analysis = DocumentAnalyzer(model, chunk_tokens=800).analyze_document(request)

    assert len(model.requests) == 2 * analysis.chunk_count
    assert "has no row for some" in model.requests[1].user
    (missing,) = analysis.missing_rows
    (counted,) = json_values.objects(list(analysis.row_counts))
    assert (missing.found, counted["unread"]) == (order_rows.ROW_COUNT, missing.records)
    first, second = (json_values.number(json_values.at(counted, f"/by_chunk/{n}")) for n in (0, 1))
    assert (first or 0) > 2 * (second or 0)
    assert analysis.is_partial
    assert analysis.coverage == missing.kept / order_rows.ROW_COUNT
    assert "`line_items` (without: part 2; " in analysis.review_reason


def test_a_model_that_repeats_rows_is_asked_to_answer_without_repetition() -> None:
    request = AnalysisRequest(
        text=order_rows.ORDER[:2_000], analysis_type=EXTRACTION, schema=order_rows.SCHEMA
    )

    def stammering(prompt: CompletionRequest) -> str:
        rows = order_rows.rows_in(prompt.task.text)
        again = [] if prompt.task.stage is Stage.REPAIR else rows[3:6]
        return order_rows.an_extraction([*rows, *again])

    model = ScriptedModel([stammering], repeat_last=True)

    analysis = DocumentAnalyzer(model).analyze_document(request)

    assert len(model.requests) == 2 * analysis.chunk_count
    assert "3 rows repeat the values of another one" in model.requests[1].user
    assert order_rows.rows_of(analysis.output) == order_rows.rows_in(analysis.text)
    assert (analysis.failed_checks, analysis.needs_review) == ((), False)


def test_an_extraction_follows_the_users_schema() -> None:
    schema: JsonObject = {
        "$id": "https://example.com/order",
        "type": "object",
        "$defs": {"Email": {"type": "string", "format": "email"}},
        "properties": {"email": {"$ref": "#/$defs/Email"}, "lines": {"type": "array"}},
        "required": ["email", "lines"],
    }
    data: JsonObject = {"email": "ada@example.com", "lines": ["one harbour"]}
    evidence = {"path": "/lines/0", "quote": "harbour of Lindau", "confidence": 8}
    model = ScriptedModel([json.dumps({"data": data, "evidence": [evidence]})])

    analysis = DocumentAnalyzer(model).analyze_document(
        AnalysisRequest(text=TEXT, analysis_type=EXTRACTION, schema=schema)
    )

    assert analysis.output["data"] == data
    assert analysis.confidence == 0.8
    facts = {fact.path: fact for fact in analysis.facts}
    assert facts["/data/email"].value == "ada@example.com"
    assert {fact.item for fact in facts.values() if fact.grounded} == {"lines"}
    assert model.requests[0].prompt_version == "extraction.schema.analyze@1"


def test_mistakes_are_refused_by_name_before_any_request() -> None:
    analyzer = DocumentAnalyzer(ScriptedModel([]))

    with pytest.raises(UsageError) as refused:
        analyzer.analyze_document("hi")  # type: ignore[arg-type]  # the mistake
    assert refused.value.hint == "Pass AnalysisRequest(text=…) or AnalysisRequest(path=…)."
    for request, said in (
        (AnalysisRequest(text="hi", confidence_threshold=7), "threshold: Input should be less"),
        (AnalysisRequest(text="hi", votes=0), "votes: Input should be greater"),
        (AnalysisRequest(text=" \0\r\n"), "empty"),
        (AnalysisRequest(text=TEXT, schema={"type": "array"}), "schema"),
    ):
        with pytest.raises(UsageError, match=said):
            analyzer.analyze_document(request)


@pytest.mark.parametrize(
    "analysis_type", [kind for kind in AnalysisType if kind != AnalysisType.REASONING]
)
def test_the_built_in_model_needs_no_settings(analysis_type: AnalysisType) -> None:
    analysis = DocumentAnalyzer().analyze_document(
        AnalysisRequest(text=LONG, analysis_type=analysis_type, labels=("harbours", "law"))
    )

    assert analysis.provider == "extractive"
    assert not analysis.language_model
    assert analysis.quality == 1.0


def test_several_samples_vote() -> None:
    quotes = ("rebuilt in 1856", "more than the town", "rebuilt in 1856")
    model = ScriptedModel(map(a_summary, quotes))

    analysis = DocumentAnalyzer(model).analyze_document(AnalysisRequest(text=TEXT, votes=3))

    assert analysis.facts[1].quote == "rebuilt in 1856"
    assert analysis.agreement is not None
    assert 0.5 < analysis.agreement < 1
    assert analysis.confidence == pytest.approx(0.7 * (1 + analysis.agreement) / 2)


def test_an_answer_is_revised_after_a_critique() -> None:
    violation = {"principle": 1, "path": "/main_topic", "problem": "It says too little."}
    objection = json.dumps({"violations": [violation]})
    mended = a_summary("rebuilt in 1856", topic="The harbour of Lindau.")
    model = ScriptedModel([a_summary("rebuilt in 1856"), objection, mended])
    request = AnalysisRequest(text=TEXT, critique=True, principles=("Say where.",))

    analysis = DocumentAnalyzer(model).analyze_document(request)

    assert analysis.output["main_topic"] == "The harbour of Lindau."
    assert analysis.critique is not None
    assert analysis.critique.violations == ({**violation, "principle": "Say where."},)
    assert not analysis.needs_review


def test_a_file_is_read_from_its_path() -> None:
    path = ROOT / "samples" / "letter-to-members.pdf"
    analyzer = DocumentAnalyzer()

    analysis = analyzer.analyze_document(AnalysisRequest(path=path))

    assert "Saltmarsh Energy Cooperative" in analysis.text
    assert {(fact.page, fact.place) for fact in analysis.facts if fact.grounded} == {(1, "p. 1")}
    assert all(fact.boxes for fact in analysis.facts if fact.grounded)
    with pytest.raises(UsageError, match="a text and a path"):
        analyzer.analyze_document(AnalysisRequest(text="Rain.", path=path))
    with pytest.raises(ReadError):
        analyzer.analyze_document(AnalysisRequest(path=ROOT / "there-is-no-such-file.pdf"))
