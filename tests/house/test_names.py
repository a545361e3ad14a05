"""Tests that a name of a file or a public class means one thing, and a value has a noun."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from tests.house.checkout import PACKAGES, ROOT, modules

# Nouns that name a file in each layer that has to do with them.
NOUNS = """
accounts answer_tables answers ask batches budgets certification classification critique doctor
entities experiments extraction feedback inbox insight jobs judgments learned_examples leases
night_report prompts
quote refresh results review runs schedules sentiment sql summary tokens
"""
# Providers of models, and parts that each process or program has.
PARTS = "anthropic application openai process"
# Rows of tables, with the values that are stored in them or that the Python client returns.
ROWS = {"Fact", "Judgment", "LearnedExample", "Result", "Run"}
# Pronouns, which do not say what a value is.
PRONOUNS = {"asked", "each", "found", "given", "named", "own", "wanted"}


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


def test_variables_and_parameters_are_not_named_by_pronouns() -> None:
    """Fields are excepted, since their names are those of columns and of published JSON."""
    places = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in modules(*PACKAGES)
        for name, line in names_of_values(ast.parse(file.read_text("utf-8")))
        if name in PRONOUNS
    ]

    assert places == []


def names_of_values(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the name and line of each variable and parameter, without the fields of classes."""
    nodes = list(ast.walk(tree))
    statements = (part for node in nodes if isinstance(node, ast.ClassDef) for part in node.body)
    fields = {part.target for part in statements if isinstance(part, ast.AnnAssign)}
    for node in nodes:
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields:
            yield node.id, node.lineno
