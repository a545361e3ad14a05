"""Tests of the measurements of docs/quality.md: intervals, baselines and absent corpora."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from benchmarks import certification, quality


def test_correct_answers_are_accepted_after_few_checks() -> None:
    answers = [
        certification.Known(unit=unit, score=place / 500, claim=0.9, is_right=unit == "party")
        for unit in ("party", "term")
        for place in range(500)
    ]

    found = certification.accepted(answers, Random(1))  # noqa: S311 - statistics, not secrets

    assert (found.unseen_wrong, found.is_broken) == (0, False)
    assert found.unseen > 250
    assert found.checks + found.unseen < 1000


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

    found = quality.table(quality.measured(tmp_path, ["papers", "speeches"]))

    assert "| `papers` | right label of 2 | 3 | 1.00 | 0.44 to 1.00 | majority 0.67," in found
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
