"""The settings of schedules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field, PositiveFloat, ValidationError, field_validator, model_validator

from chordwise.domain import due_times
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.states import Lane
from chordwise.settings.sections import ProfileSettings, Section, folders_of, problems

AGES = ("keep_cache_days", "keep_answers_days", "keep_runs_days")
"""The settings of a schedule of the kind `prune`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ScheduleKind(StrEnum):
    """The task of a schedule, as in `schedules.kind`."""

    ANALYZE = "analyze"
    REANALYZE = "reanalyze"
    PRUNE = "prune"
    REPORT = "report"
    INSIGHT = "insight"
    EXPORT = "export"
    EVALUATE = "evaluate"
    RECALIBRATE = "recalibrate"
    CERTIFY = "certify"
    EXPERIMENT = "experiment"


class CatchUp(StrEnum):
    """The handling of due times that were missed."""

    ONCE = "once"
    NONE = "none"


class ScheduleSettings(Section):
    """One table `[schedules.NAME]`."""

    cron: str = Field(description="Minute, hour, day of month, month, day of week.")
    time_zone: str = Field(default="UTC", description="Such as Europe/Berlin.")
    kind: ScheduleKind = ScheduleKind.ANALYZE
    profile: str = Field(default="", description="Empty: a summary.")
    paths: tuple[str, ...] = Field(
        default=(), description="Files, folders, patterns, relative to chordwise.toml."
    )
    lane: Lane | None = Field(
        default=None, description="Unset: as in the profile, or as in the earlier run."
    )
    folder: str = Field(
        default="",
        description="Output folder of report, insight and export, relative to chordwise.toml.",
    )
    days: int | None = Field(
        default=None, ge=1, le=3_660, description="For insight: number of days to show; unset: 30."
    )
    view: str = Field(default="", description="For export: a view or a table.")
    sql: str = Field(default="", description="For export: a query instead of a view.")
    format: ExportFormat | None = Field(default=None, description="For export; unset: csv.")
    raw: bool = Field(
        default=False, description="Do not escape exported texts that begin like formulas."
    )
    gold: str = Field(default="", description="For evaluate, relative to chordwise.toml.")
    max_error_rate: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="For recalibrate and certify: allowed share of wrong accepted answers.",
    )
    risk: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="For certify: allowed probability of a larger share; unset: 0.05.",
    )
    catch_up: CatchUp = CatchUp.ONCE
    expires_after_hours: PositiveFloat = Field(
        default=22, description="Time after which an occurrence no longer blocks the next one."
    )
    keep_cache_days: PositiveFloat | None = None
    keep_answers_days: PositiveFloat | None = None
    keep_runs_days: PositiveFloat | None = None

    @field_validator("cron")
    @classmethod
    def check_cron(cls, cron: str) -> str:
        """Refuse an invalid cron expression, and one that is never due."""
        due_times.check(cron)
        return cron

    @field_validator("time_zone")
    @classmethod
    def check_time_zone(cls, name: str) -> str:
        """Refuse an unknown time zone."""
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(
                f"there is no time zone “{name}”; an example is Europe/Berlin"
            ) from error
        return name

    @model_validator(mode="after")
    def check_kind(self) -> ScheduleSettings:
        """Refuse entries of other kinds, and a schedule that lacks an entry of its kind."""
        for name, kinds in _OF_KINDS.items():
            if getattr(self, name) and self.kind not in kinds:
                known = " or ".join(f"“{kind}”" for kind in kinds)
                raise ValueError(f"{name} is only for kind = {known}, not for “{self.kind}”")
        if self.kind is ScheduleKind.PRUNE and not any(getattr(self, name) for name in AGES):
            raise ValueError(f"kind = “prune” needs at least one of {', '.join(AGES)}")
        if self.kind is ScheduleKind.CERTIFY and not self.profile:
            raise ValueError("kind = “certify” needs a profile")
        if self.kind in _OF_KINDS["folder"] and not self.folder:
            raise ValueError(f"kind = “{self.kind}” needs a folder")
        if self.kind is ScheduleKind.EXPORT and bool(self.view) == bool(self.sql):
            raise ValueError("kind = “export” needs either view or sql")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.time_zone)


_OF_KINDS: Mapping[str, tuple[ScheduleKind, ...]] = {
    "profile": (ScheduleKind.ANALYZE, ScheduleKind.EVALUATE, ScheduleKind.CERTIFY),
    "paths": (ScheduleKind.ANALYZE,),
    "lane": (ScheduleKind.ANALYZE, ScheduleKind.REANALYZE),
    "folder": (ScheduleKind.REPORT, ScheduleKind.INSIGHT, ScheduleKind.EXPORT),
    "days": (ScheduleKind.INSIGHT,),
    **dict.fromkeys(("view", "sql", "format", "raw"), (ScheduleKind.EXPORT,)),
    "gold": (ScheduleKind.EVALUATE,),
    "max_error_rate": (ScheduleKind.RECALIBRATE, ScheduleKind.CERTIFY),
    "risk": (ScheduleKind.CERTIFY,),
    **dict.fromkeys(AGES, (ScheduleKind.PRUNE,)),
}


def check(
    name: str,
    schedule: ScheduleSettings,
    profiles: Mapping[str, ProfileSettings],
    inboxes: Iterable[Path],
) -> None:
    """Check the name of a schedule, its profile and its paths.

    Raises:
        ValueError: One of them is invalid.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"schedules.{name}: a name consists of letters, digits, “.”, “_” and “-”")
    if schedule.profile and schedule.profile not in profiles:
        raise ValueError(f"schedules.{name}: there is no profile “{schedule.profile}”")
    analyzes = schedule.kind is ScheduleKind.ANALYZE
    if analyzes and not schedule.paths and not profile_folders(schedule, profiles, inboxes):
        raise ValueError(
            f"schedules.{name}: there is nothing to analyze; set paths, or a profile whose folder "
            "is an absolute path or is in an inbox"
        )


def profile_folders(
    schedule: ScheduleSettings,
    profiles: Mapping[str, ProfileSettings],
    inboxes: Iterable[Path],
) -> tuple[Path, ...]:
    """Return the folders of the schedule's profile, which it analyzes if it has no paths.

    Raises:
        ValueError: The folder of the profile is outside the inboxes.
    """
    profile = profiles.get(schedule.profile)
    return folders_of(schedule.profile, profile, inboxes) if profile else ()


def reason(error: ValueError) -> str:
    """Return why a schedule is invalid, without a final full stop."""
    return problems(error)[0] if isinstance(error, ValidationError) else str(error)
