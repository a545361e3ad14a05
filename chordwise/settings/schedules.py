"""Schedules: what is done by itself at its time, under a name of the user's choice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field, PositiveFloat, field_validator, model_validator

from chordwise.domain import due_times
from chordwise.settings.profiles import ProfileSettings
from chordwise.settings.sections import Section

AGES = ("keep_cache_days", "keep_answers_days", "keep_runs_days")
"""The settings of a schedule that say what it deletes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ScheduleKind(StrEnum):
    """What a schedule does; the values stand in `schedules.kind`."""

    ANALYZE = "analyze"
    REANALYZE = "reanalyze"
    PRUNE = "prune"
    REPORT = "report"
    EVALUATE = "evaluate"
    RECALIBRATE = "recalibrate"


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
    folder: str = Field(default="", description="For reports, relative to chordwise.toml.")
    gold: str = Field(default="", description="For evaluate, relative to chordwise.toml.")
    most_errors: float | None = Field(
        default=None, ge=0, le=1, description="For recalibrate: how many accepted may be wrong."
    )
    catch_up: CatchUp = CatchUp.ONCE
    expires_after_hours: PositiveFloat = Field(
        default=20, description="After which it no longer keeps the next one from starting."
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
        for name, kind in _OF_ONE_KIND.items():
            if getattr(self, name) and self.kind is not kind:
                raise ValueError(f"{name} is for kind = “{kind}”, and this one is “{self.kind}”")
        if self.profile and self.kind not in _WITH_PROFILE:
            raise ValueError(f"profile is for {' and '.join(_WITH_PROFILE)}, not for “{self.kind}”")
        if self.kind is ScheduleKind.PRUNE and not any(getattr(self, name) for name in AGES):
            raise ValueError(f"pruning needs an age: {', '.join(AGES)}")
        if self.kind is ScheduleKind.REPORT and not self.folder:
            raise ValueError("a report needs a folder to be written to")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """Return the time zone itself."""
        return ZoneInfo(self.time_zone)


_WITH_PROFILE = (ScheduleKind.ANALYZE, ScheduleKind.EVALUATE)
_OF_ONE_KIND = {
    "paths": ScheduleKind.ANALYZE,
    "folder": ScheduleKind.REPORT,
    "gold": ScheduleKind.EVALUATE,
    "most_errors": ScheduleKind.RECALIBRATE,
    **dict.fromkeys(AGES, ScheduleKind.PRUNE),
}


def check(
    schedules: Mapping[str, ScheduleSettings], profiles: Mapping[str, ProfileSettings]
) -> None:
    """Refuse names that cannot be used, profiles that there are not, and nothing to analyze.

    Raises:
        ValueError: One of these.
    """
    for name, schedule in schedules.items():
        check_one(name, schedule, profiles)


def check_one(
    name: str, schedule: ScheduleSettings, profiles: Mapping[str, ProfileSettings]
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
    if analyzes and not paths_of(schedule, profiles, Path("/")):
        raise ValueError(
            f"schedules.{name}: nothing says what to analyze; set paths, or a profile's folder as "
            "an absolute path"
        )


def paths_of(
    schedule: ScheduleSettings, profiles: Mapping[str, ProfileSettings], folder: Path
) -> tuple[str, ...]:
    """Return what an analysis takes in, relative paths counting from `folder`.

    Without paths of its own that is the folder of its profile, where that is an absolute one.
    """
    if schedule.paths:
        return tuple(str(folder / Path(path).expanduser()) for path in schedule.paths)
    profile = profiles.get(schedule.profile)
    if profile is None or profile.folder is None or not profile.folder.is_absolute():
        return ()
    return (str(profile.folder),)
