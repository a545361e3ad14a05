"""The arguments of `analyze` and `quote` that say what is asked about which documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias, cast

import typer

from chordwise.cli.command import Parsed, Values
from chordwise.cli.options import TypeName
from chordwise.domain import items
from chordwise.domain.identifiers import split_commas
from chordwise.errors import UsageError
from chordwise.pipeline.intake.run_options import RunArguments, read_principles
from chordwise.pipeline.models.budgets import parse_budget
from chordwise.settings import Profile
from chordwise.settings.profiles import checked_profile

# Without their value, another question would be asked.
_EXAMPLES = {
    "save_as": "contracts",
    "items": '"parties: list, annual fee: money"',
    "labels": "invoice,complaint,other",
    "instructions": '"who pays whom?"',
}


def profile_of(flags: Values) -> Profile:
    """Return a profile of the options that are given on a command line.

    Raises:
        UsageError: A value is invalid, or a file cannot be read.
    """
    for option, example in _EXAMPLES.items():
        if option in flags and not str(flags[option]).strip(" ,;\t\n"):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is empty.", f"Example: --{name} {example}")
    entries = {name: value for name, value in flags.items() if value != ""}
    if "labels" in entries:
        entries["labels"] = split_commas(str(entries["labels"]))
    if "items" in entries:
        entries["items"] = items.split(str(entries["items"]))
    if isinstance(file := entries.get("principles"), Path):
        entries["principles"] = read_principles(file)
    if "budget_usd" in entries:
        entries["budget_usd"] = parse_budget(str(entries["budget_usd"]))
    return checked_profile(entries)


Paths: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Files, folders, quoted patterns, or - for stdin."),
]
Options: TypeAlias = Annotated[
    Profile,
    Parsed(
        profile_of, types=tuple[TypeName], items=str, labels=str, principles=Path, budget_usd=str
    ),
]
Arguments: TypeAlias = Annotated[RunArguments, Parsed(lambda values: cast("RunArguments", values))]
