"""The options that several commands share, one by one; `request.py` has those of a run."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeAlias

import typer

from chordwise.domain.tasks import AnalysisType
from chordwise.errors import UsageError

OnlyTypes: TypeAlias = Annotated[
    list[AnalysisType] | None,
    typer.Option("--type", "-t", help="Only of this type; may be repeated."),
]
OnlyDocument: TypeAlias = Annotated[
    str, typer.Option("--document", metavar="PART", help="Only where this is in the name.")
]
OnlyRun: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUN", help="Only of this run: name, id, or latest.")
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A name in [models], provider/model, a tier, or auto."),
]
Budget: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="USD", help="What the run's calls may cost; it pauses before more."),
]
NoWait: TypeAlias = Annotated[
    bool, typer.Option("--no-wait", help="Return at once; the work goes on.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="As one JSON document.")]
Raw: TypeAlias = Annotated[
    bool, typer.Option("--raw", help="Leave texts in CSV and XLSX that begin like formulas.")
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


def budget_of(given: str | None) -> Decimal | None:
    """Return the amount that was given in US dollars; `None` where none was.

    Raises:
        UsageError: It is no amount that a run could keep to.
    """
    if given is None:
        return None
    from chordwise.pipeline.models.budgets import checked_cap  # noqa: PLC0415 - it loads the models

    try:
        return checked_cap(Decimal(given.strip().removeprefix("$")))
    except InvalidOperation as error:
        raise UsageError(f"A budget of {given} is no amount.", "--budget 2.50") from error


def share_of(option: str, given: str, up_to: float | None = None) -> float:
    """Read a share: 2%, 2 % or 0.02; `up_to` is the largest, else it is below 100 %.

    Raises:
        UsageError: It is none, or not in that range.
    """
    number = given.strip().removesuffix("%")
    try:
        share = float(number) / (100 if given.strip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not (0 < share < 1 if up_to is None else 0 < share <= up_to):
        raise UsageError(
            f"{option} {given} is no share.", "Give a percentage, such as 2%, or 0.02."
        )
    return share
