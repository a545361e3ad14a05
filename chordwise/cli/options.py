"""Options that several commands share; `request.py` has the options of a run."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.errors import UsageError

OnlyTypes: TypeAlias = Annotated[
    list[AnalysisType] | None,
    typer.Option("--type", "-t", help="Only this analysis type; may be repeated."),
]
OnlyDocument: TypeAlias = Annotated[
    str, typer.Option("--document", metavar="PART", help="Only documents whose name contains PART.")
]
OnlyRun: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUN", help="Only this run: a name, an id, or latest.")
]
OnlyProfile: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="Only results of the questions of [profiles.NAME].")
]
Author: TypeAlias = Annotated[str, typer.Option(metavar="NAME", help="Author of the feedback.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Out: TypeAlias = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")
]
RunName: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the run. Default: generated.")
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A [models] name, PROVIDER/MODEL, a tier, or auto."),
]
Budget: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="USD", help="Maximum cost; the run pauses when it is reached."),
]
NoWait: TypeAlias = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the answers.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Raw: TypeAlias = Annotated[
    bool, typer.Option("--raw", help="Do not escape CSV and XLSX cells that begin like formulas.")
]
RunOrProfile: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="RUN|PROFILE", help="A run's name or id, latest, or a profile's name."),
]
RunArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's name or id, or latest.")
]
AnyRun: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A run's name or id, or latest.")
]


def split_commas(given: str) -> tuple[str, ...]:
    """Return the parts of a text between commas, without blank ones."""
    return tuple(part for each in given.split(",") if (part := each.strip()))


def parse_budget(given: str | None) -> Decimal | None:
    """Parse an amount in US dollars; `None` stays `None`.

    Raises:
        UsageError: It is not a valid budget.
    """
    if given is None:
        return None
    from chordwise.pipeline.models.budgets import checked_cap  # noqa: PLC0415 - it loads the models

    try:
        return checked_cap(Decimal(given.strip().removeprefix("$")))
    except InvalidOperation as error:
        raise UsageError(f"--budget {given} is not an amount.", "Example: --budget 2.50") from error


def parse_share(option: str, given: str, up_to: float | None = None) -> float:
    """Parse a share such as 2%, 2 % or 0.02; below 100 %, or at most `up_to`.

    Raises:
        UsageError: It is not a share in that range.
    """
    number = given.strip().removesuffix("%")
    try:
        share = float(number) / (100 if given.strip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not (0 < share < 1 if up_to is None else 0 < share <= up_to):
        raise UsageError(f"{option} {given} is not a valid share.", "Examples: 2%, 0.02.")
    return share
