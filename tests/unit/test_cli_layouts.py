"""Tests of tables at 80 columns: truncation is marked, and rows can be distinguished."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from rich.text import Text
from syrupy.assertion import SnapshotAssertion

from chordwise.cli.commands.evaluate import _by_label
from chordwise.cli.commands.quote import _table
from chordwise.cli.commands.runs import job_table
from chordwise.cli.commands.schedules import past_table, table
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.estimates import Interval
from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.measures import Measure
from chordwise.pipeline.quoting.quote import Cost, Quote, QuotedLine
from chordwise.relations.relation import Row
from chordwise.rendering import accounts, layouts, results
from chordwise.rendering.layouts import FirstThatFits
from tests.unit.test_cli_rendering import a_result, an_account, printed, shown

NARROW, WIDE = 80, 140
INBOX = "/srv/documents/chordwise/inbox/reviews-of-2026-and-2027"
LONG = "nightly-contracts-of-the-whole-company-abroad"
NOW = datetime(2026, 11, 26, 22, 30, tzinfo=UTC)
ZONE = "America/Argentina/ComodRivadavia"


def a_job(source: str) -> Row:
    return {
        "job_id": uuid.UUID(int=1),
        "document_id": uuid.UUID(int=0),
        "source": source,
        "analysis_type": "classification",
        "model": "extractive",
        "status": "succeeded",
        "chunks": 1,
        "chunks_done": 1,
        "confidence": 0.8,
        "coverage": 1.0,
        "reused": True,
        "finished_at": None,
    }


def a_schedule(name: str, zone: str = "Europe/Berlin") -> Row:
    return {
        "name": name,
        "run": "recalibrate",
        "cron": "0 2 * * MON-FRI",
        "time_zone": zone,
        "next_due_at": NOW,
        "origin": "configuration",
        "folder": "/srv",
        "defect": None,
    }


def past(name: str) -> Row:
    return {
        "schedule": name,
        "run": "submit letters",
        "due_at": NOW,
        "trigger": "catch_up",
        "status": "succeeded",
        "runs": (f"{name}-20261126-2230",),
        "outcome": {"intakes": {"accepted": 3, "unsupported": 12}, "jobs": {"succeeded": 1000}},
        "error_code": None,
        "error_message": None,
        "hint": None,
        "started_at": None,
        "finished_at": None,
    }


def a_quote() -> Quote:
    cost = Cost(low=Decimal("1234.5"), typical=Decimal("2345.67"), high=Decimal("12345.67"))
    tokens = Interval(low=123_456, typical=123_456, high=123_456)
    line = QuotedLine(
        analysis_type=AnalysisType.CLASSIFICATION,
        model="anthropic/claude-sonnet-4-5-20250929",
        chunks=1,
        chunk_tokens=3_000,
        questions=1,
        syntheses=tokens,
        critiques=tokens,
        input_tokens=tokens,
        output_tokens=tokens,
        basis="assumed",
        observations=0,
        counter="",
        counts_exactly=True,
        lane="online",
        costs={"online": cost, "batch": cost},
    )
    return Quote(
        cached=0,
        documents=1,
        duplicates=0,
        unread=(),
        jobs=1,
        reused=0,
        lines=(line,),
        totals={"online": cost, "batch": cost},
        total=cost,
    )


TABLES = {
    "jobs": job_table([a_job(f"{INBOX}/letter-{number}.txt") for number in range(3)], 3),
    "schedules": table([a_schedule("nightly"), a_schedule(LONG, ZONE)]),
    "history of schedules": past_table([past("nightly"), past(LONG)]),
    "quote": _table(a_quote(), are_all_shown=False),
}


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_the_screen_and_no_cell_is_cut(
    name: str, width: int, snapshot: SnapshotAssertion
) -> None:
    """A beginning that all paths share is left out, and long cells are folded."""
    assert printed(TABLES[name], width=width) == snapshot


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    """They say whose document it is and of what format; folders are left out first."""
    long = "LakesideHoldingsInc_20070810_S-1_EX-10.33_362297_Affiliate Agreement.txt"
    deep = "/files/contracts/2007/second quarter/Lakeside Affiliate Agreement.txt"

    names = [name.plain for name in layouts.shortened([long, f"/files/{long}", deep])]

    assert names[0] == names[1] == f"LakesideHoldingsInc_2007…{long[-23:]}"
    assert names[2] == f"…{deep[-47:]}"
    assert {len(name) for name in names} == {layouts.NAME_WIDTH}


def test_a_folder_that_all_results_share_is_not_shown() -> None:
    """Short names are unchanged."""
    long = [a_result(source=f"{INBOX}/{number}.txt") for number in range(11)]
    short = [a_result(source=f"letters/{number}.txt") for number in range(11)]

    assert "…/10.txt " in shown(*results.render(long), width=NARROW)
    assert INBOX not in shown(*results.render(long), width=NARROW)
    assert "letters/10.txt " in shown(*results.render(short), width=NARROW)


def test_truncated_cells_of_a_table_end_with_an_ellipsis() -> None:
    account = replace(an_account(succeeded=1), run=LONG)

    assert "…" in shown(accounts.table([account]), width=40)


def test_long_names_in_an_evaluation_are_wrapped() -> None:
    names = [f"contracts_termination_clause_{number}_notice_period_in_days" for number in "ab"]
    measures = [
        Measure(metric=metric, value=0.5, count=10, label=name)
        for name in names
        for metric in ("match", "exact_match", "precision", "recall", "f1", "rouge_1")
    ]

    (table,) = _by_label(measures)

    text = shown(table, width=NARROW)
    assert "…" not in text
    assert "".join(line[:10].strip() for line in text.splitlines()).endswith("days")


def in_sql(names: list[str], *rows: list[str]) -> FirstThatFits:
    cells = [[Text(cell) for cell in row] for row in rows]
    return FirstThatFits(layouts.table(names, cells, 20), layouts.records(names, cells))


def test_rows_that_do_not_fit_are_shown_as_records() -> None:
    names = [f"column_{number}" for number in range(21)]
    laid_out = in_sql(names, *[[f"value {number}-{row}" for number in range(21)] for row in "ab"])

    lines = shown(laid_out, width=NARROW).splitlines()

    assert len(lines) == 2 * 22
    assert lines[0].startswith("Row 1 ─")
    assert lines[1].rstrip() == "column_0  | value 0-a"
    assert lines[22].startswith("Row 2 ─")
    assert lines[-1].rstrip() == "column_20 | value 20-b"


def test_rows_that_fit_are_shown_as_a_table() -> None:
    """Prose is wrapped to make them fit, but ids are not, and columns stay wide enough to read.

    Without rows, the column names alone may be too wide for the terminal.
    """
    row = [str(uuid.uuid4()), "It rained on Monday. " * 9]

    at_eighty = shown(in_sql(["id", "text"], row), width=NARROW).splitlines()
    at_fifty = shown(in_sql(["id", "text"], row), width=50).splitlines()

    assert at_eighty[0].split() == ["id", "text"]
    assert at_eighty[1].startswith(f"{row[0]}  It rained on Monday.")
    assert at_fifty[1].rstrip() == f"id   | {row[0]}"
    assert shown(in_sql(["source", "outcome"]), width=NARROW).split() == ["source", "outcome"]
    assert shown(in_sql(["a_column_of_a_view"] * 10), width=NARROW).strip() == ""


def an_extraction(number: int, *values: str | None) -> Row:
    fields: list[JsonValue] = [
        {"item": f"field {index}", "value": value} for index, value in enumerate(values)
    ]
    result = a_result(
        AnalysisType.EXTRACTION, {"fields": fields}, source=f"/files/{'agreement-' * 5}{number}.txt"
    )
    return {**result, "document_id": uuid.UUID(int=number), "job_id": uuid.UUID(int=number)}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_of_answers_has_a_line_for_each_document(width: int) -> None:
    """The columns that fit are shown from the left, and the others named in the order asked."""
    values = ["a long value of some words", "5 EUR", None, *["x" * 30] * 7]
    several = [an_extraction(number, *values) for number in range(12)]
    states = {(several[3]["job_id"], "field 9"): "check"}

    lines = shown(*results.render(several, states), width=width).splitlines()

    assert max(map(len, map(str.rstrip, lines))) <= width
    assert lines[0].split()[0] == "Document"
    shown_names = re.findall(r"field \d", lines[0])
    assert shown_names == [f"field {number}" for number in range(len(shown_names))]
    assert [line.split()[0][-5:] for line in lines[1:11]] == [f"{n}.txt" for n in range(10)]
    assert all("agr" in line and "…" in line for line in lines[1:11])
    rest = [f"field {number}" for number in range(len(shown_names), 9)]
    named = " ".join(" ".join(lines[11:-2]).split())
    assert named == f"Not shown: {', '.join([*rest, '? field 9'])}"
    assert lines[-2].strip() == "? to check  ∅ not mentioned"


def test_answers_are_in_full_for_one_document_or_if_requested() -> None:
    one = shown(*results.render([an_extraction(1, "Ada")]))
    several = [an_extraction(number, "Ada") for number in range(3)]

    assert "Found" in one
    assert shown(*results.render(several)).count("Found") == 0
    assert shown(*results.render(several, is_long=True)).count("Found") == 3
