"""Tests of the measurements of docs/quality.md: intervals, baselines and absent corpora."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from benchmarks import quality


def test_correct_answers_are_accepted_after_few_checks() -> None:
    """One field is always correct; of the other field nothing can be accepted."""
    answers = [
        quality.Known(unit=unit, score=place / 500, claim=0.9, is_right=unit == "party")
        for unit in ("party", "term")
        for place in range(500)
    ]

    found = quality.accepted(answers, Random(1))  # noqa: S311 - statistics, not secrets

    assert (found.unseen_wrong, found.is_broken) == (0, False)
    assert found.unseen > 250
    assert found.checks + found.unseen < 1000


def test_a_folder_is_measured_and_an_absent_one_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any folder with labels is a classification; the table includes the baselines."""
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
