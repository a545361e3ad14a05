"""Tests that a file name, or the name of a public class, means one thing."""

from __future__ import annotations

import ast
from collections import Counter

from tests.house.checkout import PACKAGES, modules

# Nouns that name a file in each layer that has to do with them.
NOUNS = """
accounts answer_tables answers budgets certification classification critique doctor
experiments extraction feedback inbox insight judgments learned_examples leases models night_report
prompts
quote refresh results review runs schedules sentiment sql summary
"""
# Providers of models, and parts that each process or program has.
PARTS = "anthropic application openai process"
# Rows of tables, with the values that are stored in them or that the Python client returns.
ROWS = {"Fact", "Judgment", "LearnedExample", "Result", "Run"}


def test_names_of_files_are_unique_or_alike_on_purpose() -> None:
    names = Counter(file.stem for file in modules(*PACKAGES) if not file.stem.startswith("__"))

    assert {name for name, n in names.items() if n > 1} == {*NOUNS.split(), *PARTS.split()}


def test_names_of_public_classes_are_unique() -> None:
    """Except for the values and rows of the same noun."""
    names = Counter(
        node.name
        for file in modules(*PACKAGES)
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )

    assert {name for name, n in names.items() if n > 1} == ROWS
