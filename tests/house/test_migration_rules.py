"""Tests of the rules by which old and new code work with the same database during a migration.

docs/decisions/0011-schema-compatibility.md gives the reasons.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from chordwise.domain.analysis_tasks import AnalysisOptions, question_of
from tests.house.checkout import ROOT

ARRAY = re.compile(r"\boptions::jsonb - ARRAY\[([^\]]*)\]")
QUOTED = re.compile(r"'(\w+)'")
FIRST = "0001"
REMOVING = ("drop_column", "drop_table", "drop_constraint", "alter_column", "rename_table")
GOOD = """
revision, down_revision, works_from = "0006", "0005", "0004"
def upgrade():
    op.add_column("jobs", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("note", sa.Text(), nullable=True))
def downgrade():
    op.drop_column("jobs", "priority")
"""
BAD = {
    "no works_from": 'revision = "0006"\ndef upgrade(): pass',
    "later than itself": 'revision, works_from = "0006", "0007"\ndef upgrade(): pass',
    "earlier than before": 'revision, works_from = "0006", "0003"\ndef upgrade(): pass',
    "neither null nor a default": GOOD.replace(' server_default="0",', ""),
    "removes": GOOD.replace("def downgrade", "def also_upgrade"),
    "depends on the code": f"from chordwise.storage import jobs\n{GOOD}",
}


def values(tree: ast.Module) -> dict[str, str]:
    """Return the strings that a module assigns to names."""
    assigned: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            (target,), value = node.targets, node.value
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            elements = value.elts if isinstance(value, ast.Tuple) else [value]
            pairs = zip(names, elements, strict=False)
            assigned |= {
                name.id: text.value
                for name, text in pairs
                if isinstance(name, ast.Name)
                and isinstance(text, ast.Constant)
                and isinstance(text.value, str)
            }
    return assigned


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a revision by their last name, except those of its downgrade."""
    kept = [node for node in tree.body if getattr(node, "name", "") != "downgrade"]
    for node in (inner for outer in kept for inner in ast.walk(outer)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def added_columns(tree: ast.Module) -> Iterator[set[str]]:
    """Yield how each column added to an existing table allows rows without it."""
    for name, call in calls(tree):
        if name == "add_column":
            column = call.args[1]
            assert isinstance(column, ast.Call)
            yield {
                str(word.arg)
                for word in column.keywords
                if word.arg == "server_default"
                or (word.arg == "nullable" and getattr(word.value, "value", False))
            }


def problems(source: str, works_from_before: str) -> list[str]:
    """Return the violations of a revision whose predecessor has this `works_from`."""
    tree = ast.parse(source)
    constants = values(tree)
    oldest, revision = constants.get("works_from"), constants["revision"]
    if oldest is None:
        return ["no works_from"]
    faults = []
    if oldest > revision:
        faults.append("later than itself")
    if oldest < works_from_before:
        faults.append("earlier than before")
    if any(not how for how in added_columns(tree)):
        faults.append("neither null nor a default")
    if any(name in REMOVING for name, _ in calls(tree)) and oldest <= works_from_before:
        faults.append("removes")
    if depends_on_the_code(tree):
        faults.append("depends on the code")
    return faults


def depends_on_the_code(tree: ast.Module) -> bool:
    """Return whether a module imports from the library, which changes while a revision must not."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return any(str(node.module).startswith("chordwise") for node in imports)


def revisions() -> list[Path]:
    return sorted((ROOT / "migrations" / "versions").glob("*.py"))


def test_every_revision_keeps_the_rules() -> None:
    """Each declares the versions that it works with, and its changes are compatible with them."""
    before, faults = FIRST, {}
    for file in revisions():
        source = file.read_text("utf-8")
        faults[file.name] = problems(source, before)
        before = values(ast.parse(source))["works_from"]

    assert faults
    assert {name: wrong for name, wrong in faults.items() if wrong} == {}


def test_the_tables_of_the_first_revision_do_not_depend_on_the_code() -> None:
    """They are defined in a separate module."""
    tables = ROOT / "migrations" / "first_tables.py"

    assert not depends_on_the_code(ast.parse(tables.read_text("utf-8")))


def test_a_revision_may_add_columns() -> None:
    """Columns that are nullable or have a default can be added while processes run."""
    assert problems(GOOD, "0004") == []


@pytest.mark.parametrize("name", BAD)
def test_a_violation_is_found(name: str) -> None:
    assert problems(BAD[name], "0004") == [name]


def test_revisions_sort_by_their_numbers() -> None:
    """Revisions are compared as strings, so each has four digits and equals its file name."""
    for file in revisions():
        constants = values(ast.parse(file.read_text("utf-8")))
        assert constants["revision"] == file.stem
        assert len(file.stem) == len(FIRST)
        assert file.stem.isdecimal()


def test_views_compare_questions_by_the_same_options_as_the_code() -> None:
    """A view that keeps an option of which the question is independent finds no feedback."""
    names = {field.name for field in fields(AnalysisOptions)}
    left_out = names - set(question_of(dict.fromkeys(names)))
    arrays = [
        (view.name, set(QUOTED.findall(array)))
        for view in (ROOT / "migrations" / "views").glob("*.sql")
        for array in ARRAY.findall(view.read_text("utf-8"))
    ]

    assert arrays
    assert [(view, options) for view, options in arrays if options != left_out] == []
