"""The scope of learning: the results that are evaluated, certified, reviewed or refreshed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisType, options_to_json
from chordwise.domain.json_values import JsonObject
from chordwise.errors import UsageError
from chordwise.pipeline.intake.answer_tables import table_of
from chordwise.pipeline.intake.run_options import (
    RunOptions,
    effective_options,
    identities,
    required_profile,
    run_options,
)
from chordwise.pipeline.learning.gold import Gold
from chordwise.relations.relation import Values
from chordwise.relations.results import ResultSelection
from chordwise.settings import Settings
from chordwise.storage import runs
from chordwise.storage.runs import Run


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The results of a run, the answers to the questions of a profile, or both; else of all runs.

    With a `table`, the run is the newest one that is saved in it. Without `types`, those of all
    analysis types are meant. The truth is `gold`, else the feedback.
    What depends on the options of the profile raises a `ConfigurationError` if the profile does not
    exist or names an unknown model, and a `UsageError` if it is contradictory.
    """

    settings: Settings
    run: Run | None = None
    profile: str = ""
    table: str = ""
    types: tuple[AnalysisType, ...] = ()
    gold: Gold | None = None

    @property
    def run_name(self) -> str:
        """The name of the run; empty without one."""
        return self.run.name if self.run else ""

    @property
    def names(self) -> Values:
        """The names of the run and the profile, by which the certificates of the scope are read."""
        return {"run": self.run_name, "profile": self.profile}

    @property
    def cells(self) -> Values:
        """The values that select the cells of the scope in the queue of cells to check."""
        table = self.table or (table_of(self._options) if self._options else None)
        (kind,) = self.types if len(self.types) == 1 else (None,)
        run_name = "" if self.table else self.run_name
        return {"run": run_name, "saved_as": table, "analysis_type": kind}

    @property
    def arguments(self) -> list[str]:
        """The arguments that select the run and the profile on the command line."""
        of_profile = ["--profile", self.profile] if self.profile else []
        return [self.run_name, *of_profile] if self.run else of_profile

    def require_name(self, session: Session) -> None:
        """Check that the scope has a profile, or a run that was not deleted meanwhile.

        Raises:
            UsageError: It has neither.
        """
        if self.run is not None:
            runs.find(session, self.run.name)
        elif not self.profile:
            raise UsageError("Name a run or a profile.", "latest is the last run.")

    @property
    def selection(self) -> ResultSelection:
        """The results of the run and the types, without regard to their questions."""
        types = self.types or (self._options.types if self._options else ())
        return ResultSelection(run_id=self.run.id if self.run else None, types=types)

    @property
    def questions(self) -> Sequence[JsonObject] | None:
        """The questions of the profile, as in `jobs.options`; `None` without a profile."""
        if self._options is None:
            return None
        return [options_to_json(self._options.analysis_of(kind)) for kind in self._options.types]

    @property
    def identities(self) -> Mapping[AnalysisType, str]:
        """The identities of today's questions of the profile, as in `jobs.options_hash`."""
        return identities(self.settings, self._options) if self._options else {}

    @cached_property
    def _options(self) -> RunOptions | None:
        if not self.profile:
            return None
        profile = required_profile(self.settings, self.profile)
        return effective_options(self.settings, run_options(self.settings, profile))


def find(
    session: Session,
    settings: Settings,
    name: str | None = None,
    profile: str = "",
    types: Sequence[AnalysisType] = (),
) -> Scope:
    """Return the scope of the argument RUN|PROFILE and the options --profile and --type.

    Raises:
        UsageError: There is no such run, profile or table, or a run and a profile have this name.
    """
    scope = Scope(settings=settings, profile=profile, types=tuple(types))
    if not name:
        return scope
    try:
        run = runs.find(session, name)
    except UsageError as error:
        if profile:
            raise
        if name in settings.profiles:
            return Scope(settings=settings, profile=name, types=scope.types)
        table = name.removeprefix("answers.")
        saved = runs.newest_saved_as(session, table)
        if saved is None:
            raise UsageError(f"There is no run, profile or table “{name}”.", error.hint) from error
        return Scope(settings=settings, run=saved, table=table, types=scope.types)
    if name in settings.profiles and not profile:
        raise UsageError(
            f"There is a run “{name}” and a profile “{name}”.",
            "Use --profile NAME for the profile, or the id of the run for the run.",
        )
    return Scope(settings=settings, run=run, profile=profile, types=scope.types)
