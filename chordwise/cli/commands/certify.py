"""Quality: Show which answers can be accepted without review."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, ScopeOptions
from chordwise.domain.learning.certification import (
    Certificate,
    CertificationVerdict,
    advice,
    is_worthwhile,
    outlook,
)
from chordwise.domain.number_formats import parse_share
from chordwise.errors import ExitCode
from chordwise.pipeline.learning import certification
from chordwise.pipeline.learning.scope import Scope
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line

_WIDTH = 40
_MAX_LISTED = 20
_ORDER = "Only checks in the random order of a queue count; other corrections do not."


def certify(
    invocation: Invocation,
    selected: ScopeOptions,
    *,
    max_error: Annotated[
        str,
        typer.Option(metavar="SHARE", help="Allowed share of wrong answers among the accepted."),
    ] = "2%",
    risk: Annotated[
        str, typer.Option(metavar="SHARE", help="Allowed probability of exceeding --max-error.")
    ] = "5%",
    as_json: AsJson = False,
) -> ExitCode:
    """Show which answers can be accepted without review. Uses feedback on random answers.

    chordwise certify contracts --max-error 2% --risk 5%

    chordwise review contracts --queue term
    """
    bounds = certification.Bounds(
        max_error=parse_share("--max-error", max_error), risk=parse_share("--risk", risk)
    )
    settings = invocation.settings()
    with access.database(access.reach(invocation, settings)) as database:
        with database.read() as session:
            scope = selected.find(session, settings)
        rows = certification.certify(database, scope, bounds, invocation.occurrence)
    if as_json:
        certified = [{**row, "to_check": row["to_check"][:_MAX_LISTED]} for row in rows]
        invocation.screen.write_json(bounds=bounds, certified=certified)
    elif rows:
        invocation.screen.show(render(rows, scope, bounds.risk))
    else:
        invocation.screen.info("No results match. `chordwise runs` lists the runs.")
    verdicts = [row["certificate"].verdict for row in rows]
    is_withdrawn = CertificationVerdict.WITHDRAWN in verdicts
    return ExitCode.INCOMPLETE if is_withdrawn else ExitCode.SUCCESS


def render(rows: Sequence[Row], scope: Scope, risk: float) -> RenderableType:
    """Return a row for each field or label, with the command for the missing reviews.

    A narrow terminal shows the commands below the table.
    """
    names = ("Field", "Accepted", f"Error ({1 - risk:.0%})", "Checks", "To certify")
    narrow, wide, below, advised = [], [], [], []
    for row in rows:
        *cells, todo = _cells(row)
        narrow.append((*cells, todo))
        made: Certificate = row["certificate"]
        said = advice(made.verdict, made.expected_checks, made.expected_free)
        saves_none = made.acceptable <= made.checks + (made.more_checks or 0)
        if said and not saves_none:  # the table says that all have to be checked
            advised.append(Text(f"{cells[0]}: {said}"))
        if said and is_worthwhile(made.expected_checks, made.expected_free):
            queue = [*scope.arguments, "--queue", row["name"] or row["analysis_type"]]
            command = one_line(f"chordwise review {shlex.join(queue)}")
            below.append(Text(f"  {command}", style="cyan"))
            todo = f"{todo}: {command}"
        wide.append((*cells, todo))
    table = layouts.FirstThatFits(
        layouts.table(names, wide, right=("Checks",)),
        Group(layouts.folded(names, narrow, right=("Checks",)), *below),
    )
    limit = f"At most {rows[0]['certificate'].max_error:.1%} of the accepted may be wrong."
    return Group(table, *advised, Text(f"{limit} {_ORDER}", style="dim"))


def _cells(row: Row) -> Sequence[str]:
    certificate: Certificate = row["certificate"]
    accepted, error, todo = "–", "–", outlook(**asdict(certificate))
    match certificate.verdict:
        case CertificationVerdict.CERTIFIED:
            accepted = f"{certificate.accepted:,} of {certificate.population:,}"
            error = f"≤ {certificate.error_bound:.1%}"
        case CertificationVerdict.IMPOSSIBLE:
            accepted, error = "not possible", f"{certificate.wrong:,} wrong"
        case CertificationVerdict.WITHDRAWN:
            accepted = "withdrawn"
            todo = f"{row['later_wrong']:,} of {row['later_checks']:,} later checks are wrong"
    name = one_line(row["name"] or row["analysis_type"], _WIDTH)
    return name, accepted, error, f"{certificate.checks:,}", todo
