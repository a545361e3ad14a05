"""Tests of the recorded rows and of the table in results.md."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import report, rows
from tests.faults.rows import Row

ROW = Row(
    id="P01",
    injected="kill | pipe",
    verdict="holds",
    seconds=5.04,
    bound_seconds=9.6,
    extra_calls=1,
    seed=7,
    date="2026-11-24",
)


def test_the_latest_row_of_an_experiment_is_used(tmp_path: Path) -> None:
    file = tmp_path / "build" / "rows.jsonl"
    for row in (replace(ROW, id="R01"), ROW, replace(ROW, seconds=6.0)):
        rows.append(row, file)

    assert rows.read(file) == [replace(ROW, seconds=6.0), replace(ROW, id="R01")]


def test_the_table_is_replaced_between_the_markers() -> None:
    """The rest of the page is unchanged, and a bar in a cell is escaped."""
    page = f"before\n{report.BEGIN}\nyesterday\n{report.END}\nafter\n"

    written = report.written(page, [ROW])

    assert written.startswith(f"before\n{report.BEGIN}\n\nMeasured 2026-11-24")
    assert written.endswith(f"{report.END}\nafter\n")
    assert "| P01 | kill \\| pipe | holds | 5.0 | 9.6 | 1 | seed 7 |" in written
    assert "yesterday" not in written


def test_rows_that_were_not_measured_again_are_kept() -> None:
    """One experiment keeps the rows of the others and the date of the first run."""
    page = report.written(f"{report.BEGIN}\n{report.END}", [ROW, replace(ROW, id="R01")])

    written = report.written(page, [replace(ROW, seconds=6.0, date="2026-11-26")])

    assert "Measured 2026-11-24 to 2026-11-26." in written
    assert "| P01 | kill \\| pipe | holds | 6.0 | 9.6 | 1 | seed 7 |" in written
    assert "| R01 | kill \\| pipe | holds | 5.0 | 9.6 | 1 | seed 7 |" in written


def test_a_row_above_its_bound_is_marked_as_slower() -> None:
    """A row within the tolerance passes, but is marked as slower."""
    page = report.written(f"{report.BEGIN}\n{report.END}", [replace(ROW, seconds=9.7)])

    assert "| holds, slower | 9.7 | 9.6 |" in page
    old = page.replace("holds, slower", "holds")
    assert "| holds, slower | 9.7 | 9.6 |" in report.written(old, [replace(ROW, id="R01")])
    assert "| I1 | 9.7 |" in report.written(old, [replace(ROW, verdict="I1", seconds=9.7)])


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the lines"):
        report.written("a page", [ROW])


_PLANNED = {"D": 7, "F": 12, "L": 10, "P": 10, "R": 8, "S": 5}
_BEGUN = re.compile(r"""begin\(\s*(?:\w+, experiment, )?f?"([A-Z]\d\d[^"]*)\"""")
_ROW = re.compile(r"(?m)^\| ([A-Z]\d\d(?: [^|]*)?) \| .* \| holds(?:, slower)? \| [\d.]+ \|")


def test_every_experiment_has_a_row_that_holds() -> None:
    """This includes each experiment that a test begins, whatever its parameters."""
    table = report.PAGE.read_text("utf-8").partition(report.BEGIN)[2].partition(report.END)[0]
    listed = _ROW.findall(table)
    tests = "".join(file.read_text("utf-8") for file in Path(__file__).parent.glob("test_*.py"))

    planned = {f"{kind}{n:02}" for kind, count in _PLANNED.items() for n in range(1, count + 1)}
    measured = {name for row in listed for name in re.findall(r"[A-Z]\d\d", row)}
    begun = (re.split(r"\{[^}]*\}", name) for name in _BEGUN.findall(tests))
    patterns = {".+".join(map(re.escape, parts)) for parts in begun}
    assert planned - measured == set()
    assert [
        pattern for pattern in patterns if not any(re.fullmatch(pattern, row) for row in listed)
    ] == []
