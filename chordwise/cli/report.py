"""`chordwise report`: plots of speed, quality and cost in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Force
from chordwise.pipeline.exports import writers
from chordwise.web import report as pages


def report(
    invocation: Invocation,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    *,
    days: Annotated[
        int, typer.Option(min=1, max=pages.MAX_DAYS, help="The number of days to show.")
    ] = pages.DEFAULT_DAYS,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write plots of speed, quality and cost to an HTML file. The file is self-contained.

    chordwise report --out report.html
    """
    writers.check(out, overwrite=force)
    with access.read(access.reach(invocation)) as session:
        html, totals = pages.page(session, days)
    with writers.new_file(out, overwrite=force) as sink:
        sink.write(html.encode())
    if as_json:
        invocation.screen.write_json(file=str(out), totals=totals)
    else:
        invocation.screen.info(f"Wrote the report of the last {days} days to {out}.")
