"""Tests of hints for unknown names."""

from __future__ import annotations

import pytest

from chordwise.domain import identifiers


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("contract", "Did you mean “contracts”? Known: contracts, invoices."),
        ("CONTRATCS", "Did you mean “contracts”? Known: contracts, invoices."),
        ("voice", "Did you mean “invoices”? Known: contracts, invoices."),
        ("letters", "Known: contracts, invoices."),
        ("", "Known: contracts, invoices."),
    ],
)
def test_an_unknown_name_has_a_hint_with_the_one_that_was_meant(name: str, hint: str) -> None:
    assert identifiers.known_names(name, ["contracts", "invoices"]) == hint
