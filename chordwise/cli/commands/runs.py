"""Runs: List the newest runs, or show one run in detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from psycopg import Connection
from rich.console import Group, RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AnyRun, AsJson
from chordwise.domain.number_formats import counted, share
from chordwise.domain.states import DeliveryStatus, JobStatus
from chordwise.relations import accounts, progress
from chordwise.relations.jobs import jobs_of_run
from chordwise.relations.relation import Row
from chordwise.rendering import accounts as rendered_accounts
from chordwise.rendering import layouts, live
from chordwise.rendering.plain_text import PREVIEW, local_time, one_line
from chordwise.rendering.screen import Screen


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
    with access.reading(access.reach(invocation)) as connection:
        if run is not None:
            _show(connection, invocation.screen, run, as_json=as_json)
            return
        newest = accounts.newest(connection, limit)
    if as_json:
        invocation.screen.write_json(runs=newest)
    elif newest:
        invocation.screen.show(rendered_accounts.table(newest))
    else:
        invocation.screen.info("There are no runs yet. Start one with: chordwise analyze PATH")


MAX_JOBS = 50


def _show(connection: Connection, screen: Screen, name: str, *, as_json: bool) -> None:
    run_id = accounts.find(connection, name)["id"]
    of_run = {"run_id": run_id}
    account = accounts.of_run(connection, run_id)
    limit = rendered_accounts.UNLIMITED if as_json else rendered_accounts.MAX_FAILURES
    failures = accounts.failures(connection, account.run, limit)
    notices = accounts.NOTICES.read(connection, of_run, limit=limit)
    counts = progress.read(connection, run_id)
    budgets = accounts.BUDGETS.read(connection, of_run)
    jobs = jobs_of_run(connection, run_id, rendered_accounts.UNLIMITED if as_json else MAX_JOBS)
    deliveries = accounts.DELIVERIES.read(connection, of_run)
    if as_json:
        screen.write_json(
            run=account,
            usage=counts.calls,
            budgets=budgets,
            batches=counts.batches,
            jobs=jobs,
            failures=failures,
            notices=notices,
            deliveries=deliveries,
        )
        return
    screen.show(rendered_accounts.heading(account), *rendered_accounts.render(account))
    screen.show(Text(f"Usage    {live.spent(counts)}"))
    if counts.last_error and not counts.is_over:
        error = f"Error    the last call failed: {one_line(counts.last_error, _ERROR_WIDTH)}"
        screen.show(Text(error, style="yellow"))
    if counts.calls.extractive:
        screen.show(Text(PREVIEW, style="yellow"))
    screen.show(*rendered_accounts.budget_lines(budgets))
    screen.show(*live.batch_lines(counts.batches), job_table(jobs, counts.jobs.total))
    screen.show(*map(_delivery, deliveries), *rendered_accounts.failures(failures))
    screen.show(*rendered_accounts.notices(notices))


_ERROR_WIDTH = 300
_NUMBERS = ("Chunks", "Confidence", "Coverage")
_COLUMNS = ("Document", "Type", "Status", *_NUMBERS)


def job_table(jobs: Sequence[Row], total: int) -> RenderableType:
    """Return one row for each job; `total` is the number of all jobs."""
    rest = [_row(job) for job in jobs]
    names = [job["source"] for job in jobs]
    whole = [[one_line(name), *row] for name, row in zip(names, rest, strict=True)]
    short = [[name, *row] for name, row in zip(layouts.shortened(names, room=0), rest, strict=True)]
    table = layouts.FirstThatFits(
        layouts.table(_COLUMNS, whole, right=_NUMBERS),
        layouts.folded(_COLUMNS, short, whole=_COLUMNS[1:], right=_NUMBERS),
    )
    if total <= len(jobs):
        return table
    return Group(table, Text(f"… and {total - len(jobs):,} more jobs.", style="dim"))


def _row(job: Row) -> list[str | Text]:
    """Return the cells after the document."""
    style = "" if job["status"] in (JobStatus.SUCCEEDED, JobStatus.RUNNING) else "yellow"
    status = Text(job["status"], style=style)
    if job["reused"]:
        status.append(" (reused)", style="dim")
    return [
        job["analysis_type"],
        status,
        "–" if job["chunks"] is None else f"{job['chunks_done']}/{job['chunks']}",
        "–" if job["confidence"] is None else f"{job['confidence']:.2f}",
        "–" if job["coverage"] is None else share(job["coverage"]),
    ]


def _delivery(delivery: Row) -> Text:
    status, attempts = delivery["status"], counted(delivery["attempts"], "attempt")
    line = f"Delivery {delivery['kind']} of {delivery['event']} · {status} · {attempts}"
    if status == DeliveryStatus.PENDING:
        line += f" · next {local_time(delivery['due_at'])}"
    if delivery["last_error"]:
        line += f" · {one_line(delivery['last_error'])}"
    return Text(line, style="red" if status == DeliveryStatus.FAILED else "")
