"""Schedules: what runs at a due time, under a name of the user's choice."""

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
"""The settings of a schedule that say what it deletes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ScheduleKind(StrEnum):
    """What a schedule does; the values stand in `schedules.kind`."""

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
    """What becomes of times that passed while no scheduler ran."""

    ONCE = "once"
    NONE = "none"


class ScheduleSettings(Section):
    """One table `[schedules.NAME]`."""

    cron: str = Field(description="Minute, hour, day of month, month, day of week.")
    time_zone: str = Field(default="UTC", description="Such as Europe/Berlin.")
    kind: ScheduleKind = ScheduleKind.ANALYZE
    profile: str = Field(default="", description="What is asked; empty: a summary.")
    paths: tuple[str, ...] = Field(
        default=(), description="Files, folders, patterns, relative to chordwise.toml."
    )
    lane: Lane | None = Field(
        default=None, description="Unset: the profile's; asked again: that of the runs before."
    )
    folder: str = Field(
        default="", description="For reports, insight and exports, relative to chordwise.toml."
    )
    days: int | None = Field(
        default=None, ge=1, le=3_660, description="For insight: how many days it shows; unset: 30."
    )
    view: str = Field(default="", description="What is exported: a view or a table.")
    sql: str = Field(default="", description="Or the answer to a statement.")
    format: ExportFormat | None = Field(default=None, description="Of an export; unset: csv.")
    raw: bool = Field(default=False, description="Let exported texts be formulas.")
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
        default=22, description="After which it no longer keeps the next one from starting."
    )
    keep_cache_days: PositiveFloat | None = None
    keep_answers_days: PositiveFloat | None = None
    keep_runs_days: PositiveFloat | None = None

    @field_validator("cron")
    @classmethod
    def check_cron(cls, cron: str) -> str:
        """Refuse what is no cron expression, or never due."""
        due_times.check(cron)
        return cron

    @field_validator("time_zone")
    @classmethod
    def check_time_zone(cls, name: str) -> str:
        """Refuse a name that the time zone database does not know."""
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(f"there is no time zone “{name}”, such as Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def check_kind(self) -> ScheduleSettings:
        """Refuse entries that the kind does not know, and one that says nothing to do."""
        for name, kinds in _OF_KINDS.items():
            if getattr(self, name) and self.kind not in kinds:
                known = " or ".join(f"“{kind}”" for kind in kinds)
                raise ValueError(f"{name} is for kind = {known}, and this one is “{self.kind}”")
        if self.kind is ScheduleKind.PRUNE and not any(getattr(self, name) for name in AGES):
            raise ValueError(f"pruning needs an age: {', '.join(AGES)}")
        if self.kind in _OF_KINDS["folder"] and not self.folder:
            raise ValueError(f"kind = “{self.kind}” needs a folder to be written to")
        if self.kind is ScheduleKind.EXPORT and bool(self.view) == bool(self.sql):
            raise ValueError("an export needs either a view or a statement in sql")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """Return the time zone itself."""
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
    """Refuse a schedule that does not fit its name or the profiles.

    Raises:
        ValueError: It does not.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"schedules.{name}: a name is of letters, digits, “.”, “_” and “-”")
    if schedule.profile and schedule.profile not in profiles:
        raise ValueError(f"schedules.{name}: there is no profile “{schedule.profile}”")
    analyzes = schedule.kind is ScheduleKind.ANALYZE
    if analyzes and not schedule.paths and not profile_folders(schedule, profiles, inboxes):
        raise ValueError(
            f"schedules.{name}: nothing says what to analyze; set paths, or a profile whose folder "
            "is an absolute path or lies in an inbox"
        )


def profile_folders(
    schedule: ScheduleSettings,
    profiles: Mapping[str, ProfileSettings],
    inboxes: Iterable[Path],
) -> tuple[Path, ...]:
    """Return the folders of a schedule's profile, which it takes in where it has no paths.

    Raises:
        ValueError: The profile's folder leads out of the inboxes.
    """
    profile = profiles.get(schedule.profile)
    return folders_of(schedule.profile, profile, inboxes) if profile else ()


def reason(error: ValueError) -> str:
    """Return in words why a schedule cannot be kept, without a stop at the end."""
    return problems(error)[0] if isinstance(error, ValidationError) else str(error)
