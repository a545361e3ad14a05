"""Schedules in the settings are refused with a sentence, before anything depends on them."""

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
"""


def load(folder: Path, *lines: str) -> settings.Settings:
    file = folder / "chordwise.toml"
    file.write_text("\n".join(["[schedules.nightly]", *lines, PROFILES]), "utf-8")
    return settings.load(file)


def test_a_schedule_says_what_is_done_when(tmp_path: Path) -> None:
    found = load(tmp_path, 'cron = "0 2 * * *"', 'paths = ["in/*.pdf"]').schedules["nightly"]

    assert (found.kind, found.time_zone, found.profile) == (ScheduleKind.ANALYZE, "UTC", "")
    assert (found.catch_up, found.expires_after_hours) == (CatchUp.ONCE, 22)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (('paths = ["a"]',), "cron: Field required"),
        (('cron = "0 26 * * *"', 'paths = ["a"]'), "“0 26 .* is no cron expression: bad hour"),
        (('cron = "0 2 * * *"', 'time_zone = "Europe/Bonn"'), "no time zone “Europe/Bonn”"),
        (('cron = "0 2 * * *"', 'time_zone = "../etc/passwd"'), "no time zone"),
        (('cron = "0 2 * * *"', 'profile = "bills"'), "nightly: there is no profile “bills”"),
        (('cron = "0 2 * * *"',), "nightly: there is nothing to analyze"),
        (('cron = "0 2 * * *"', 'profile = "letters"'), "there is nothing to analyze"),
        (('cron = "0 2 * * *"', 'kind = "prune"'), "kind = “prune” needs at least one of"),
        (('cron = "0 2 * * *"', 'kind = "prune"', 'paths = ["a"]'), "paths is only for kind"),
        (
            ('cron = "0 2 * * *"', 'paths = ["a"]', "keep_runs_days = 9"),
            "keep_runs_days is only for",
        ),
        (('cron = "0 2 * * *"', 'kind = "report"'), "kind = “report” needs a folder"),
        (('cron = "0 2 * * *"', 'paths = ["a"]', 'folder = "b"'), "folder is only for kind"),
        (
            ('cron = "0 2 * * *"', 'paths = ["a"]', 'view = "runs"'),
            "view is only for kind = “export”",
        ),
        (('cron = "0 2 * * *"', 'paths = ["a"]', "raw = true"), "raw is only for kind = “export”"),
        (
            ('cron = "0 2 * * *"', 'kind = "prune"', 'lane = "batch"'),
            "lane is only for kind = “ana",
        ),
        (('cron = "0 2 * * *"', 'paths = ["a"]', 'lane = "fast"'), "lane: Input should be"),
        (
            ('cron = "0 2 * * *"', 'kind = "export"', 'view = "runs"'),
            "kind = “export” needs a folder",
        ),
        (('cron = "0 2 * * *"', 'kind = "export"', 'folder = "b"'), "needs either view or sql"),
        (
            ('cron = "0 2 * * *"', 'kind = "export"', 'folder = "b"', 'view = "a"', 'sql = "b"'),
            "needs either view or sql",
        ),
        (
            ('cron = "0 2 * * *"', 'kind = "evaluate"', "max_error_rate = 0.1"),
            "max_error_rate is only for",
        ),
        (('cron = "0 2 * * *"', 'kind = "recalibrate"', 'gold = "a.csv"'), "gold is only for kind"),
        (
            ('cron = "0 2 * * *"', 'kind = "report"', 'profile = "letters"'),
            "profile is only for kind",
        ),
        (
            ('cron = "0 2 * * *"', 'kind = "recalibrate"', "max_error_rate = 2"),
            "less than 1",
        ),
        (('cron = "0 2 * * *"', 'kind = "certify"', "max_error_rate = 0"), "greater than 0"),
        (('cron = "0 2 * * *"', 'kind = "recalibrate"', "risk = 0.1"), "risk is only for kind"),
        (('cron = "0 2 * * *"', 'kind = "dance"'), "kind: Input should be"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, lines: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, *lines)


def test_a_profile_without_a_folder_of_its_own_has_one_in_each_inbox(tmp_path: Path) -> None:
    """As for what is dropped there; what is taken in then is for the schedule to say."""
    inboxes = f'[inbox]\nfolders = ["in", "{tmp_path}/other"]'
    lines = ('cron = "0 2 * * *"', 'profile = "letters"', inboxes, "[profiles.bills]")
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


def test_a_profile_does_not_lead_out_of_the_inbox(tmp_path: Path) -> None:
    lines = ('cron = "0 2 * * *"', 'profile = "out"', '[inbox]\nfolders = ["in"]')

    with pytest.raises(ConfigurationError, match="is outside the inbox"):
        load(tmp_path, *lines, '[profiles.out]\nfolder = "../secrets"')


@pytest.mark.parametrize("kind", ['kind = "report"', 'kind = "export"\nview = "runs"'])
def test_a_folder_to_write_to_counts_from_the_file(tmp_path: Path, kind: str) -> None:
    found = load(tmp_path, 'cron = "0 2 * * *"', kind, 'folder = "out"')

    anchored = occurrences.anchor(found, found.schedules["nightly"], tmp_path)

    assert anchored.folder == f"{tmp_path}/out"


def test_a_name_can_be_part_of_a_run_name(tmp_path: Path) -> None:
    file = tmp_path / "chordwise.toml"
    file.write_text('[schedules."a b"]\ncron = "0 2 * * *"\npaths = ["a"]\n', "utf-8")

    with pytest.raises(ConfigurationError, match="a name consists of letters"):
        settings.load(file)


def test_a_night_in_batches_has_time_to_be_asked_online(tmp_path: Path) -> None:
    """By default it expires later than its questions spill over, and earlier than a short day."""
    found = load(tmp_path, 'cron = "0 2 * * *"', 'paths = ["a"]', 'lane = "batch"')

    assert found.schedules["nightly"].lane is Lane.BATCH
    assert found.batch.spill_over_hours < found.schedules["nightly"].expires_after_hours < 23


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    """Wherever the scheduler was started; absolute ones stay, and a profile may have the folder."""
    found = load(tmp_path, 'cron = "0 2 * * *"', 'paths = ["in/*.pdf", "/srv/all"]')
    of_profile = load(tmp_path, 'cron = "0 2 * * *"', 'profile = "contracts"')

    anchored = [
        occurrences.anchor(each, each.schedules["nightly"], occurrences.folder_of(each)).paths
        for each in (found, of_profile)
    ]

    assert anchored == [(f"{tmp_path}/in/*.pdf", "/srv/all"), ("/srv/contracts",)]


def test_a_gold_file_counts_from_the_folder_of_the_file(tmp_path: Path) -> None:
    measured = load(tmp_path, 'cron = "0 6 * * *"', 'kind = "evaluate"', 'gold = "truth.csv"')
    said = load(tmp_path, 'cron = "0 6 * * *"', 'kind = "evaluate"', 'profile = "letters"')

    found = [
        occurrences.anchor(each, each.schedules["nightly"], occurrences.folder_of(each)).gold
        for each in (measured, said)
    ]

    assert found == [str(tmp_path / "truth.csv"), ""]
