"""Tests of validating schedules in the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise import settings
from chordwise.cli import scheduled
from chordwise.errors import ConfigurationError
from chordwise.settings import ScheduleSettings
from chordwise.settings.schedules import COMMANDS, CatchUp


def load(folder: Path, *lines: str) -> settings.Settings:
    file = folder / "chordwise.toml"
    file.write_text("\n".join(["[schedules.nightly]", 'cron = "0 2 * * *"', *lines]), "utf-8")
    return settings.load(file)


def test_a_schedule_has_default_values(tmp_path: Path) -> None:
    """By default it expires after the spill-over, and before the end of a day of 23 hours."""
    loaded = load(tmp_path, 'run = "chordwise submit in/*.pdf"')
    schedule = loaded.schedules["nightly"]

    assert (schedule.words, schedule.time_zone) == (["submit", "in/*.pdf"], "UTC")
    assert (schedule.catch_up, schedule.expires_after_hours) == (CatchUp.ONCE, 22)
    assert loaded.batch.spill_over_hours < schedule.expires_after_hours


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("", "nightly.run: Field required"),
        ('run = "submit a"\ntime_zone = "Europe/Bonn"', "no time zone “Europe/Bonn”"),
        ('run = "submit a"\ntime_zone = "../etc/passwd"', "no time zone"),
        ('run = "submti a"', "“submti a” is not a command .*; did you mean “submit”?"),
        ('run = "web"', "“web” is not a command that a schedule can run; analyze, submit"),
        ('run = ""', "is not a command"),
        ('run = "submit \'a"', "cannot be split into words: No closing quotation"),
        ('run = "prune"\nkind = "prune"', "unknown setting schedules.nightly.kind"),
        ('run = "prune"\n[schedules."a b"]\ncron = "0 2 * * *"\nrun = "prune"', "a name consists"),
        ('run = "prune"\n[schedules.daily]\nrun = "prune"', "daily.cron: Field required"),
        (
            'run = "prune"\n[schedules.daily]\ncron = "0 26 * * *"\nrun = "prune"',
            "“0 26 .* is not a cron expression: bad hour",
        ),
    ],
)
def test_an_invalid_schedule_is_rejected(tmp_path: Path, lines: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, lines)


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        ("submit a --profil contracts", "No such option: --profil.*--profile"),
        ("submit", "Missing argument 'PATH"),
        ("experiment chck", "No such command 'chck'"),
        ("prune --cache many", "Invalid value for '--cache'"),
        ("export facts --format doc", "Invalid value for '--format'"),
    ],
)
def test_an_invalid_command_line_is_rejected(run: str, complaint: str) -> None:
    schedule = ScheduleSettings(cron="0 2 * * *", run=run)

    with pytest.raises(ConfigurationError, match=complaint) as caught:
        scheduled.checked("nightly", schedule)

    assert f"schedules.nightly: run = “{run}”" in caught.value.what


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_schedules_exists(command: str) -> None:
    with pytest.raises(ConfigurationError, match="No such option: --nothing"):
        scheduled.checked("x", ScheduleSettings(cron="0 2 * * *", run=f"{command} --nothing"))


def test_the_arguments_of_a_command_are_parsed_without_running_it() -> None:
    values = scheduled.parsed(["submit", "a b", "--lane", "batch", "-t", "sentiment"])

    assert values["paths"] == ["a b"]
    assert (str(values["lane"]), values["profile"]) == ("batch", None)
