"""Live progress: bars on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from chordwise.domain.number_formats import approximate, counted, money, span
from chordwise.relations.progress import BatchWait, Pace, Progress
from chordwise.rendering.plain_text import PREVIEW, local_time, one_line
from chordwise.rendering.screen import Screen

_LINE_SECONDS = 5.0
_BAR_WIDTH = 32
_ERROR_WIDTH = 160


class Display:
    """Shows the progress of a waiting command; this base class shows nothing."""

    def show_found(self, count: int) -> None:
        """Show the number of files found."""

    def show_intake(self, count: int, total: int, source: str) -> None:
        """Show the progress of the intake; `source` is the last document."""

    def progress(self, progress: Progress, pace: Pace) -> None:
        """Show the progress of a run."""


@contextmanager
def display(screen: Screen) -> Iterator[Display]:
    """Open the display that suits standard error, and clear it at the end."""
    console = screen.error_console
    if not console.is_terminal or console.is_dumb_terminal:
        yield ProgressLines(screen.info)
        return
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        yield Bars(live.update)


class ProgressLines(Display):
    """Prints the first and the last line, and one every few seconds in between."""

    def __init__(
        self, print_line: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._print_line = print_line
        self._clock = clock
        self._due_at = 0.0
        self._last = ""

    def show_found(self, count: int) -> None:
        """Print the number of files found, if the search takes a long time."""
        self._due_at = self._due_at or self._clock() + _LINE_SECONDS
        self._print(f"Found {counted(count, 'file')} so far", is_last=False)

    def show_intake(self, count: int, total: int, source: str) -> None:
        """Print the progress of the intake."""
        self._print(
            f"Reading documents: {count_of_found(count, total)}, last: {source}", is_last=False
        )

    def progress(self, progress: Progress, pace: Pace) -> None:
        """Print the progress of a run."""
        jobs = progress.jobs
        counts = (
            f"{jobs.documents_done:,}/{jobs.documents:,} documents · "
            f"{progress.chunks_done:,}/{progress.chunks:,} chunks"
        )
        line = f"{counts} · {spent(progress)}{_speed(progress, pace)}"
        self._print(line, is_last=progress.is_over)

    def _print(self, line: str, *, is_last: bool) -> None:
        if line == self._last or (not is_last and self._clock() < self._due_at):
            return
        self._due_at = self._clock() + _LINE_SECONDS
        self._last = line
        self._print_line(line)


class Bars(Display):
    """A bar for the documents and one for the chunks, with the costs below."""

    def __init__(self, update: Callable[[RenderableType], None]) -> None:
        self._update = update
        self._spinner = Spinner("dots")

    def show_found(self, count: int) -> None:
        """Show the number of files found."""
        self._spin(f"Found {counted(count, 'file')}")

    def show_intake(self, count: int, total: int, source: str) -> None:
        """Show the progress of the intake."""
        self._spin(f"Reading documents: {count_of_found(count, total)} · {one_line(source, 60)}")

    def progress(self, progress: Progress, pace: Pace) -> None:
        """Show the progress of a run."""
        table = Table.grid(padding=(0, 1))
        jobs = progress.jobs
        table.add_row("Documents", *_bar(jobs.documents_done, jobs.documents))
        table.add_row("Chunks", *_bar(progress.chunks_done, progress.chunks))
        summary = Text(f"{spent(progress)}{_speed(progress, pace)}", style="dim")
        lines = [Text(PREVIEW, style="yellow")] if progress.calls.extractive else []
        self._update(Group(table, summary, *lines))

    def _spin(self, text: str) -> None:
        self._spinner.update(text=Text(text))
        self._update(self._spinner)


def count_of_found(count: int, total: int) -> str:
    """Return the progress of the intake; a file counts as one document until it is read."""
    return f"{count:,} of {max(count, total):,}"


def spent(progress: Progress) -> str:
    """Return the calls, tokens and cost of a run so far."""
    calls = progress.calls
    cost = money(calls.cost_usd, calls.unpriced, calls.total)
    return f"{counted(calls.total, 'call')} · {approximate(calls.tokens)} tokens · {cost}"


def _bar(done: int, total: int) -> tuple[RenderableType, Text]:
    bar = ProgressBar(total=total or 1, completed=done, width=_BAR_WIDTH)
    return bar, Text(f"{done:,}/{total:,}")


def _speed(progress: Progress, pace: Pace) -> str:
    parts = []
    if speed := pace.documents_per_minute():
        parts.append(f"{speed:.3g} documents/min")
    remaining = pace.remaining()
    if remaining is not None and not progress.is_over:
        parts.append(f"about {span(remaining)} left")
    if progress.jobs.failed:
        parts.append(f"{progress.jobs.failed:,} with problems")
    if progress.last_error and not progress.is_over:
        parts.append(f"the last call failed: {one_line(progress.last_error, _ERROR_WIDTH)}")
    if progress.batches and not progress.is_over:
        parts.append(in_short(progress.batches))
    elif progress.jobs.waiting and not progress.is_over:
        parts.append(f"{progress.jobs.waiting:,} waiting for the provider")
    return "".join(f" · {part}" for part in parts)


def batch_lines(waits: Sequence[BatchWait]) -> Iterator[Text]:
    """Return a line for each batch."""
    for wait in waits:
        done = f"{wait.done:,} of {wait.request_count:,} done" if wait.done else ""
        others = f"{wait.request_count:,} in all" if wait.request_count > wait.questions else ""
        remark = f" ({done or others})" if done or others else ""
        parts = [
            f"{wait.provider}/{wait.model}",
            wait.provider_id,
            wait.provider_status or wait.status,
            f"{counted(wait.questions, 'question')}{remark}",
            f"since {local_time(wait.since)}",
            f"online after {local_time(wait.until)}" if wait.until else "",
            wait.error,
        ]
        words = " · ".join(one_line(part) for part in parts if part)
        yield Text(f"Batch    {words}", style="yellow" if wait.error else "")


def in_short(waits: Sequence[BatchWait]) -> str:
    """Return the batches that a run waits for, since when, and their deadline.

    It contains clock times, so it only changes when the state changes.
    """
    out = [wait for wait in waits if wait.batch_id is not None]
    gathered = sum(wait.questions for wait in waits if wait.batch_id is None)
    parts = []
    if out:
        questions = counted(sum(wait.questions for wait in out), "question")
        since = local_time(min(wait.since for wait in out))
        noun = "1 batch" if len(out) == 1 else f"{len(out):,} batches"
        parts.append(f"{questions} in {noun} since {since}")
    if gathered:
        parts.append(f"{counted(gathered, 'question')} for the next batch")
    if deadlines := [wait.until for wait in waits if wait.until is not None]:
        parts.append(f"online after {local_time(min(deadlines))}")
    return ", ".join(parts)
