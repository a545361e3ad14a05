"""Which results an evaluation is of: a run's, a profile's, or the newest of all documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisType, options_to_json
from chordwise.errors import ConfigurationError
from chordwise.pipeline.intake.profiles import run_options
from chordwise.pipeline.intake.run_options import answerable
from chordwise.pipeline.runs.stored_results import Wanted
from chordwise.settings import Settings
from chordwise.storage import runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a user named; `question` is what the profile asks, as it stands in `jobs.options`."""

    run: str | None = None
    profile: str | None = None
    types: tuple[AnalysisType, ...] = ()
    question: JsonObject | None = None


def of(
    settings: Settings, run: str | None, profile: str, types: Sequence[AnalysisType] = ()
) -> Scope:
    """Return the scope that these names say.

    Raises:
        ConfigurationError: There is no such profile, or it names a model that is unknown.
        UsageError: The profile contradicts itself.
    """
    if not profile:
        return Scope(run=run, types=tuple(types))
    if profile not in settings.profiles:
        raise ConfigurationError(
            f"There is no profile “{profile}”.", "The profiles stand in chordwise.toml."
        )
    asked = answerable(settings, run_options(settings, settings.profiles[profile]))
    return Scope(
        run=run,
        profile=profile,
        types=tuple(types) or asked.types,
        question=options_to_json(asked.analysis),
    )


def wanted(session: Session, scope: Scope) -> tuple[Wanted, str | None]:
    """Return which results are meant, and the name of their run where it is one.

    Raises:
        UsageError: There is no such run.
    """
    run = runs.find(session, scope.run) if scope.run else None
    return Wanted(run_id=run.id if run else None, types=scope.types), run.name if run else None
