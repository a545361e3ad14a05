"""What a stack runs, how it starts, and how it leaves."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from signal import Signals

import psycopg
import pytest
import redis

import chordwise
from chordwise.embedded import processes, stack
from chordwise.embedded.home import home_at
from chordwise.embedded.stack import Commands, Level
from chordwise.errors import ConfigurationError, ExitCode, ServiceUnavailableError
from chordwise.settings import InboxSettings
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State
from tests.fakes.stacks import (
    COMMANDS,
    PATIENCE_SECONDS,
    a_home,
    becomes,
    everybody,
    kill,
    nobody_left,
    note_of,
    python,
    running,
    settings_for,
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return a home whose stack is stopped after the test."""
    with a_home(tmp_path) as lent:
        yield lent


def test_the_database_alone_is_enough_for_reading(home: Path) -> None:
    """At the level `database` there is a migrated PostgreSQL and nothing else."""
    heard: list[str] = []

    services = stack.ensure(
        settings_for(home), Level.DATABASE, commands=COMMANDS, on_progress=heard.append
    )

    address = services.database_url.get_secret_value().replace("+psycopg", "")
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert set(running(home).children) == {"postgres"}
    assert services.broker_url is None
    assert "Starting PostgreSQL" in heard


def test_the_level_rises_and_never_falls(home: Path) -> None:
    """A command that works on jobs gets the rest started; one that reads takes nothing away."""
    settings = settings_for(home)
    stack.ensure(settings, Level.DATABASE, commands=COMMANDS)
    before = running(home)

    services = stack.ensure(settings, Level.ALL, commands=COMMANDS)
    stack.ensure(settings, Level.DATABASE, commands=COMMANDS)

    after = running(home)
    assert after.supervisor == before.supervisor
    assert after.children["postgres"] == before.children["postgres"]
    assert set(after.children) == {"postgres", "valkey", "scheduler", "worker"}
    assert services.broker_url is not None
    assert services.result_url == services.broker_url


def test_worker_and_scheduler_get_the_addresses(home: Path) -> None:
    """The processes of ours find database and broker in their environment."""
    services = stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)

    assert services.broker_url is not None
    expected = [services.database_url.get_secret_value(), services.broker_url.get_secret_value()]
    for name in ("worker", "scheduler"):
        assert becomes(lambda name=name: note_of(home, name) != "")  # type: ignore[misc]  # bound
        assert note_of(home, name).split("\n")[:2] == expected


def test_other_settings_bring_a_new_worker(home: Path) -> None:
    """The servers stay, while the processes that behave by the settings are replaced."""
    stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
    before = running(home)

    stack.ensure(settings_for(home, model="openai/gpt-5"), Level.ALL, commands=COMMANDS)
    stack.ensure(settings_for(home, model="openai/gpt-5"), Level.ALL, commands=COMMANDS)

    after = running(home)
    assert after.children["postgres"] == before.children["postgres"]
    assert after.children["valkey"] == before.children["valkey"]
    assert nobody_left([before.children["worker"], before.children["scheduler"]])
    assert {"worker", "scheduler"} <= set(after.children)


def test_what_a_stack_watches_is_not_ended_from_elsewhere(home: Path, tmp_path: Path) -> None:
    """A command from another folder would leave files and schedules waiting."""
    file = tmp_path / "chordwise.toml"
    inbox = InboxSettings(folders=(tmp_path / "inbox",))
    stack.ensure(settings_for(home, file=file, inbox=inbox), Level.ALL, commands=COMMANDS)
    before = running(home)
    other = tmp_path / "other" / "chordwise.toml"

    for elsewhere in (settings_for(home), settings_for(home, file=other, model="openai/gpt-5")):
        with pytest.raises(ConfigurationError, match="watches the inboxes") as refused:
            stack.ensure(elsewhere, Level.ALL, commands=COMMANDS)
        assert str(file) in refused.value.hint
        stack.ensure(elsewhere, Level.DATABASE, commands=COMMANDS)
        assert not stack.keeps_watch(elsewhere)

    assert running(home).children == before.children
    assert stack.keeps_watch(settings_for(home, file=file, inbox=inbox))


def test_who_changes_the_settings_of_a_stack_may_end_what_it_watches(
    home: Path, tmp_path: Path
) -> None:
    """It is the same file, from which the folder was removed."""
    file = tmp_path / "chordwise.toml"
    inbox = InboxSettings(folders=(tmp_path / "inbox",))
    stack.ensure(settings_for(home, file=file, inbox=inbox), Level.ALL, commands=COMMANDS)
    before = running(home)

    stack.ensure(settings_for(home, file=file), Level.ALL, commands=COMMANDS)

    assert nobody_left([before.children["scheduler"]])


def test_services_of_the_users_own_are_not_started(home: Path, tmp_path: Path) -> None:
    """With both addresses given, only worker and scheduler run, and they get these addresses."""
    own = stack.ensure(settings_for(tmp_path / "other"), Level.ALL, commands=COMMANDS)
    settings = settings_for(home, database_url=own.database_url, broker_url=own.broker_url)

    services = stack.ensure(settings, Level.ALL, commands=COMMANDS)

    assert set(running(home).children) == {"worker", "scheduler"}
    assert services.database_url == own.database_url
    assert becomes(lambda: note_of(home, "worker") != "")
    assert note_of(home, "worker").startswith(own.database_url.get_secret_value())
    assert stack.stop(home)
    assert stack.stop(tmp_path / "other")


@pytest.mark.parametrize("name", ["postgres", "valkey", "worker", "scheduler"])
def test_what_dies_comes_back(home: Path, name: str) -> None:
    """A child that was killed is started again, at the same address."""
    services = stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
    before = running(home)

    kill(before.children[name])

    assert becomes(lambda: running(home).children.get(name) not in (None, before.children[name]))
    assert stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS) == services
    address = services.database_url.get_secret_value().replace("+psycopg", "")
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_long_home_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    """A home too deep for a socket's address works all the same."""
    home = tmp_path / ("deep" * 30)

    services = stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
    sockets = home_at(home).sockets()

    try:
        assert services.broker_url is not None
        address = services.broker_url.get_secret_value().replace("redis+socket", "unix")
        with redis.Redis.from_url(address) as client:
            assert client.ping()
    finally:
        stack.stop(home)
    assert not sockets.is_relative_to(home)
    assert not sockets.exists()


def test_commands_at_the_same_time_share_one_stack(home: Path) -> None:
    """Several first commands start one supervisor between them, and all get an answer."""
    found: list[object] = []
    settings = settings_for(home)

    def command(level: Level) -> None:
        found.append(stack.ensure(settings, level, commands=COMMANDS).database_url)

    threads = [
        threading.Thread(target=command, args=(level,))
        for level in (Level.DATABASE, Level.ALL, Level.DATABASE, Level.ALL)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)

    assert len(found) == 4
    assert len(set(found)) == 1
    assert running(home).level is Level.ALL


def test_a_second_stack_in_the_foreground_is_refused(home: Path) -> None:
    """The second one says where the first one is, and which exit code that means."""
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    pid = running(home).supervisor.pid

    with pytest.raises(ServiceUnavailableError, match=f"up already in process {pid}") as refusal:
        stack.hold(settings_for(home), on_progress=print, on_ready=print, commands=COMMANDS)

    assert refusal.value.exit_code is ExitCode.UNAVAILABLE
    assert running(home).supervisor.pid == pid


def test_a_failed_migration_is_told(home: Path) -> None:
    """The command that wanted the database hears why there is none, and nothing is left behind."""
    commands = COMMANDS.model_copy(update={"migrate": python("raise SystemExit('no such table')")})

    with pytest.raises(ServiceUnavailableError, match="no such table"):
        stack.ensure(settings_for(home), Level.DATABASE, commands=commands)

    assert becomes(lambda: stack.find(home) is None)


def test_a_missing_model_file_is_a_matter_of_configuration(home: Path, tmp_path: Path) -> None:
    """A local model that is not there is refused before anything starts."""
    missing = tmp_path / "missing.gguf"

    with pytest.raises(ConfigurationError, match=r"missing\.gguf"):
        stack.ensure(settings_for(home, model=f"local/{missing}"), Level.ALL, commands=COMMANDS)

    assert stack.find(home) is None


WORKER = """
import os, sys, time
from pathlib import Path
from chordwise.telemetry import liveness
time.sleep(float(sys.argv[2]))
liveness.show(Path(os.environ["CHORDWISE_HOME"]), "worker", liveness.State(sys.argv[1]))
time.sleep(600)
"""


def worker(state: State, seconds: float = 0.0) -> Commands:
    """Return programs with a worker that shows a sign of life after some seconds."""
    return COMMANDS.model_copy(update={"worker": python(WORKER, state, str(seconds))})


def test_a_stack_is_ready_when_its_worker_consumes(home: Path) -> None:
    """Not when its process is there, and not by the sign of the one before it."""
    signs = []

    for model in ("openai/gpt-5", "openai/gpt-6"):
        commands = worker(State.CONSUMING, 1.0)
        stack.ensure(settings_for(home, model=model), Level.ALL, commands=commands)
        signs.append(liveness.last_sign(home, "worker"))

    assert all(sign.is_healthy and sign.age_seconds < 1 for sign in signs)


def test_a_worker_that_waits_for_servers_holds_up_no_command(home: Path) -> None:
    """The servers may be remote; documents can be taken in meanwhile."""
    stack.ensure(settings_for(home), Level.ALL, commands=worker(State.HELD_UP))

    log = home_at(home).log("stack").read_text("utf-8")
    assert "the worker does not consume yet: The worker is waiting for database or broker" in log
    assert running(home).phase == "ready"


def test_a_worker_that_dies_at_its_start_is_told(home: Path) -> None:
    """With the last words of its log; nothing is left behind that would start it again."""
    broken = python("raise SystemExit('worker.concurrency needs more files')")
    commands = COMMANDS.model_copy(update={"worker": broken})
    home_at(home).prepare()
    home_at(home).log("worker").write_text("An older worker had other troubles.\n", "utf-8")

    with pytest.raises(ServiceUnavailableError, match=r"ended as it started: worker\.conc") as told:
        stack.ensure(settings_for(home), Level.ALL, commands=commands)

    assert "older" not in told.value.what
    assert str(home_at(home).log("worker")) in told.value.hint
    assert becomes(lambda: stack.find(home) is None)


def test_a_worker_that_dies_leaves_a_database_that_was_there(home: Path) -> None:
    """Commands that only read go on, and the next one that needs a worker tries again."""
    broken = COMMANDS.model_copy(update={"worker": python("raise SystemExit('no')")})
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)

    with pytest.raises(ServiceUnavailableError, match="ended as it started"):
        stack.ensure(settings_for(home), Level.ALL, commands=broken)
    left = set(running(home).children)
    stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)

    assert left == {"postgres", "valkey"}
    assert set(running(home).children) == {"postgres", "valkey", "scheduler", "worker"}


def test_stop_leaves_no_process(home: Path) -> None:
    """After `down` nothing of the stack runs, and nothing claims that it does."""
    stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
    identities = everybody(running(home))

    stopped = stack.stop(home)

    assert stopped
    assert len(identities) == 5
    assert nobody_left(identities)
    assert stack.find(home) is None
    assert not stack.stop(home)


def test_a_killed_supervisor_leaves_no_orphans(home: Path) -> None:
    """Worker and scheduler notice its death; the next command clears away what remains."""
    settings = settings_for(home)
    stack.ensure(settings, Level.ALL, commands=COMMANDS)
    before = running(home)

    kill(before.supervisor)
    assert stack.find(home) is None
    assert becomes(lambda: note_of(home, "worker") == "orphaned")
    stack.ensure(settings, Level.ALL, commands=COMMANDS)

    assert nobody_left(everybody(before))
    assert set(running(home).children) == {"postgres", "valkey", "scheduler", "worker"}


def test_down_stops_what_a_killed_supervisor_left(home: Path) -> None:
    """`down` works without a supervisor too."""
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    before = running(home)
    kill(before.supervisor)

    stopped = stack.stop(home)

    assert stopped
    assert nobody_left(everybody(before))


FOREGROUND = """
import sys
from pathlib import Path
from chordwise.embedded import stack
from chordwise.embedded.stack import Commands
from chordwise.settings import Settings
stack.hold(
    Settings(home=Path(sys.argv[1])),
    on_progress=lambda text: print(text, file=sys.stderr),
    on_ready=lambda services: print("ready", services, flush=True),
    commands=Commands.model_validate_json(sys.argv[2]),
)
print("stopped")
"""


@pytest.mark.parametrize("number", [Signals.SIGTERM, Signals.SIGINT])
def test_a_signal_takes_the_foreground_down(home: Path, number: Signals) -> None:
    """On SIGTERM or Ctrl-C everything stops in order, and the command goes on to its end."""
    with subprocess.Popen(
        python(FOREGROUND, str(home), COMMANDS.model_dump_json()),
        env={"PYTHONPATH": str(Path(chordwise.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        identities = everybody(running(home))
        os.kill(process.pid, number)
        rest = process.stdout.read()

    assert first.startswith("ready")
    assert "**********" in first
    assert rest == "stopped\n"
    assert process.returncode == 0
    assert nobody_left(identities)


def test_an_idle_stack_leaves(home: Path) -> None:
    """A background stack goes when no command has needed it for a while."""
    settings = settings_for(home, idle_seconds=0.5)

    stack.ensure(settings, Level.ALL, commands=COMMANDS)
    identities = everybody(running(home))

    assert becomes(lambda: nobody_left(identities))
    assert stack.find(home) is None


def test_a_watched_inbox_keeps_an_idle_stack(home: Path) -> None:
    """A dropped file needs a running scheduler; without a folder the stack leaves again."""
    inbox, file = InboxSettings(folders=(home.parent / "inbox",)), home.parent / "chordwise.toml"
    watching = settings_for(home, idle_seconds=0.2, file=file, inbox=inbox)
    stack.ensure(watching, Level.ALL, commands=COMMANDS)
    was_kept = not processes.wait_until(lambda: stack.find(home) is None, 1.5)

    stack.ensure(settings_for(home, idle_seconds=0.2, file=file), Level.ALL, commands=COMMANDS)

    assert was_kept
    assert becomes(lambda: stack.find(home) is None)


def test_open_work_keeps_an_idle_stack(home: Path) -> None:
    """As long as a job is open the stack stays; it leaves once the job has ended."""
    services = stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    address = services.database_url.get_secret_value().replace("+psycopg", "")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("INSERT INTO jobs VALUES ('running')")
        stack.ensure(settings_for(home, idle_seconds=0.2), Level.ALL, commands=COMMANDS)
        log = home_at(home).log("stack")
        was_kept = not processes.wait_until(lambda: stack.find(home) is None, 1.5)

        # The stack may leave before PostgreSQL has answered.
        with suppress(psycopg.OperationalError):
            connection.execute("UPDATE jobs SET status = 'succeeded'")

    assert was_kept
    assert becomes(lambda: stack.find(home) is None)
    assert "the stack has been idle" in log.read_text(encoding="utf-8")
