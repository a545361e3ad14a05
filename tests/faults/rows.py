"""The rows of experiments: on the terminal, in a file under `build/`, and in a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fakes.processes import ROOT

FILE = ROOT / "build" / "fault-experiments.jsonl"
_HEAD = ("experiment", "injected", "verdict", "seconds", "bound", "extra calls", "notes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The result of an experiment.

    `seconds` is the time from the end of the fault to the end of the run; `bound_seconds` is the
    guaranteed time, with the work as measured without a fault, including a process start.
    """

    id: str
    injected: str
    verdict: str
    seconds: float
    bound_seconds: float
    extra_calls: int
    notes: str = ""
    seed: int | None = None
    date: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        seed = "" if self.seed is None else f"seed {self.seed}"
        return (
            self.id,
            self.injected,
            _plain(self.verdict, self.seconds, self.bound_seconds),
            f"{self.seconds:.1f}",
            f"{self.bound_seconds:.1f}",
            str(self.extra_calls),
            ", ".join(filter(None, (self.notes, seed))),
        )


def append(row: Row, file: Path = FILE) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as output:
        output.write(json.dumps(asdict(row)) + "\n")


def read(file: Path = FILE) -> list[Row]:
    """Return the latest row of each experiment, ordered by id."""
    rows = [Row(**json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    return [row for _, row in sorted({row.id: row for row in rows}.items())]


def plain_table(rows: Iterable[Row]) -> list[str]:
    cells = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def markdown_table(rows: Iterable[Row], before: str = "") -> str:
    """Return a Markdown table; rows of the table `before` are kept unless replaced.

    Delete a row by hand if its experiment was renamed.
    """
    cells = _cells_of(before) | {row.id: row.cells() for row in rows}
    lines = [_HEAD, ("---",) * len(_HEAD), *(line for _, line in sorted(cells.items()))]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _plain(verdict: str, seconds: float, bound_seconds: float) -> str:
    """Return the verdict, and whether the bound was exceeded."""
    return "holds, slower" if verdict == "holds" and seconds > bound_seconds else verdict


def _cells_of(table: str) -> dict[str, tuple[str, ...]]:
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    cells_by_name = {}
    for line in lines:
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        cells[2] = _plain(cells[2], float(cells[3]), float(cells[4]))
        cells_by_name[cells[0]] = tuple(cells)
    return cells_by_name


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
