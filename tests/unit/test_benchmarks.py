"""Tests of the benchmarks that measure the quality of answers."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from benchmarks import certification, evidence, learned_examples, quality, quotes
from chordwise.domain.json_values import JsonObject


def test_correct_answers_are_accepted_after_few_checks() -> None:
    answers = [
        certification.Known(unit=unit, score=place / 500, claim=0.9, is_right=unit == "party")
        for unit in ("party", "term")
        for place in range(500)
    ]

    result = certification.accepted(answers, Random(1))  # noqa: S311 - statistics, not secrets

    assert (result.unseen_wrong, result.is_broken) == (0, False)
    assert result.unseen > 250
    assert result.checks + result.unseen < 1000


def test_a_folder_is_measured_and_an_absent_one_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = [
        {"text": "The lease of the flat ends in May.", "label": "lease"},
        {"text": "Invoice: the total is due.", "label": "invoice"},
        {"text": "This invoice is unpaid.", "label": "invoice"},
    ]
    (tmp_path / "papers").mkdir()
    lines = "".join(f"{json.dumps(truth)}\n" for truth in truths)
    (tmp_path / "papers" / "labels.jsonl").write_text(lines, "utf-8")

    table = quality.table(quality.measured(tmp_path, ["papers", "speeches"]))

    assert "| `papers` | right label of 2 | 3 | 1.00 | 0.44 to 1.00 | majority 0.67," in table
    assert capsys.readouterr().err == "corpus speeches is absent\n"


def test_fields_of_receipts_are_compared_by_words_and_numbers(tmp_path: Path) -> None:
    """A currency does not matter; a value that is not found is wrong."""
    truths = [
        {"text": "CAFE LUNA\nTOTAL RM 12.00", "fields": {"company": "Cafe Luna", "total": "12.00"}},
        {"text": "KIOSK 7\nTOTAL 3.50", "fields": {"company": "Station Shop", "total": "3.50"}},
    ]
    (tmp_path / "receipts").mkdir()
    lines = "".join(f"{json.dumps(truth)}\n" for truth in truths)
    (tmp_path / "receipts" / "labels.jsonl").write_text(lines, "utf-8")

    company, total = quality.measured(tmp_path, ["receipts"])

    assert (company.measure, company.value, company.count) == ("company: right value", 0.5, 2)
    assert (total.measure, total.value) == ("total: right value", 1.0)


def test_missing_rows_are_reported_and_complete_lists_are_not() -> None:
    rows: list[JsonObject] = [
        {"text": f"The part of number {number} is here", "label": "part"} for number in range(40)
    ]

    told, whole = evidence.by_lists("parts", rows, Path())

    assert (told.count, told.value) == (8, 1.0)
    assert (whole.count, whole.value) == (4, 1.0)


def test_short_lists_are_detected_as_incomplete() -> None:
    rows: list[JsonObject] = [
        {"text": f"send me part {number}", "label": "part_order"} for number in range(8)
    ]

    *told, whole = evidence.by_short_lists("parts", rows, Path())

    assert [row.count for row in told] == [4, 4, 4]
    assert [row.value for row in told] == [1.0, 1.0, 1.0]
    assert (whole.count, whole.value) == (4, 1.0)


def test_a_list_from_prose_is_complete() -> None:
    text = "On May 3, 1999 it opened. It was closed on 4/7/2001, and sold on June 1, 2002, at last."

    (row,) = evidence.by_prose("prose", [{"text": text}], Path())

    assert (row.count, row.value) == (1, 1.0)


def test_examples_in_the_prompt_improve_the_labels(tmp_path: Path) -> None:
    rows = [
        {"text": f"Note {number}: {words} and more.", "label": label}
        for number in range(30)
        for words, label in (("boats leave the harbour", "alpha"), ("cows eat the grass", "beta"))
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "labels.jsonl").write_text(lines, "utf-8")

    documents = learned_examples.documents_in(tmp_path)
    without, with_some = learned_examples.measured("notes", documents, (0, 20))

    assert without[0].count == with_some[0].count == len(rows)
    assert without[0].value < 0.9
    assert with_some[0].value > 0.9
    assert with_some[1] > without[1]
    assert "| `notes` | 20 | 60 | 1.00 | 0.94 to 1.00 |" in learned_examples.table([with_some])


TEXT = """
The tenant shall pay a rent of $1,250.00 to the landlord within 30 days after the end of a month.
The landlord shall not raise the rent by more than 5% before March 1, 2030 without giving a reason.
"""


def test_true_and_false_quotes_and_values_are_distinguished() -> None:
    table = quotes.table([TEXT])

    rows = [line.split(" | ") for line in table.splitlines()[2:] if "| tier" not in line]
    assert {row[2] for row in rows} == {"1.000"}
    assert {row[0].split(": ")[0].strip("| ") for row in rows} == {
        "true quote found",
        "false quote refused",
        "right value accepted",
        "wrong value refused",
    }
    assert int(rows[-1][1]) > 10
