"""`chordwise runs`: the list of runs, and the details of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy.orm import Session

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AnyRun, AsJson
from chordwise.domain.number_formats import counted, share
from chordwise.domain.states import JobStatus
from chordwise.pipeline.runs import accounts, progress
from chordwise.pipeline.runs.accounts import JobLine, caps_of_run
from chordwise.pipeline.runs.progress import Progress
from chordwise.rendering import accounts as rendered_accounts
from chordwise.rendering import layouts, live
from chordwise.rendering.accounts import MAX_FAILURES, UNLIMITED
from chordwise.rendering.layouts import FirstThatFits
from chordwise.rendering.plain_text import EXTRACTIVE, local_time, one_line
from chordwise.rendering.screen import Screen
from chordwise.storage import deliveries
from chordwise.storage import runs as stored_runs
from chordwise.storage.deliveries import DeliveryLine, DeliveryStatus


def runs(
    invocation: Invocation,
    run: AnyRun = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="The number of runs to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest runs, or show one run in detail.

    chordwise runs

    chordwise runs latest --json
    """
    with access.read(access.reach(invocation)) as session:
        if run is not None:
            _show(session, invocation.screen, run, as_json=as_json)
            return
        found = accounts.newest(session, limit)
    if as_json:
        invocation.screen.write_json(runs=found)
    elif found:
        invocation.screen.show(rendered_accounts.table(found))
    else:
        invocation.screen.info("There are no runs yet. Start one with: chordwise analyze PATH")


MAX_JOBS = 50


def _show(session: Session, screen: Screen, name: str, *, as_json: bool) -> None:
    """Show the details of the run with this name or id."""
    run_id = stored_runs.find(session, name).id
    account = accounts.of_run(session, run_id)
    limit = UNLIMITED if as_json else MAX_FAILURES
    failed = accounts.failures(session, account.run, limit)
    noticed = accounts.notices(session, run_id, limit)
    counts = progress.read(session, run_id)
    caps = caps_of_run(session, run_id)
    listed = accounts.jobs_of_run(session, run_id, UNLIMITED if as_json else MAX_JOBS)
    owed = deliveries.of_run(session, run_id)
    if as_json:
        screen.write_json(
            run=account,
            usage=counts.calls,
            budgets=caps,
            batches=counts.batches,
            jobs=listed,
            failures=failed,
            notices=noticed,
            deliveries=owed,
        )
        return
    screen.show(rendered_accounts.heading(account), *rendered_accounts.render(account))
    screen.show(usage(counts), *rendered_accounts.budget_lines(caps))
    screen.show(*live.batch_lines(counts.batches), job_table(listed, counts.jobs.total))
    screen.show(*delivery_lines(owed), *rendered_accounts.failures(failed))
    screen.show(*rendered_accounts.notices(noticed))


_ERROR_WIDTH = 300
_NUMBERS = ("Chunks", "Confidence", "Coverage")
_COLUMNS = ("Document", "Type", "Status", *_NUMBERS)


def usage(progress: Progress) -> RenderableType:
    """Return the cost of a run, its last error, and whether the built-in model answered."""
    lines = [Text(f"Usage    {live.spent(progress)}")]
    if progress.last_error and not progress.is_over:
        error = f"Error    the last call failed: {one_line(progress.last_error, _ERROR_WIDTH)}"
        lines.append(Text(error, style="yellow"))
    if progress.calls.extractive:
        lines.append(Text(EXTRACTIVE, style="yellow"))
    return Group(*lines)


def job_table(found: Sequence[JobLine], total: int) -> RenderableType:
    """Return one row for each job; `total` is the number of all jobs."""
    rest = [_row(job) for job in found]
    names = [job.source for job in found]
    whole = [[one_line(name), *row] for name, row in zip(names, rest, strict=True)]
    short = [[name, *row] for name, row in zip(layouts.shortened(names, room=0), rest, strict=True)]
    table = FirstThatFits(
        layouts.table(_COLUMNS, whole, right=_NUMBERS),
        layouts.folded(_COLUMNS, short, whole=_COLUMNS[1:], right=_NUMBERS),
    )
    if total <= len(found):
        return table
    return Group(table, Text(f"… and {total - len(found):,} more jobs.", style="dim"))


def _row(job: JobLine) -> list[str | Text]:
    """Return the cells after the document."""
    style = "" if job.status in (JobStatus.SUCCEEDED, JobStatus.RUNNING) else "yellow"
    status = Text(job.status, style=style)
    if job.reused:
        status.append(" (reused)", style="dim")
    return [
        job.analysis_type,
        status,
        "–" if job.chunks is None else f"{job.chunks_done}/{job.chunks}",
        "–" if job.confidence is None else f"{job.confidence:.2f}",
        "–" if job.coverage is None else share(job.coverage),
    ]


def delivery_lines(found: Sequence[DeliveryLine]) -> Iterator[Text]:
    """Return a line for each delivery."""
    for line in found:
        style = "red" if line.status == DeliveryStatus.FAILED else ""
        yield Text(f"Delivery {' · '.join(_parts(line))}", style=style)


def _parts(line: DeliveryLine) -> Iterator[str]:
    yield f"{line.kind} of {line.event}"
    yield line.status
    yield counted(line.attempts, "attempt")
    if line.status == DeliveryStatus.PENDING:
        yield f"next {local_time(line.due_at)}"
    if line.last_error:
        yield one_line(line.last_error)
