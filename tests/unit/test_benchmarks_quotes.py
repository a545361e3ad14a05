"""Tests of the measurement of quotes and values in docs/quality.md."""

from __future__ import annotations

from benchmarks import quotes

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
