"""`doctor` finds what folders, addresses and schedules lack, before the night does."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chordwise import settings as settings_module
from chordwise.errors import ExitCode
from chordwise.pipeline.diagnosis import places, schedules
from chordwise.pipeline.diagnosis.checks import Check, CheckStatus
from chordwise.settings import Settings
from chordwise.storage.database import open_engine
from tests.fakes.pipeline import a_pipeline

NOBODY = 65_534
KEY = "whsec_bm90IHZlcnkgc2VjcmV0LCBidXQgbG9uZyBlbm91Z2g="
NIGHTLY = '[schedules.nightly]\ncron = "30 2 * * *"\ntime_zone = "Europe/Berlin"\n'
IN_BATCHES = f'{NIGHTLY}paths = ["out"]\nlane = "batch"\n'
HALF_PRICE = '[profiles.contracts]\nlane = "batch"'
EXPORT = f'{NIGHTLY}kind = "export"\nfolder = "out"\n'


@contextmanager
def as_nobody() -> Iterator[None]:
    """Have no more rights than an ordinary user."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def load(folder: Path, toml: str, servers: Settings | None = None) -> Settings:
    """Return the settings of a file in a folder, with the servers of this test if wanted."""
    file = folder / "chordwise.toml"
    file.write_text(toml, "utf-8")
    found = settings_module.load(file)
    if servers is None:
        return found
    return found.model_copy(update={"database_url": servers.database_url})


def looked_at(folder: Path, toml: str) -> dict[str, Check]:
    """Return what is said of the places of a configuration, by name."""
    return {each.name: each for each in places.look_at_places(load(folder, toml))}


def webhook(url: str, more: str = "") -> str:
    """Return a configuration with a webhook."""
    return f'[delivery]\nwebhook_url = "{url}"\nwebhook_secret = "{KEY}"\n{more}'


def test_without_places_there_is_nothing_to_say(tmp_path: Path) -> None:
    """What is not configured is not wrong."""
    assert looked_at(tmp_path, "") == {}


def test_good_places_are_named(tmp_path: Path) -> None:
    """Relative ones count from chordwise.toml; an inbox that is missing will be made."""
    (tmp_path / "out").mkdir()

    found = looked_at(
        tmp_path,
        '[inbox]\nfolders = ["in"]\n[profiles.bills]\ntypes = ["extraction"]\n'
        + webhook("https://127.0.0.1/", 'allow_private_addresses = true\nfolder = "out"'),
    )

    assert {name: each.finding for name, each in found.items()} == {
        "profile bills": "asks extractive for extraction",
        "inbox": f"watched: {tmp_path}/in",
        "webhook": "127.0.0.1 is at 127.0.0.1, and may be told; signed",
        "delivery": f"jsonl into {tmp_path}/out",
    }
    assert {each.verdict for each in found.values()} == {CheckStatus.OK}


@pytest.mark.parametrize(
    ("toml", "finding", "hint"),
    [
        ('[delivery]\nfolder = "out"', "delivery.folder: there is no folder", "mount it"),
        (webhook("https://127.0.0.1/"), "leads to 127.0.0.1, which is not", "allow_private"),
        (webhook("https://nobody.invalid/"), "nobody.invalid has no address.", "webhook_url"),
        ('[inbox]\nfolders = ["in", "in/deeper"]', "overlap", "neither in another"),
        ('[profiles.x]\nschema = "gone.json"', "gone.json cannot be read", "Put the file there"),
        ('[profiles.x]\nschema = "chordwise.toml"', "toml is not JSON", "Correct the file"),
        ('[profiles.x]\nmodel = "gone"', "There is no model named “gone”.", "Known: "),
    ],
)
def test_what_is_wrong_with_a_place_is_said(
    tmp_path: Path, toml: str, finding: str, hint: str
) -> None:
    """As a failure of the configuration, with what to do; no request is sent."""
    (check,) = looked_at(tmp_path, toml).values()

    assert (check.verdict, check.exit_code) == (CheckStatus.FAIL, ExitCode.CONFIGURATION)
    assert finding in check.finding
    assert hint in check.hint


@pytest.mark.parametrize("toml", ['[delivery]\nfolder = "."', '[inbox]\nfolders = ["in"]'])
def test_a_place_of_somebody_else_is_found(toml: str) -> None:
    """With the user for whom it has to be opened."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        settings = load(folder, toml)
        folder.chmod(0o555)

        with as_nobody():
            (check,) = places.look_at_places(settings)
            user = os.geteuid()

        folder.chmod(0o755)
    assert check.verdict is CheckStatus.FAIL
    assert f"cannot be written to by user {user}" in check.finding
    assert f"chown {user} {folder}" in check.hint


def test_an_inbox_that_cannot_be_made_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in /proc, where even root may write and nobody can make anything."""

    def refuse(path: str, _mode: int = 0o777) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    settings = load(tmp_path, '[inbox]\nfolders = ["in"]')
    monkeypatch.setattr(os, "mkdir", refuse)

    (check,) = places.look_at_places(settings)

    assert (check.verdict, check.exit_code) == (CheckStatus.WARN, ExitCode.SUCCESS)
    assert check.finding == f"{tmp_path}/in cannot be made: No such file or directory"
    assert check.hint == "Make it, or name another folder in inbox.folders."


def test_looking_at_an_inbox_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither the folder that will be made, nor the trial."""
    looked_at(tmp_path, '[inbox]\nfolders = ["deep/in"]')

    assert [each.name for each in tmp_path.iterdir()] == ["chordwise.toml"]


def test_a_schedule_is_shown_with_its_next_time(tmp_path: Path) -> None:
    """In its own time zone."""
    (tmp_path / "in").mkdir()

    (check,) = schedules.configured(load(tmp_path, f'{NIGHTLY}paths = ["in"]'))

    assert (check.name, check.verdict) == ("schedule nightly", CheckStatus.OK)
    assert check.finding.startswith("analyze, due ")
    assert check.finding.endswith(" 02:30 Europe/Berlin")


@pytest.mark.parametrize(
    ("toml", "finding"),
    [
        (f'{NIGHTLY}paths = ["gone"]', "gone"),
        (f'{NIGHTLY}paths = ["out/*.pdf"]\n[inbox]\nfolders = ["out"]', "taken at once"),
        (f'{NIGHTLY}kind = "report"\nfolder = "gone"', "there is no folder"),
        (IN_BATCHES, "extractive has no Batch API: it is asked online"),
        (f'model = "openai/gpt-6.1-terra"\n{IN_BATCHES}expires_after_hours = 20', "20 hours only"),
        (f'{NIGHTLY}kind = "reanalyze"\nlane = "batch"\nexpires_after_hours = 2', "20 hours only"),
        (f'{NIGHTLY}kind = "reanalyze"\nexpires_after_hours = 2\n{HALF_PRICE}', "20 hours only"),
        (f'{NIGHTLY}kind = "recalibrate"', "needs scikit-learn"),
        (f'{EXPORT}view = "nothing"', "There is no table or view “nothing” to export."),
        (f'{EXPORT}sql = "SELECT missing"', "missing"),
        (f'{EXPORT}sql = "VACUUM"', "Only statements that read are taken"),
    ],
)
def test_a_schedule_that_would_fail_is_a_warning(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, finding: str
) -> None:
    """What it lacks may be there in time, and nothing else waits for it."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    (tmp_path / "out").mkdir()

    (check,) = schedules.configured(load(tmp_path, toml, settings))

    assert (check.verdict, check.exit_code) == (CheckStatus.WARN, ExitCode.SUCCESS)
    assert finding in check.finding
    assert check.hint
    assert list((tmp_path / "out").iterdir()) == []


def test_schedules_of_the_database_are_looked_at_too(settings: Settings, tmp_path: Path) -> None:
    """Those of the configuration are not said twice; one that cannot be read is a failure."""
    insert = (
        "INSERT INTO schedules (id, name, origin, cron, time_zone, kind, options)"
        " VALUES (gen_random_uuid(), :name, :origin, '', '', '', CAST(:options AS jsonb))"
    )
    pipeline = a_pipeline(settings)
    prune = '{"cron": "0 5 * * *", "kind": "prune", "keep_cache_days": 9}'
    for name, origin, options in (
        ("broken", "database", "{}"),
        ("ours", "configuration", prune),
        ("tidy", "database", prune),
    ):
        pipeline.execute(insert, name=name, origin=origin, options=options)
    assert settings.database_url is not None
    engine = open_engine(settings.database_url)

    broken, tidy = schedules.added(load(tmp_path, "", settings), engine)

    engine.dispose()
    assert (broken.name, broken.verdict) == ("schedule broken", CheckStatus.FAIL)
    assert "cannot be read: cron: Field required" in broken.finding
    assert (tidy.name, tidy.verdict) == ("schedule tidy", CheckStatus.OK)
