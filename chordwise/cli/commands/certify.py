"""Quality: Show which answers can be accepted without review."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, ScopeOptions
from chordwise.domain.learning.certification import CertificationVerdict, outlook
from chordwise.domain.number_formats import parse_share
from chordwise.errors import ExitCode
from chordwise.pipeline.learning import certification
from chordwise.pipeline.learning.certification import Bounds, Certified
from chordwise.pipeline.learning.scope import Scope
from chordwise.rendering import layouts
from chordwise.rendering.layouts import FirstThatFits
from chordwise.rendering.plain_text import one_line

_WIDTH = 40
_MAX_LISTED = 20


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
    bounds = Bounds(
        max_error=parse_share("--max-error", max_error), risk=parse_share("--risk", risk)
    )
    settings = invocation.settings()
    with access.database(access.reach(invocation, settings)) as database:
        with database.read() as session:
            scope = selected.find(session, settings)
        results = certification.certify(database, scope, bounds, invocation.occurrence)
    if as_json:
        invocation.screen.write_json(
            bounds=bounds, certified=[_as_json(result) for result in results]
        )
    elif results:
        invocation.screen.show(render(results, scope, bounds.risk))
    else:
        invocation.screen.info("No results match. `chordwise runs` lists the runs.")
    is_withdrawn = any(
        result.certificate.verdict is CertificationVerdict.WITHDRAWN for result in results
    )
    return ExitCode.INCOMPLETE if is_withdrawn else ExitCode.SUCCESS


def render(results: Sequence[Certified], scope: Scope, risk: float) -> RenderableType:
    """Return a row for each field or label, with the command for the missing reviews.

    A narrow terminal shows the commands below the table.
    """
    names = ("Field", "Accepted", f"Error ({1 - risk:.0%})", "Checks", "To certify")
    rows = [_row(result) for result in results]
    commands = [
        review_command(result, scope)
        if result.certificate.verdict is CertificationVerdict.OPEN
        else ""
        for result in results
    ]
    wide = [
        (*row[:-1], f"{row[-1]}: {command}" if command else row[-1])
        for row, command in zip(rows, commands, strict=True)
    ]
    below = [Text(f"  {command}", style="cyan") for command in commands if command]
    return FirstThatFits(
        layouts.table(names, wide, right=("Checks",)),
        Group(layouts.folded(names, rows, right=("Checks",)), *below),
    )


def review_command(result: Certified, scope: Scope) -> str:
    """Return the command that reviews the next answers."""
    queue = result.unit.name or result.unit.analysis_type
    return one_line(f"chordwise review {shlex.join([*scope.arguments, '--queue', queue])}")


def _row(result: Certified) -> Sequence[str]:
    certificate = result.certificate
    todo = outlook(
        certificate.verdict,
        certificate.acceptable,
        certificate.checks,
        certificate.more_checks,
        certificate.must_review,
    )
    accepted, error = "–", "–"
    match certificate.verdict:
        case CertificationVerdict.CERTIFIED:
            accepted = f"{certificate.accepted:,} of {certificate.population:,}"
            error = f"≤ {certificate.error_bound:.1%}"
        case CertificationVerdict.IMPOSSIBLE:
            accepted, error = "not possible", f"base {certificate.error_bound:.1%}"
        case CertificationVerdict.WITHDRAWN:
            accepted = "withdrawn"
            todo = f"{result.further_wrong:,} of {result.further:,} later checks are wrong"
    name = one_line(result.unit.name or str(result.unit.analysis_type), _WIDTH)
    return name, accepted, error, f"{certificate.checks:,}", todo


def _as_json(result: Certified) -> dict[str, object]:
    return {
        "analysis_type": result.unit.analysis_type,
        "name": result.unit.name,
        "certificate": result.certificate,
        "later_checks": result.further,
        "later_wrong": result.further_wrong,
        "to_check": [
            {"source": candidate.source, "job_id": candidate.job_id, "paths": candidate.paths}
            for candidate in result.to_check[:_MAX_LISTED]
        ],
    }
