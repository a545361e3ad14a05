"""Tests that no tracked file names a machine or a package index."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house.checkout import ROOT, tracked_files

# The brackets keep this file from matching its own pattern.
FOREIGN = re.compile(
    r"(?:^|[^\w.])/(?:w[o]rk|f[a]rm|U[s]ers|h[o]me/\w+)/"
    r"|/r[o]ot/"
    r"|h[o]sted\.org"
    r"|/s[i]mple[/\"]"
    r"|r[e]gistry\.np"
    r"|://[^\s/]*(?:pypi|npmjs)\.(?:o[r]g|c[o]m)"
)


def text_of(file: Path) -> str:
    """Return a file's text; the few binary files are decoded as well."""
    return file.read_bytes().decode("utf-8", "replace")


def test_no_file_names_a_machine_or_a_registry() -> None:
    """The path of this checkout may have been pasted from a terminal."""
    lines = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for file in tracked_files()
        for number, line in enumerate(text_of(file).splitlines(), start=1)
        if FOREIGN.search(line) or f"{ROOT}/" in line
    ]

    assert lines == []


def test_the_pattern_matches_each_kind_of_line() -> None:
    lines = [
        "see " + "/" + "work/main/notes",
        "cd " + "/" + "root/project",
        "--index-url https://" + "pypi" + ".org/" + "simple/",
        "https://files.python" + "host" + "ed.org/packages/x.whl",
        "file:///" + "home/somebody/x",
    ]

    assert [line for line in lines if not FOREIGN.search(line)] == []
