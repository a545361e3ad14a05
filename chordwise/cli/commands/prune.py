"""Operation: Delete old completions, answers or runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, TypeAlias

import typer

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Yes
from chordwise.errors import UsageError
from chordwise.rendering.screen import confirmed
from chordwise.storage import pruning

Age: TypeAlias = Annotated[
    float | None, typer.Option(min=0, metavar="DAYS", help="Delete what is older.")
]


def prune(
    invocation: Invocation,
    *,
    cache: Age = None,
    answers: Age = None,
    runs: Age = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete old completions, answers or runs. Costs are kept.

    chordwise prune --cache 30

    chordwise prune --answers 90 --runs 365 --yes
    """
    days = {"cache": cache, "answers": answers, "runs": runs}
    ages = {kind: timedelta(days=number) for kind, number in days.items() if number is not None}
    if not ages:
        raise UsageError("Nothing is chosen.", "Give --cache, --answers or --runs, each in days.")
    if not yes:
        kinds = ", ".join(f"{kind} older than {age.days} days" for kind, age in ages.items())
        if not confirmed(f"Delete {kinds}?", f"This deletes {kinds}."):
            raise typer.Abort
    with access.database(access.reach(invocation)) as database:
        commit = invocation.occurrence.write if invocation.occurrence else database.commit
        deleted = pruning.prune(database, ages, commit)
    if invocation.occurrence is not None:
        invocation.occurrence.record(dict(deleted))
    if as_json:
        invocation.screen.write_json(deleted=deleted)
    else:
        counts = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in deleted.items())
        invocation.screen.info(f"Deleted: {counts}.")
