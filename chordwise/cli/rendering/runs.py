"""The jobs of a run and what they cost, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from chordwise.cli.rendering import fitting, live, sources
from chordwise.cli.rendering.fitting import FirstThatFits
from chordwise.cli.rendering.plain_text import one_line
from chordwise.cli.rendering.words import EXTRACTIVE, share
from chordwise.domain.states import JobStatus
from chordwise.pipeline.runs.accounts import JobLine
from chordwise.pipeline.runs.progress import Progress

_TROUBLE_WIDTH = 300
_NUMBERS = ("Chunks", "Confidence", "Coverage")
_COLUMNS = ("Document", "Type", "Status", *_NUMBERS)


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
    rest = [_row(job) for job in found]
    names = [job.source for job in found]
    whole = [[Text(one_line(name)), *row] for name, row in zip(names, rest, strict=True)]
    shortened = sources.shortened(names, room=0)
    short = [[name, *row] for name, row in zip(shortened, rest, strict=True)]
    table = FirstThatFits(
        fitting.table(_COLUMNS, whole, right=_NUMBERS),
        fitting.folded(_COLUMNS, short, whole=_COLUMNS[1:], right=_NUMBERS),
    )
    if total <= len(found):
        return table
    return Group(table, Text(f"… and {total - len(found):,} more jobs.", style="dim"))


def _row(job: JobLine) -> list[Text]:
    """Return all that stands beside the document."""
    return [
        Text(job.analysis_type),
        _status(job),
        Text("–" if job.chunks is None else f"{job.chunks_done}/{job.chunks}"),
        Text("–" if job.confidence is None else f"{job.confidence:.2f}"),
        Text("–" if job.coverage is None else share(job.coverage)),
    ]


def _status(job: JobLine) -> Text:
    style = "" if job.status in (JobStatus.SUCCEEDED, JobStatus.RUNNING) else "yellow"
    status = Text(job.status, style=style)
    if job.reused:
        status.append(" (reused)", style="dim")
    return status
