"""Tests of the display of answers, accounts and failures, and of escaping terminal sequences."""

from __future__ import annotations

import io
import json
import unicodedata
import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from syrupy.assertion import SnapshotAssertion

from chordwise.domain.analysis import headline
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import approximate, money, share
from chordwise.domain.states import IntakeOutcome, JobStatus
from chordwise.domain.visible_text import visible
from chordwise.relations.accounts import Account
from chordwise.relations.relation import Row
from chordwise.rendering import accounts as rendered_accounts
from chordwise.rendering import results as rendered_results
from chordwise.rendering.plain_text import one_line, safe
from chordwise.rendering.results import answer, quote

SPAN: JsonObject = {"quote": "It rained.", "start_char": 4, "end_char": 14, "grounded": True}
OUTPUTS: dict[AnalysisType, JsonObject] = {
    AnalysisType.SUMMARY: {
        "main_topic": "The weather",
        "key_findings": [{"finding": "Rain fell", **SPAN}],
        "conclusions": ["Take an umbrella"],
    },
    AnalysisType.EXTRACTION: {
        "fields": [
            {"item": "day", "status": "found", "value": "Monday", "confidence": 8, **SPAN},
            {"item": "place", "status": "not mentioned", "value": None, "confidence": 5},
        ]
    },
    AnalysisType.CLASSIFICATION: {
        "primary_label": "weather",
        "secondary_label": "travel",
        "confidence": 0.8,
        "features": [{"feature": "rain", **SPAN}],
        "uncertainty_factors": ["short text"],
    },
    AnalysisType.SENTIMENT: {
        "label": "negative",
        "score": -0.4,
        "emotions": ["gloom"],
        "sentences": [{"score": -0.5, **SPAN}],
    },
    AnalysisType.REASONING: {
        "logical_flow": [{"step": "Clouds came", "role": "premise", **SPAN}],
        "argument_strength": 6,
        "weaknesses": ["one witness"],
        "gaps": ["no time given"],
        "evidence_quality": {"score": 3, "assessment": "thin"},
        "overall_assessment": "plausible",
    },
}


def shown(*renderables: RenderableType, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    for renderable in renderables:
        console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def printed(*renderables: RenderableType, width: int = 120) -> str:
    """Return the lines without the blanks at their ends."""
    return "\n".join(map(str.rstrip, shown(*renderables, width=width).splitlines()))


def a_result(
    analysis_type: AnalysisType = AnalysisType.SUMMARY,
    output: JsonObject | None = None,
    *,
    source: str = "rain.txt",
) -> Row:
    return {
        "run": "r",
        "source": source,
        "title": None,
        "document_id": uuid.UUID(int=1),
        "job_id": uuid.UUID(int=2),
        "analysis_type": analysis_type,
        "status": JobStatus.SUCCEEDED,
        "output": OUTPUTS[analysis_type] if output is None else output,
        "corrected": False,
        "nothing_found": False,
        "confidence": 0.7,
        "quality": 0.9,
        "coverage": 1.0,
        "agreement": None,
        "critique": None,
        "needs_review": False,
        "missing_rows": None,
        "row_counts": None,
        "failed_checks": [],
        "review_reason": None,
        "flags": [],
        "transcribed_by": None,
        "failed_chunks": [],
        "provider": "openai",
        "model": "m",
        "language_model": True,
        "prompt_version": "summary@1",
        "reused": False,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }


def an_account(**states: int) -> Account:
    return Account(
        run_id=uuid.UUID(int=3),
        run="r",
        status="finished",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        finished_at=None,
        intakes_found=3,
        outcomes={
            outcome.value: 1 if outcome is IntakeOutcome.ACCEPTED else 0
            for outcome in IntakeOutcome
        },
        intakes_balance=False,
        intake_status="finished",
        jobs_planned=sum(states.values()),
        states={status.value: states.get(status.value, 0) for status in JobStatus},
        jobs_balance=True,
        reused=0,
    )


def a_failure(source: str, **values: str | None) -> Row:
    failure = {
        "what": "job",
        "source": source,
        "analysis_type": "summary",
        "state": "failed",
        "error_code": "refused",
        "error_message": "The model declined.",
        "hint": "Ask otherwise.",
        "start_char": None,
        "end_char": None,
    }
    return {**failure, **values}


@pytest.mark.parametrize("analysis_type", list(AnalysisType))
def test_every_part_of_an_answer_is_shown_with_its_place(
    analysis_type: AnalysisType, snapshot: SnapshotAssertion
) -> None:
    """Findings are shown with their quotes and offsets."""
    assert printed(answer(analysis_type, OUTPUTS[analysis_type])) == snapshot


@pytest.mark.parametrize("analysis_type", [*AnalysisType, "poem"])
@pytest.mark.parametrize("output", [{}, {"fields": 3, "key_findings": "x", "evidence_quality": 5}])
def test_an_answer_with_another_structure_is_shown(analysis_type: str, output: JsonObject) -> None:
    """The result may come from an older version."""
    shown(answer(analysis_type, output))
    headline(analysis_type, output)


def test_an_extraction_by_schema_is_shown_as_json() -> None:
    """The data is shown whole or truncated, followed by its evidence, of which a note is left."""
    evidence: JsonValue = [{"path": "/total", "confidence": 7, **SPAN}]
    rows: JsonValue = [{"path": f"/rows/{n}", "confidence": 7, **SPAN} for n in range(5_000)]
    short: JsonObject = {"data": {"total": 5}, "evidence": evidence}
    long: JsonObject = {"data": {"lines": ["x" * 100] * 100}, "evidence": rows}

    text, cut = (shown(answer(AnalysisType.EXTRACTION, output)) for output in (short, long))

    assert [part for part in ('"total": 5', "/total", "[4–14]") if part not in text] == []
    assert "… the first 4,000 of 10," in cut
    assert "/rows/199" in cut
    assert "/rows/200" not in cut
    assert "… the first 200 of 5,000; use --json for all." in cut


def test_ungrounded_quotes_and_values_are_marked() -> None:
    marks: JsonObject = {"/name": True, "/fee": False}
    entry: JsonObject = {"path": "/rows/0", **SPAN, "value_in_quote": marks}

    assert "not found in the document" in shown(quote({"quote": "Invented.", "grounded": False}))
    assert "[not in the quote: /rows/0/fee]" in shown(quote(entry))
    assert "not in the quote" not in shown(quote({**entry, "value_in_quote": None}))


def test_markup_and_escapes_of_documents_are_text() -> None:
    """Rich markup is shown literally, and escape sequences are removed."""
    output: JsonObject = {"main_topic": "[red]x[/red] \x1b]0;owned\x07[link=http://a]y[/link]"}

    text = shown(*rendered_results.render([a_result(output=output, source="[b]\x1b[2Jname")]))

    assert "[red]x[/red] [link=http://a]y[/link]" in text
    assert "[b]name" in text
    assert "\x1b" not in text
    assert "owned" not in text


def test_an_answer_on_one_line_has_each_name_once() -> None:
    said = (("names", "Ada"), ("note", None), ("names", "Bob"))
    fields: list[JsonValue] = [{"item": item, "value": value} for item, value in said]
    data: JsonObject = {"total": 5, "note": None, "paid": False, "tags": []}
    unlabelled = {**OUTPUTS[AnalysisType.CLASSIFICATION], "primary_label": None}
    result = a_result(AnalysisType.CLASSIFICATION, unlabelled)

    assert headline(AnalysisType.EXTRACTION, {"fields": fields}) == "names: Ada, Bob"
    assert headline(AnalysisType.EXTRACTION, {"data": data}) == "total: 5; paid: false"
    assert headline(AnalysisType.CLASSIFICATION, unlabelled) == "no label fits"
    assert "no label fits" in shown(*rendered_results.render([result]))


ROWS: JsonObject = {"path": "/data/lines", "kept": 30, "found": 1200, "max_items": None}
LIMITED: JsonObject = {"path": "/data/best", "kept": 5, "found": 9, "max_items": 5}
OBJECTION: JsonObject = {"path": "/main_topic", "problem": "Too [b]short[/b].", "principle": "p"}
KEPT: JsonObject = {"outcome": "kept", "reason": "It declined.", "violations": [OBJECTION]}
CHUNK: JsonObject = {"start_char": 10, "end_char": 20, "error_code": "refused"}
CHANGES: dict[str, Row] = {
    "whole": {},
    "uncovered characters": {"status": JobStatus.PARTIAL, "failed_chunks": [CHUNK]},
    "missing rows": {"status": JobStatus.PARTIAL, "missing_rows": [ROWS, LIMITED]},
    "almost whole": {"quality": 0.999, "coverage": 0.9999},
    "unresolved objections": {"agreement": 0.6, "critique": KEPT},
    "revised": {"critique": {**KEPT, "outcome": "revised"}},
    "without a language model": {"language_model": False},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_wrong_with_a_result_is_shown(change: str, snapshot: SnapshotAssertion) -> None:
    assert printed(*rendered_results.render([a_result() | CHANGES[change]])) == snapshot


def test_many_results_are_shown_as_a_table(snapshot: SnapshotAssertion) -> None:
    """The folders that all share are left out, and the built-in model is named."""
    changes = [*CHANGES.values(), *[CHANGES["whole"]] * 5]
    sources = [f"/{'folder/' * 12}{number}.txt" for number in range(len(changes))]
    many = [
        a_result(source=source) | change for source, change in zip(sources, changes, strict=True)
    ]

    assert printed(*rendered_results.render(many)) == snapshot


def test_an_account_that_does_not_balance_is_reported(snapshot: SnapshotAssertion) -> None:
    """The end of a run is described in one sentence; only one without failures is complete."""
    done = an_account(succeeded=2)

    assert printed(*rendered_accounts.render(an_account(succeeded=2, failed=1))) == snapshot
    assert rendered_accounts.in_words(an_account(succeeded=2, failed=1, paused=1)) == snapshot
    assert done.is_complete
    assert not an_account(succeeded=2, partial=1).is_complete
    assert not replace(done, outcomes={**done.outcomes, "unreadable": 1}).is_complete
    assert replace(done, outcomes={**done.outcomes, "duplicate": 1}).is_complete
    # The name of a run can be copied from the list, also on a narrow terminal.
    long = replace(done, run="inbox-contracts-20261125-1032")
    assert long.run in shown(rendered_accounts.table([long]), width=80)


@pytest.mark.parametrize("width", [80, 120])
def test_equal_failures_are_grouped_by_reason(width: int, snapshot: SnapshotAssertion) -> None:
    """Fifty documents with the same error do not fill the screen; a long hint is indented."""
    alike: Iterable[Row] = [a_failure(f"{number}.txt") for number in range(50)]
    other = a_failure("other.txt", error_message="Something else.", hint=None)
    long = a_failure("a.gif", hint="Save it as PNG first. " * 12)

    assert printed(*rendered_accounts.failures([*alike, other, long]), width=width) == snapshot


def test_numbers_are_shown_with_three_digits_and_sums_with_unknown_prices_marked() -> None:
    """An unknown price is never shown as zero, nor a share below one as 100 %."""
    numbers = [approximate(int(number)) for number in (7, 999, 1_234, 999_700, 4.56e6)]

    assert numbers == ["7", "999", "1.23k", "1M", "4.56M"]
    assert [share(part) for part in (1, 0.99999, 0.5)] == ["100 %", "99.9 %", "50.0 %"]
    assert money(Decimal(0), 0, 0) == "$0.00"
    assert money(Decimal("0.0123"), 0, 4) == "$0.0123"
    assert money(Decimal("0.000045"), 0, 1) == "under $0.0001"
    assert (dollars(Decimal("-0.46")), dollars(Decimal("-1234.5"))) == ("-$0.4600", "-$1,234.50")
    assert money(Decimal("12.5"), 2, 4) == "$12.50 and 2 calls of unknown cost"
    assert money(Decimal(0), 4, 4) == money(Decimal(0), 3, 4) == "cost unknown"


INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("right\u202eto left", "rightto left"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("bell\x07 and back\x08", "bell and back"),
        ("[bold]markup[/bold] :smile:", "[bold]markup[/bold] :smile:"),
        ("Grüße, 世界, नमस्ते", "Grüße, 世界, नमस्ते"),
    ],
)
def test_escape_sequences_and_invisible_characters_are_dropped(hostile: str, shown: str) -> None:
    """These are colors, links, titles and direction overrides; visible text is kept."""
    assert safe(hostile) == shown


@given(st.text())
def test_only_printable_characters_joiners_and_line_ends_are_kept(text: str) -> None:
    left = {character for character in safe(text) if character not in "\n\u200c\u200d"}

    assert not [c for c in left if unicodedata.category(c) in INVISIBLE]


@given(st.text(), st.integers(min_value=2, max_value=40))
def test_a_line_has_no_line_ends_and_a_limited_width(text: str, width: int) -> None:
    line = one_line(text, width)

    assert len(line) <= width
    assert "\n" not in line


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists))
def test_escaped_json_decodes_to_the_original(value: object) -> None:
    """The escaped document contains no terminal sequences."""
    document = json.dumps(value, ensure_ascii=False)

    escaped = visible(document)

    assert json.loads(escaped) == value
    assert not [c for c in escaped if c not in "\u200c\u200d" and unicodedata.category(c) == "Cc"]
    assert "\u202e" not in escaped
