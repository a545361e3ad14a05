"""Options that several commands share; `request.py` has the options of a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.flags import BUDGET, MODEL

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from chordwise.pipeline.learning.scope import Scope
    from chordwise.settings import Settings

    TypeName: TypeAlias = AnalysisType
else:
    # The help, the errors and the completion list the members of an enumeration.
    TypeName = StrEnum("TypeName", [(name.upper(), name) for name in AnalysisType])

OnlyTypes: TypeAlias = Annotated[
    list[TypeName] | None,
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
Model: TypeAlias = Annotated[str | None, typer.Option(metavar=MODEL.metavar, help=MODEL.help)]
Budget: TypeAlias = Annotated[str | None, typer.Option(metavar=BUDGET.metavar, help=BUDGET.help)]
NoWait: TypeAlias = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the answers.")]
IsLong: TypeAlias = Annotated[
    bool, typer.Option("--long", help="Show each answer in full instead of a table.")
]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeOptions:
    """What a command is about: a run or a profile, and analysis types."""

    name: RunOrProfile = None
    profile: OnlyProfile = ""
    types: OnlyTypes = None

    def find(self, session: Session, settings: Settings) -> Scope:
        """Return the scope; without a run and a profile, it is the newest results of all runs.

        Raises:
            UsageError: There is no such run or profile, or a run and a profile have this name.
        """
        from chordwise.pipeline.learning import scope  # noqa: PLC0415 - loads the tables

        return scope.find(session, settings, self.name, self.profile, self.types or ())
