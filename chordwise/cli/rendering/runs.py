"""The jobs of a run and what they cost, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chordwise.cli.rendering import live
from chordwise.cli.rendering.plain_text import one_line
from chordwise.cli.rendering.words import EXTRACTIVE, share
from chordwise.domain.states import JobStatus
from chordwise.pipeline.accounts import JobLine
from chordwise.pipeline.progress import Progress

_TROUBLE_WIDTH = 300


def usage(progress: Progress) -> RenderableType:
    """Return what a run has cost, what holds it up, and whether the built-in model answered."""
    lines = [Text(f"Usage    {live.spent(progress)}")]
    if progress.trouble and not progress.is_over:
        trouble = f"Trouble  the last call failed: {one_line(progress.trouble, _TROUBLE_WIDTH)}"
        lines.append(Text(trouble, style="yellow"))
    if progress.calls.extractive:
        lines.append(Text(EXTRACTIVE, style="yellow"))
    return Group(*lines)


def jobs(found: Sequence[JobLine], total: int) -> RenderableType:
    """Return one row for each job; `total` is how many there are."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("Document", "Type", "Status", "Chunks", "Confidence", "Coverage"):
        right = name in ("Chunks", "Confidence", "Coverage")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "Document")
    for job in found:
        table.add_row(
            Text(one_line(job.source)),
            job.analysis_type,
            _status(job),
            "–" if job.chunks is None else f"{job.chunks_done}/{job.chunks}",
            "–" if job.confidence is None else f"{job.confidence:.2f}",
            "–" if job.coverage is None else share(job.coverage),
        )
    if total <= len(found):
        return table
    return Group(table, Text(f"… and {total - len(found):,} more jobs.", style="dim"))


def _status(job: JobLine) -> Text:
    style = "" if job.status in (JobStatus.SUCCEEDED, JobStatus.RUNNING) else "yellow"
    status = Text(job.status, style=style)
    if job.reused:
        status.append(" (reused)", style="dim")
    return status
