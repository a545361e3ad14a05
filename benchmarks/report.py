"""The measured values with their bounds, as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MISSED = "**missed**"
GROUPS = ("worker", "scheduler", "postgres", "valkey", "supervisor", "command-server", "command")


@dataclass(frozen=True, slots=True)
class Bound:
    """A required bound and a goal; upper bounds, unless `at_least`."""

    what: str
    must: float
    goal: float
    unit: str = ""
    at_least: bool = False

    def verdict(self, measured: float) -> str:
        """Return the stricter of goal and bound that the value meets, or `MISSED`."""
        for limit, word in ((self.goal, "goal"), (self.must, "must")):
            if measured >= limit if self.at_least else measured <= limit:
                return word
        return MISSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Measured calls: `seconds` is the time from the first request to the last response.

    `share` is the share of the ideal throughput; `cpu` is in seconds, by group of processes.
    """

    row: str
    name: str
    calls: int
    seconds: float
    share: float
    peak: int
    cpu: dict[str, float]
    worker_megabytes: float = 0.0

    @property
    def cpu_per_call(self) -> float:
        """CPU of all processes, in milliseconds."""
        return 1000 * sum(self.cpu.values()) / self.calls


@dataclass(slots=True, kw_only=True)
class Report:
    """All measurements, in order: the row, the bound, the value, and a note on it."""

    heading: str
    measurements: list[tuple[str, Bound, float, str]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def misses(self) -> list[str]:
        """Return the names of the values that missed their required bound."""
        return [
            bound.what for _, bound, value, _ in self.measurements if bound.verdict(value) == MISSED
        ]

    def markdown(self) -> str:
        """Return the tables."""
        parts = [self.heading, self._bounds()]
        if self.runs:
            parts.append(self._runs())
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts)

    def _bounds(self) -> str:
        rows = []
        for row, bound, value, note in self.measurements:
            sign = "≥" if bound.at_least else "≤"
            limits = [f"{sign} {number(limit)}" for limit in (bound.must, bound.goal)]
            measured = f"{number(value)} {bound.unit}"
            rows.append([row, bound.what, *limits, measured, bound.verdict(value), note])
        return table(["row", "measure", "must", "goal", "measured", "reached", "note"], rows)

    def _runs(self) -> str:
        head = ["row", "program", "calls", "seconds", "share of ideal", "peak", "CPU ms per call"]
        rows = []
        for run in self.runs:
            parts = [
                f"{name} {number(1000 * run.cpu[name] / run.calls)}"
                for name in GROUPS
                if name in run.cpu
            ]
            whole = f"{number(run.cpu_per_call)}{' = ' if len(parts) > 1 else ''}"
            memory = f"{run.worker_megabytes:.0f}" if run.worker_megabytes else ""
            cells = [run.row, run.name, str(run.calls), number(run.seconds), number(run.share)]
            cpu = whole + (" + ".join(parts) if len(parts) > 1 else "")
            rows.append([*cells, str(run.peak), cpu, memory])
        return table([*head, "worker MB"], rows)


def number(value: float) -> str:
    """Return a number with three significant digits and separated thousands."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    names, *lines = (f"| {' | '.join(cell.strip() for cell in line)} |" for line in (head, *rows))
    return "\n".join([names, f"|{'---|' * len(head)}", *lines])
