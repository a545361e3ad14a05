"""Tables and reports: Write what happened in a night to a Markdown file."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Force, Out
from chordwise.pipeline.exports import writers
from chordwise.pipeline.runs import night_report as report
from chordwise.storage import clock


def night_report(
    invocation: Invocation,
    out: Out,
    *,
    hours: Annotated[
        float,
        typer.Option(
            min=0.01, help="The length of the period. A schedule continues its last report."
        ),
    ] = 24,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write what happened in a night to a Markdown file.

    chordwise night-report --out night.md
    """
    writers.check(out, overwrite=force)
    occurrence = invocation.occurrence
    with access.read(access.reach(invocation)) as session:
        until = occurrence.due_at if occurrence else clock.read(session)
        before = occurrence.last_success(session) if occurrence else None
        since = before or until - timedelta(hours=hours)
        text = report.markdown(session, since, until, occurrence.schedule if occurrence else "")
    with writers.new_file(out, overwrite=force) as sink:
        sink.write(text.encode())
    if occurrence is not None:
        occurrence.record({"file": str(out.absolute())})
    if as_json:
        invocation.screen.write_json(file=str(out.absolute()), since=since, until=until)
    else:
        invocation.screen.info(f"Wrote the report since {since:%Y-%m-%d %H:%M} UTC to {out}.")
