"""Tests of validating schedules in the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise import settings
from chordwise.domain.states import Lane
from chordwise.errors import ConfigurationError
from chordwise.pipeline.schedules import occurrences
from chordwise.settings.schedules import CatchUp, ScheduleKind

PROFILES = """
[profiles.contracts]
folder = "/srv/contracts"

[profiles.letters]
folder = "letters"

[profiles.out]
folder = "../secrets"
"""


def load(folder: Path, *lines: str, cron: str = "0 2 * * *") -> settings.Settings:
    file = folder / "chordwise.toml"
    written = ["[schedules.nightly]", f'cron = "{cron}"', *lines, PROFILES]
    file.write_text("\n".join(written), "utf-8")
    return settings.load(file)


def test_a_schedule_has_default_values(tmp_path: Path) -> None:
    found = load(tmp_path, 'paths = ["in/*.pdf"]').schedules["nightly"]

    assert (found.kind, found.time_zone, found.profile) == (ScheduleKind.ANALYZE, "UTC", "")
    assert (found.catch_up, found.expires_after_hours) == (CatchUp.ONCE, 22)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('time_zone = "Europe/Bonn"', "no time zone “Europe/Bonn”"),
        ('time_zone = "../etc/passwd"', "no time zone"),
        ('profile = "bills"', "nightly: there is no profile “bills”"),
        ("", "nightly: there is nothing to analyze"),
        ('profile = "letters"', "there is nothing to analyze"),
        ('kind = "prune"', "kind = “prune” needs at least one of"),
        ('kind = "prune"\npaths = ["a"]', "paths is only for kind"),
        ('paths = ["a"]\nkeep_runs_days = 9', "keep_runs_days is only for"),
        ('kind = "report"', "kind = “report” needs a folder"),
        ('paths = ["a"]\nfolder = "b"', "folder is only for kind"),
        ('paths = ["a"]\nview = "runs"', "view is only for kind = “export”"),
        ('paths = ["a"]\nraw = true', "raw is only for kind = “export”"),
        ('kind = "prune"\nlane = "batch"', "lane is only for kind = “ana"),
        ('paths = ["a"]\nlane = "fast"', "lane: Input should be"),
        ('kind = "export"\nview = "runs"', "kind = “export” needs a folder"),
        ('kind = "export"\nfolder = "b"', "needs either view or sql"),
        ('kind = "export"\nfolder = "b"\nview = "a"\nsql = "b"', "needs either view or sql"),
        ('kind = "evaluate"\nmax_error_rate = 0.1', "max_error_rate is only for"),
        ('kind = "recalibrate"\ngold = "a.csv"', "gold is only for kind"),
        ('kind = "report"\nprofile = "letters"', "profile is only for kind"),
        ('kind = "recalibrate"\nmax_error_rate = 2', "less than 1"),
        ('kind = "certify"\nmax_error_rate = 0', "greater than 0"),
        ('kind = "certify"', "kind = “certify” needs a profile"),
        ('kind = "recalibrate"\nrisk = 0.1', "risk is only for kind"),
        ('kind = "dance"', "kind: Input should be"),
        ('profile = "out"\n[inbox]\nfolders = ["in"]', "is outside the inbox"),
        ('paths = ["a"]\n[schedules."a b"]\ncron = "0 2 * * *"', "a name consists of letters"),
        ('paths = ["a"]\n[schedules.daily]\npaths = ["a"]', "daily.cron: Field required"),
    ],
)
def test_an_invalid_schedule_is_rejected(tmp_path: Path, lines: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, lines)


def test_an_invalid_cron_expression_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"“0 26 .* is not a cron expression: bad hour"):
        load(tmp_path, 'paths = ["a"]', cron="0 26 * * *")


def test_a_profile_without_a_folder_has_one_in_each_inbox(tmp_path: Path) -> None:
    inboxes = f'[inbox]\nfolders = ["in", "{tmp_path}/other"]'
    lines = ('profile = "letters"', inboxes, "[profiles.bills]")
    found = load(tmp_path, *lines)
    bills = found.schedules["nightly"].model_copy(update={"profile": "bills"})

    anchored = [
        occurrences.anchor(found, each, Path("/elsewhere")).paths
        for each in (found.schedules["nightly"], bills)
    ]

    assert anchored == [
        (f"{tmp_path}/in/letters", f"{tmp_path}/other/letters"),
        (f"{tmp_path}/in/bills", f"{tmp_path}/other/bills"),
    ]


def test_a_batch_schedule_expires_after_the_spill_over(tmp_path: Path) -> None:
    """By default it also expires before the end of a day of 23 hours."""
    found = load(tmp_path, 'paths = ["a"]', 'lane = "batch"')

    assert found.schedules["nightly"].lane is Lane.BATCH
    assert found.batch.spill_over_hours < found.schedules["nightly"].expires_after_hours < 23


@pytest.mark.parametrize(
    ("lines", "name", "expected"),
    [
        ('paths = ["in/*.pdf", "/srv/all"]', "paths", ["{0}/in/*.pdf", "/srv/all"]),
        ('profile = "contracts"', "paths", ["/srv/contracts"]),
        ('kind = "report"\nfolder = "out"', "folder", ["{0}/out"]),
        ('kind = "insight"\nfolder = "out"', "folder", ["{0}/out"]),
        ('kind = "export"\nview = "runs"\nfolder = "out"', "folder", ["{0}/out"]),
        ('kind = "evaluate"\ngold = "truth.csv"', "gold", ["{0}/truth.csv"]),
        ('kind = "evaluate"\nprofile = "letters"', "gold", [""]),
    ],
)
def test_paths_are_relative_to_the_folder_of_the_settings_file(
    tmp_path: Path, lines: str, name: str, expected: list[str]
) -> None:
    """Absolute paths are unchanged, and the folder may come from a profile."""
    found = load(tmp_path, lines)
    schedule = occurrences.anchor(found, found.schedules["nightly"], found.base_folder)

    paths = getattr(schedule, name)

    assert ([paths] if isinstance(paths, str) else [*paths]) == [
        each.format(tmp_path) for each in expected
    ]
