"""Tables and reports: Write plots of speed, quality and cost to an HTML file."""

from __future__ import annotations

from typing import Annotated

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Force, Out
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import DeliveryEvent
from chordwise.pipeline.exports import writers
from chordwise.web.pages import insight as page


def insight(
    invocation: Invocation,
    out: Out,
    *,
    days: Annotated[
        int, typer.Option(min=1, max=page.MAX_DAYS, help="The number of days to show.")
    ] = page.DEFAULT_DAYS,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write plots of speed, quality and cost to an HTML file. The file is self-contained.

    chordwise insight --out insight.html
    """
    writers.check(out, overwrite=force)
    with access.read(access.reach(invocation)) as session:
        html, totals = page.report(session, days)
    with writers.new_file(out, overwrite=force) as sink:
        sink.write(html.encode())
    summary: JsonObject = {"file": str(out.absolute()), "totals": totals}
    if invocation.occurrence is not None:
        invocation.occurrence.record(summary, DeliveryEvent.REPORT_WRITTEN)
    if as_json:
        invocation.screen.write_json(**summary)
    else:
        invocation.screen.info(f"Wrote the plots of the last {days} days to {out}.")
