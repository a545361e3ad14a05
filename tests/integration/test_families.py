"""Tests of families: a base and its amendments, with the values in force at a date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.errors import ExitCode
from chordwise.settings import Settings
from tests.fakes.commands import output_of
from tests.fakes.pipeline import Pipeline, a_document, a_pipeline, a_run
from tests.integration.test_entities import parties_in, queried

pytestmark = pytest.mark.usefixtures("addressed")

ITEMS = ("file number", "effective date: date", "fee", "notice", "parties: list")
BASE = """file number: AB-12/7
effective date: 2021-01-01
fee: EUR 100
notice: 30 days
parties: Ada Ltd
parties: Bell GmbH
"""
FIRST = "file number: ab 12/7\neffective date: 2022-06-01\nfee: EUR 120\n"
SECOND = "file number: AB-12/7\neffective date: 2023-06-01\nfee: EUR 150\nparties: Cray SA\n"
OTHER = "file number: AB-12/8\neffective date: 2022-01-01\nfee: EUR 9\n"
ALONE = "fee: EUR 1\n"


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings, parties_in, repeat_last=True)


def analyze(pipeline: Pipeline, texts: Mapping[str, str], family: str = "file number") -> None:
    run = a_run(AnalysisType.EXTRACTION, analysis=AnalysisOptions(items=ITEMS))
    options = replace(run, save_as="deals", family=family)
    pipeline.analyze(*(a_document(text, name) for name, text in texts.items()), options=options)


def in_force(at: str) -> list[tuple[object, ...]]:
    rows = queried("SELECT * FROM answers.deals_effective ORDER BY item")
    return [
        (row["document"], row["item"], row["value"])
        for row in rows
        if row["item"] != "effective date"
        and row["family"] in ("AB-12/7", "ab 12/7")
        and row["valid_from"] <= at < (row["valid_until"] or "9")
    ]


def test_values_are_in_force_until_a_later_document_replaces_them(pipeline: Pipeline) -> None:
    """An amendment replaces only what it mentions; other families have values of their own."""
    analyze(pipeline, {"b.txt": BASE, "z.txt": FIRST, "a.txt": SECOND, "o.txt": OTHER, "1": ALONE})

    assert in_force("2021-05-05") == [
        ("b.txt", "fee", "EUR 100"),
        ("b.txt", "notice", "30 days"),
        ("b.txt", "parties", "Ada Ltd; Bell GmbH"),
    ]
    assert in_force("2022-06-01") == [
        ("z.txt", "fee", "EUR 120"),
        ("b.txt", "notice", "30 days"),
        ("b.txt", "parties", "Ada Ltd; Bell GmbH"),
    ]
    assert in_force("2024-01-01") == [
        ("a.txt", "fee", "EUR 150"),
        ("b.txt", "notice", "30 days"),
        ("a.txt", "parties", "Cray SA"),
    ]
    replaced = queried(
        "SELECT value, quote, replaced_by FROM answers.deals_effective"
        " WHERE valid_until IS NOT NULL AND item = 'fee' ORDER BY valid_from"
    )
    assert [tuple(row.values()) for row in replaced] == [
        ("EUR 100", "fee: EUR 100", "z.txt"),
        ("EUR 120", "fee: EUR 120", "a.txt"),
    ]
    assert not queried("SELECT FROM answers.deals_effective WHERE doubt IS NOT NULL")
    families = queried("SELECT DISTINCT family FROM answers.deals_effective ORDER BY 1")
    assert [row["family"] for row in families] == ["AB-12/7", "AB-12/8", None]


def doubts(name: str) -> list[object]:
    rows = queried("SELECT document, doubt FROM answers.deals_effective WHERE item = 'fee'")
    return [row["doubt"] for row in rows if row["document"] == name]


def test_an_uncertain_order_is_said(pipeline: Pipeline) -> None:
    undated = SECOND.replace("effective date: 2023-06-01\n", "")
    same = SECOND.replace("2023-06-01", "2022-06-01")
    analyze(pipeline, {"b": BASE, "f": FIRST, "s": same})

    assert doubts("b") == [None]
    assert doubts("f") == doubts("s") == ["same date"]
    analyze(pipeline, {"u": undated})
    assert doubts("b") == doubts("u") == ["no date"]


def test_decisions_on_entities_link_documents(pipeline: Pipeline) -> None:
    other = FIRST.replace("ab 12/7", "twelve of seven")
    analyze(pipeline, {"b": BASE, "f": other})
    assert in_force("2024-01-01")[0] == ("b", "fee", "EUR 100")

    output_of("entities", "deals.file_number")
    output_of("entities", "deals.file_number", "--merge", "AB-12/7", "twelve of seven")

    replaced = queried("SELECT document FROM answers.deals_effective WHERE replaced_by = 'f'")
    assert {row["document"] for row in replaced} == {"b"}


def test_a_table_keeps_its_family_until_it_is_pruned(pipeline: Pipeline) -> None:
    analyze(pipeline, {"b": BASE})
    analyze(pipeline, {"f": FIRST}, family="")
    assert in_force("2024-01-01")[0] == ("f", "fee", "EUR 120")

    output_of("tables", "deals", "--prune")

    assert "deals_effective" not in output_of("tables").out


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("number, from: date", "named by “file number”, which is not asked for"),
        ("file number, fee", "Documents of a family need a date"),
    ],
)
def test_a_family_needs_a_key_and_a_date(items: str, message: str, tmp_path: object) -> None:
    error = output_of(
        *("analyze", f"{tmp_path}", "--items", items, "--family", "file number", "--yes"),
        code=ExitCode.USAGE,
    )

    assert message in error.err
