"""The settings of schedules."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from zoneinfo import ZoneInfo

from pydantic import Field, PositiveFloat, ValidationError, field_validator

from chordwise.domain import due_times, identifiers
from chordwise.settings.sections import Section, problems

COMMANDS = (
    "analyze",
    "submit",
    "refresh",
    "continue",
    "export",
    "evaluate",
    "recalibrate",
    "certify",
    "entities",
    "experiment",
    "insight",
    "night-report",
    "prune",
    "forget",
    "doctor",
)
"""The commands that a schedule can run: they need no terminal and end by themselves."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class CatchUp(StrEnum):
    """The handling of due times that were missed."""

    ONCE = "once"
    NONE = "none"


class ScheduleSettings(Section):
    """One table `[schedules.NAME]`."""

    cron: str = Field(description="Minute, hour, day of month, month, day of week.")
    time_zone: str = Field(default="UTC", description="Such as Europe/Berlin.")
    run: str = Field(description="A command line of chordwise; {due} is replaced by the due time.")
    catch_up: CatchUp = CatchUp.ONCE
    expires_after_hours: PositiveFloat = Field(
        default=22, description="Time after which an occurrence no longer blocks the next one."
    )

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

    @field_validator("run")
    @classmethod
    def check_run(cls, run: str) -> str:
        """Refuse what is not the line of a command that a schedule can run."""
        try:
            words = _words(run)
        except ValueError as error:
            raise ValueError(f"“{run}” cannot be split into words: {error}") from error
        command = words[0] if words else ""
        if command not in COMMANDS:
            meant = identifiers.similar_names(command, COMMANDS)
            suggestion = f"did you mean “{meant[0]}”?" if meant else ", ".join(COMMANDS)
            raise ValueError(f"“{run}” is not a command that a schedule can run; {suggestion}")
        return run

    @property
    def words(self) -> list[str]:
        """The command and its arguments."""
        return _words(self.run)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.time_zone)


def _words(run: str) -> list[str]:
    words = shlex.split(run)
    return words[1:] if words[:1] == ["chordwise"] else words


def check_name(name: str) -> None:
    """Check the name of a schedule.

    Raises:
        ValueError: It is invalid.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"schedules.{name}: a name consists of letters, digits, “.”, “_” and “-”")


def reason(error: ValueError) -> str:
    """Return why a schedule is invalid, without a final full stop."""
    return problems(error)[0] if isinstance(error, ValidationError) else str(error)
