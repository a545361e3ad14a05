"""`chordwise certify`: what may be accepted without looking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AnyRun, AsJson, OnlyTypes, share_of
from chordwise.cli.rendering import layouts
from chordwise.cli.rendering.plain_text import one_line
from chordwise.domain.learning.certification import Verdict
from chordwise.errors import ExitCode
from chordwise.pipeline.learning import certification, evaluation
from chordwise.pipeline.learning.certification import Bounds, Certified

_WIDTH = 40
_MAX_SHOWN = 5


def certify(  # noqa: PLR0913 - the options of a command
    invocation: Invocation,
    run: AnyRun = None,
    *,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="Only what [profiles.NAME] asks.")
    ] = "",
    types: OnlyTypes = None,
    max_error: Annotated[
        str, typer.Option(metavar="SHARE", help="How many of the accepted may be wrong.")
    ] = "2%",
    risk: Annotated[
        str, typer.Option(metavar="SHARE", help="How likely it may be that more are wrong.")
    ] = "5%",
    as_json: AsJson = False,
) -> ExitCode:
    """Say what may be accepted without looking. Feedback on answers in random order shows it.

    chordwise certify contracts --max-error 2% --risk 5%

    chordwise certify --profile contracts
    """
    bounds = Bounds(max_error=share_of("--max-error", max_error), risk=share_of("--risk", risk))
    settings = invocation.settings()
    scope = evaluation.of(settings, run, profile, types or ())
    with access.database(access.reach(invocation, settings)) as database:
        found = certification.certify(database, scope, bounds)
    if as_json:
        invocation.screen.write_json(bounds=bounds, certified=[_as_json(each) for each in found])
    elif found:
        invocation.screen.show(*laid_out(found, bounds.risk))
    else:
        invocation.screen.tell("There are no such results (yet). `chordwise runs` lists the runs.")
    is_withdrawn = any(each.certificate.verdict is Verdict.WITHDRAWN for each in found)
    return ExitCode.INCOMPLETE if is_withdrawn else ExitCode.SUCCESS


def laid_out(found: Sequence[Certified], risk: float) -> Iterator[RenderableType]:
    """Return a row for each field or label, and what to check next where checks are missing."""
    names = ("Field", "Accepted", f"Error ({1 - risk:.0%})", "Checks", "To certify")
    yield layouts.folded(names, [_row(each) for each in found], right=("Checks",))
    missing = [each for each in found if each.to_check and _is_open(each)]
    if missing:
        yield Text("To be checked next, in this order, with `chordwise feedback`:", style="dim")
        for each in missing:
            sources = ", ".join(one_line(one.source, _WIDTH) for one in each.to_check[:_MAX_SHOWN])
            yield Text(f"  {_name(each)}: {sources}, …", style="dim")


def _is_open(each: Certified) -> bool:
    return each.certificate.verdict is Verdict.OPEN


def _name(each: Certified) -> str:
    return one_line(each.unit.name or str(each.unit.analysis_type), _WIDTH)


def _row(each: Certified) -> Sequence[str]:
    certificate = each.certificate
    match certificate.verdict:
        case Verdict.CERTIFIED:
            accepted = f"{certificate.accepted:,} of {certificate.population:,}"
            error, todo = f"≤ {certificate.error_bound:.1%}", "certified"
        case Verdict.OPEN:
            accepted, error = "–", "–"
            todo = f"{certificate.more_checks:,} more checks would do"
        case Verdict.IMPOSSIBLE:
            accepted, error = "not possible", f"base {certificate.error_bound:.1%}"
            todo = f"at least {certificate.must_review:.1%} must be reviewed"
        case Verdict.WITHDRAWN:
            accepted, error = "withdrawn", "–"
            todo = f"{each.further_wrong:,} of {each.further:,} later checks are wrong"
    return _name(each), accepted, error, f"{certificate.checks:,}", todo


def _as_json(each: Certified) -> dict[str, object]:
    return {
        "analysis_type": each.unit.analysis_type,
        "name": each.unit.name,
        "certificate": each.certificate,
        "later_checks": each.further,
        "later_wrong": each.further_wrong,
        "to_check": [
            {"source": one.source, "job_id": one.job_id, "paths": one.paths}
            for one in each.to_check
        ],
    }
