"""What `doctor` says about a broker that fills up, and about processes that wait."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from chordwise.embedded import stack
from chordwise.embedded.stack import Commands, Level
from chordwise.embedded.valkey import EmbeddedValkey
from chordwise.errors import ExitCode
from chordwise.pipeline.diagnosis.checks import Check, CheckStatus, guarded
from chordwise.pipeline.diagnosis.doctor import look_at_broker, look_at_processes
from chordwise.settings import Settings, load
from chordwise.storage.connected_processes import connected
from chordwise.storage.database import open_engine
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State
from tests.fakes.stacks import COMMANDS, PROCESS, a_home, python, running, settings_for

# Says nothing before it is told to.
SILENT = """
go = note.with_name("go")
while not go.exists() and not gone.wait(0.05):
    pass
liveness.show"""
SLOW = Commands(
    migrate=COMMANDS.migrate,
    worker=COMMANDS.worker,
    scheduler=python(PROCESS.replace("\nliveness.show", SILENT), "scheduler"),
)


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    """Run a broker whose memory this module may limit."""
    with tempfile.TemporaryDirectory(prefix="cw-") as short:
        server = EmbeddedValkey(Path(short) / "valkey", Path(short))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def broker(valkey: EmbeddedValkey) -> Iterator[redis.Redis]:
    """Return a client of it; afterward there is no limit again."""
    with redis.Redis.from_url(valkey.redis_url()) as client:
        yield client
        client.config_set("maxmemory", 0)


@pytest.fixture
def own_settings(tmp_path: Path, valkey: EmbeddedValkey) -> Settings:
    """Return settings with this broker."""
    return load(home=tmp_path, broker_url=SecretStr(valkey.broker_url()))


def looked_at(settings: Settings) -> Check:
    """Look at the broker as `doctor` does."""
    return guarded("broker", lambda: look_at_broker(settings))


def test_a_broker_out_of_reach_has_its_reason(tmp_path: Path) -> None:
    """With the address, and without what may be secret in it."""
    address = SecretStr("redis://:planted-word@127.0.0.1:1/0")
    check = looked_at(load(home=tmp_path, broker_url=address))

    assert check.finding.endswith("127.0.0.1:1. Connection refused.")
    assert "planted-word" not in check.finding


def limit_to(broker: redis.Redis, share: float) -> None:
    """Let what the broker uses now be a share of what it may use."""
    used = int(broker.info("memory")["used_memory"])
    broker.config_set("maxmemory", int(used / share))


def test_a_broker_without_a_limit_is_fine(own_settings: Settings, broker: redis.Redis) -> None:
    """What it uses is told; there is nothing to compare it with."""
    broker.ping()

    check = looked_at(own_settings)

    assert check.verdict is CheckStatus.OK
    assert "MB in use; keeps messages" in check.finding


@pytest.mark.parametrize(("share", "verdict"), [(0.4, CheckStatus.OK), (0.85, CheckStatus.WARN)])
def test_a_broker_that_fills_up_is_warned_of(
    own_settings: Settings, broker: redis.Redis, share: float, verdict: CheckStatus
) -> None:
    """Above seventy percent it is time to do something."""
    limit_to(broker, share)

    check = looked_at(own_settings)

    assert check.verdict is verdict
    assert "of its maxmemory" in check.finding


def test_a_broker_that_takes_nothing_fails(own_settings: Settings, broker: redis.Redis) -> None:
    """A full broker answers, and is out of service nevertheless."""
    broker.config_set("maxmemory", 1)

    check = looked_at(own_settings)

    assert (check.verdict, check.exit_code) == (CheckStatus.FAIL, ExitCode.UNAVAILABLE)
    assert check.finding == "The broker is full and takes no messages."
    assert "maxmemory" in check.hint


def test_a_worker_that_waits_is_warned_of(tmp_path: Path) -> None:
    """Processes that run and do not work are told apart from those that do."""
    settings = load(home=tmp_path)
    missing = look_at_processes(settings, {})
    liveness.show(tmp_path, "scheduler", State.WORKING)
    liveness.show(tmp_path, "worker", State.WAITING)
    waiting = look_at_processes(settings, {})
    liveness.show(tmp_path, "worker", State.BUSY)

    working = look_at_processes(settings, {})

    assert missing.verdict is CheckStatus.WARN
    assert missing.finding == "no worker and no scheduler here or connected to the database"
    assert waiting.verdict is CheckStatus.WARN
    assert waiting.finding.startswith("The worker is waiting for the broker.")
    assert waiting.hint.endswith("worker.log.")
    assert working.verdict is CheckStatus.OK


def test_processes_on_other_machines_are_seen_in_the_database(
    tmp_path: Path, database_url: SecretStr
) -> None:
    """In a container, or beside workers elsewhere, there are no processes here to look at."""
    worker = open_engine(database_url, name="chordwise worker leases")
    scheduler = open_engine(database_url, name="chordwise scheduler")
    with worker.connect(), scheduler.connect(), worker.connect() as connection:
        seen = connected(connection)
        check = look_at_processes(load(home=tmp_path), seen)
    worker.dispose()
    scheduler.dispose()

    assert seen["worker"].sessions == 2
    assert check.verdict is CheckStatus.OK
    assert "the database sees 2 sessions of a worker" in check.finding
    assert "1 session of a scheduler" in check.finding


def test_a_process_that_has_just_started_gets_time_for_its_first_sign(tmp_path: Path) -> None:
    """The stack is ready when the worker is; the sign of an earlier scheduler is not taken for it.

    Once it is there, nobody waits for anything.
    """
    with a_home(tmp_path) as home:
        liveness.show(home, "scheduler", State.HELD_UP)
        stack.ensure(settings_for(home), Level.ALL, commands=SLOW)
        before = liveness.last_sign(home, "scheduler")
        threading.Timer(1, (home / "go").touch).start()

        check = look_at_processes(settings_for(home), {})

        assert "scheduler" in running(home).children
        assert before.state is None
        assert check.verdict is CheckStatus.OK
        assert check.finding == "The worker is consuming. The scheduler is consuming."
