"""Tests that functions and files stay short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.house.checkout import PACKAGES, ROOT, modules

MAX_LINES_OF_A_FUNCTION = 40
MAX_LINES_OF_A_FILE = 600


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the place and the length of each function; only lists of statements are searched."""
    waiting: list[ast.AST] = [ast.parse(file.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        for blocks in ("body", "orelse", "handlers", "cases", "finalbody"):
            waiting += getattr(node, blocks, ())
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            place = f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
            yield place, node.end_lineno - node.lineno + 1


def test_functions_are_short() -> None:
    """No function fills more than a screen; this includes the tests."""
    files = modules(*PACKAGES, "benchmarks", "tests")
    lengths = [found for file in files for found in functions(file)]

    assert [(place, n) for place, n in lengths if n > MAX_LINES_OF_A_FUNCTION] == []


def test_files_are_short() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text("utf-8").splitlines())
        for file in modules(*PACKAGES, "benchmarks", "migrations")
    }

    assert {name: n for name, n in lengths.items() if n > MAX_LINES_OF_A_FILE} == {}
