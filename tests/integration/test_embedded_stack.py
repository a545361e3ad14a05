"""Tests of the embedded stack: its start, its processes and addresses, and its stop."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory

import psycopg
import pytest
import redis

import chordwise
from chordwise.embedded import processes, stack, stack_plan
from chordwise.embedded.home import Level, StackState, home_at, locked, write_state
from chordwise.embedded.processes import ProcessIdentity
from chordwise.embedded.stack_plan import Commands
from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.settings import InboxSettings, Settings
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State
from tests.fakes.stacks import (
    COMMANDS,
    PATIENCE_SECONDS,
    all_ended,
    becomes,
    kill,
    note_of,
    processes_of,
    python,
    running,
    settings_for,
)

IDLE = "the stack has been idle"


@pytest.mark.nightly
def test_the_level_of_a_stack_is_never_lowered(home: Path) -> None:
    """A reading command gets only a migrated PostgreSQL; a working one gets the rest.

    Our processes receive the addresses of database and broker in their environment.
    """
    heard: list[str] = []
    settings = settings_for(home)
    reading = stack.ensure(settings, Level.DATABASE, commands=COMMANDS, on_progress=heard.append)
    before = running(home)
    address = reading.require_database_url().get_secret_value()
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)

    services = stack.ensure(settings, Level.ALL, commands=COMMANDS)
    stack.ensure(settings, Level.DATABASE, commands=COMMANDS)

    after = running(home)
    assert "Starting PostgreSQL" in heard
    assert (set(before.children), reading.broker_url) == ({"postgres"}, None)
    assert after.supervisor == before.supervisor
    assert after.children["postgres"] == before.children["postgres"]
    assert set(after.children) == {"postgres", "valkey", "scheduler", "worker"}
    assert services.broker_url is not None
    expected = [
        services.require_database_url().get_secret_value(),
        services.broker_url.get_secret_value(),
    ]
    for name in ("worker", "scheduler"):
        assert becomes(lambda name=name: note_of(home, name) != "")  # type: ignore[misc]  # bound
        assert note_of(home, name).split("\n")[:2] == expected


def test_the_logs_of_running_processes_are_limited(home: Path) -> None:
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    log = home_at(home).log("postgres")

    with log.open("ab") as output:
        output.write(b"x" * (processes.MAX_LOG_BYTES + 1))
        output.flush()
        assert becomes(lambda: log.stat().st_size < processes.MAX_LOG_BYTES)
        output.write(b"later\n")

    assert log.read_bytes().endswith(b"later\n")
    assert log.with_name("postgres.log.1").stat().st_size == processes.MAX_LOG_BYTES


@pytest.mark.nightly
def test_inboxes_of_a_stack_are_not_ended_from_another_folder(home: Path, tmp_path: Path) -> None:
    """Otherwise files and schedules would wait for a command of their own folder.

    A change of its own file may end them.
    """
    file = tmp_path / "chordwise.toml"
    inbox = InboxSettings(folders=(tmp_path / "inbox",))
    stack.ensure(settings_for(home, file=file, inbox=inbox), Level.ALL, commands=COMMANDS)
    before = running(home)
    other = tmp_path / "other" / "chordwise.toml"

    for elsewhere in (settings_for(home), settings_for(home, file=other, model="openai/gpt-5")):
        with pytest.raises(ConfigurationError, match="serves the inboxes") as refused:
            stack.ensure(elsewhere, Level.ALL, commands=COMMANDS)
        assert str(file) in refused.value.hint
        stack.ensure(elsewhere, Level.DATABASE, commands=COMMANDS)
        assert not stack.is_watching(elsewhere)

    assert running(home).children == before.children
    assert stack.is_watching(settings_for(home, file=file, inbox=inbox))
    stack.ensure(settings_for(home, file=file), Level.ALL, commands=COMMANDS)
    assert all_ended([before.children["scheduler"]])


def test_services_that_the_user_provides_are_not_started(home: Path, settings: Settings) -> None:
    urls = settings.require_database_url(), settings.broker_url
    provided = settings_for(home, database_url=urls[0], broker_url=urls[1])

    services = stack.ensure(provided, Level.ALL, commands=COMMANDS)

    assert set(running(home).children) == {"worker", "scheduler"}
    assert (services.database_url, services.broker_url) == urls
    assert becomes(lambda: note_of(home, "worker") != "")
    assert note_of(home, "worker").startswith(urls[0].get_secret_value())
    assert stack.stop(home)


def has_another(home: Path, name: str, before: ProcessIdentity) -> bool:
    return running(home).children.get(name) not in (None, before)


def test_a_dead_child_is_restarted(home: Path) -> None:
    services = stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
    address = services.require_database_url().get_secret_value()

    for name in ("postgres", "valkey", "worker", "scheduler"):
        before = running(home).children[name]
        kill(before)

        assert becomes(partial(has_another, home, name, before)), name
        again = stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
        assert (again.database_url, again.broker_url) == (
            services.database_url,
            services.broker_url,
        )
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.nightly
def test_a_home_with_a_long_path_has_its_sockets_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ("deep" * 30)

    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    sockets = home_at(home).sockets()
    with monkeypatch.context() as patch, TemporaryDirectory(dir="/tmp") as folder:
        patch.setattr(tempfile, "tempdir", folder)
        services = stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)

    try:
        assert services.broker_url is not None
        address = services.broker_url.get_secret_value()
        with redis.Redis.from_url(address) as client:
            assert client.ping()
    finally:
        stack.stop(home)
    assert not sockets.is_relative_to(home)
    assert not sockets.exists()


def test_concurrent_commands_share_one_stack(home: Path) -> None:
    """Several first commands start one supervisor together, and each receives an answer."""
    settings, others = settings_for(home), settings_for(home, model="openai/gpt-5")

    with ThreadPoolExecutor() as pool:
        futures = [
            pool.submit(stack.ensure, configured, level, commands=COMMANDS)
            for configured in (settings, others)
            for level in (Level.DATABASE, Level.ALL)
        ]

    assert len({future.result().database_url for future in futures}) == 1
    assert running(home).level is Level.ALL


def test_a_request_unread_by_a_stopping_supervisor_goes_to_the_next(home: Path) -> None:
    """Its connection is closed without an answer, and the command starts another supervisor."""
    place = home_at(home)
    place.prepare()

    with ThreadPoolExecutor() as pool, locked(place), stack_plan.listen(place) as listener:
        path = Path(listener.getsockname())
        identity = ProcessIdentity(pid=os.getpid(), start="")
        write_state(place, StackState(supervisor=identity, control_socket=path))
        future = pool.submit(stack.ensure, settings_for(home), Level.DATABASE, commands=COMMANDS)
        is_asked, _, _ = select.select([listener], [], [], PATIENCE_SECONDS)

    assert is_asked
    assert future.result().require_database_url().get_secret_value() == running(home).database_url


MIGRATION = """
import os, time
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.05)
"""


def test_a_supervisors_early_death_is_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file has the settings that it received; the next command cleans up."""
    key = "a-key-of-mine"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    commands = COMMANDS.model_copy(update={"migrate": python(MIGRATION)})
    left: list[bool] = []

    def strike(activity: str) -> None:
        if activity == "Updating the database schema":
            files = [path for path in home.rglob("*") if path.is_file()]
            left.extend(key.encode() in path.read_bytes() for path in files)
            kill(running(home).supervisor)

    with pytest.raises(ServiceUnavailableError, match="The stack exited while it was starting"):
        stack.ensure(settings_for(home), Level.DATABASE, commands=commands, on_progress=strike)
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)

    assert left
    assert not any(left)
    assert running(home).phase == "ready"


def test_a_failed_migration_is_reported(home: Path) -> None:
    commands = COMMANDS.model_copy(update={"migrate": python("raise SystemExit('no such table')")})

    with pytest.raises(ServiceUnavailableError, match="no such table"):
        stack.ensure(settings_for(home), Level.DATABASE, commands=commands)

    assert becomes(lambda: stack.find(home) is None)


def test_a_missing_model_file_is_a_configuration_error(home: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.gguf"

    with pytest.raises(ConfigurationError, match=r"missing\.gguf"):
        stack.ensure(settings_for(home, model=f"local/{missing}"), Level.ALL, commands=COMMANDS)

    assert stack.find(home) is None


WORKER = """
import os, sys, time
from pathlib import Path
from chordwise.telemetry import liveness
time.sleep(float(sys.argv[2]))
liveness.write_heartbeat(Path(os.environ["CHORDWISE_HOME"]), "worker", liveness.State(sys.argv[1]))
time.sleep(600)
"""


def worker(state: State, seconds: float = 0.0) -> Commands:
    """Return programs with a worker that shows a sign of life after some seconds."""
    return COMMANDS.model_copy(update={"worker": python(WORKER, state, str(seconds))})


def test_changed_settings_start_a_new_worker_and_await_it(home: Path) -> None:
    """The servers stay, and a stack is ready when its worker consumes.

    It is also ready when its worker waits for servers: documents can be taken in.
    """
    signs, states = [], []

    for model in ("openai/gpt-5", "openai/gpt-6", "openai/gpt-6"):
        commands = worker(State.CONSUMING, 1.0)
        stack.ensure(settings_for(home, model=model), Level.ALL, commands=commands)
        signs.append(liveness.last_sign(home, "worker"))
        states.append(running(home))
    stack.ensure(settings_for(home), Level.ALL, commands=worker(State.HELD_UP))

    before, after, again = (state.children for state in states)
    for server in ("postgres", "valkey"):
        assert before[server] == after[server]
    assert all_ended([before["worker"], before["scheduler"]])
    assert {"worker", "scheduler"} <= set(after)
    assert again == after
    assert all(sign.is_healthy and sign.age_seconds < 1 for sign in signs[:2])
    log = home_at(home).log("stack").read_text("utf-8")
    assert "the worker is not ready yet: The worker is waiting for database or broker" in log
    assert running(home).phase == "ready"


@pytest.mark.parametrize("left", [set(), {"postgres", "valkey"}])
def test_a_worker_that_dies_at_startup_is_reported(home: Path, left: set[str]) -> None:
    """A database that was started for another command keeps running; otherwise the stack ends."""
    broken = python("raise SystemExit('worker.concurrency needs more files')")
    commands = COMMANDS.model_copy(update={"worker": broken})
    home_at(home).prepare()
    home_at(home).log("worker").write_text("An older worker had other errors.\n", "utf-8")
    if left:
        stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)

    with pytest.raises(ServiceUnavailableError, match=r"exited at its start: worker\.conc") as told:
        stack.ensure(settings_for(home), Level.ALL, commands=commands)

    assert "older" not in told.value.what
    assert str(home_at(home).log("worker")) in told.value.hint
    if left:
        assert set(running(home).children) == left
        stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
        assert set(running(home).children) == {*left, "scheduler", "worker"}
    else:
        assert becomes(lambda: stack.find(home) is None)


def test_a_killed_supervisor_leaves_no_orphans(home: Path) -> None:
    """Worker and scheduler notice its death; the next command cleans up the rest.

    After `down` no process of the stack runs, and no file claims that one does.
    """
    settings = settings_for(home)
    stack.ensure(settings, Level.ALL, commands=COMMANDS)
    before = running(home)

    kill(before.supervisor)
    assert stack.find(home) is None
    assert becomes(lambda: note_of(home, "worker") == "orphaned")
    stack.ensure(settings, Level.ALL, commands=COMMANDS)

    after = running(home)
    assert all_ended(processes_of(before))
    assert set(after.children) == {"postgres", "valkey", "scheduler", "worker"}
    assert stack.stop(home)
    assert all_ended(processes_of(after))
    assert stack.find(home) is None
    assert not stack.stop(home)


def test_down_stops_the_processes_of_a_killed_supervisor(home: Path) -> None:
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    before = running(home)
    kill(before.supervisor)

    assert stack.stop(home)
    assert all_ended(processes_of(before))


FOREGROUND = """
import sys
from pathlib import Path
from chordwise.embedded import stack
from chordwise.embedded.stack_plan import Commands
from chordwise.settings import Settings
stack.run_in_foreground(
    Settings(home=Path(sys.argv[1])),
    on_progress=lambda text: print(text, file=sys.stderr),
    on_ready=lambda reached: print("ready", reached, flush=True),
    commands=Commands.model_validate_json(sys.argv[2]),
)
print("stopped")
"""


def test_ctrl_c_stops_a_stack_in_the_foreground(home: Path) -> None:
    with subprocess.Popen(
        python(FOREGROUND, str(home), COMMANDS.model_dump_json()),
        env={"PYTHONPATH": str(Path(chordwise.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        identities = processes_of(running(home))
        os.kill(process.pid, Signals.SIGINT)
        rest = process.stdout.read()

    assert first.startswith("ready")
    assert "**********" in first
    assert rest == "stopped\n"
    assert process.returncode == 0
    assert all_ended(identities)


def test_the_death_of_an_adopted_stack_is_reported(home: Path) -> None:
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    supervisor = running(home).supervisor
    with subprocess.Popen(
        python(FOREGROUND, str(home), COMMANDS.model_dump_json()),
        env={"PYTHONPATH": str(Path(chordwise.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        assert running(home).supervisor == supervisor
        kill(supervisor)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode != 0
    assert "The stack was killed" in errors


def test_a_watched_inbox_keeps_an_idle_stack_running(home: Path) -> None:
    inbox, file = InboxSettings(folders=(home.parent / "inbox",)), home.parent / "chordwise.toml"
    watching = settings_for(home, idle_seconds=0.2, file=file, inbox=inbox)
    stack.ensure(watching, Level.ALL, commands=COMMANDS)
    log = home_at(home).log("stack")
    was_kept = not processes.wait_until(lambda: IDLE in log.read_text("utf-8"), 1.5)
    kept = processes_of(running(home))

    stack.ensure(settings_for(home, idle_seconds=0.2, file=file), Level.ALL, commands=COMMANDS)

    assert was_kept
    assert becomes(lambda: stack.find(home) is None)
    assert becomes(lambda: all_ended(kept))


def test_open_jobs_keep_an_idle_stack_running(home: Path) -> None:
    services = stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    address = services.require_database_url().get_secret_value()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("INSERT INTO jobs VALUES ('running')")
        stack.ensure(settings_for(home, idle_seconds=0.2), Level.ALL, commands=COMMANDS)
        log = home_at(home).log("stack")
        was_kept = not processes.wait_until(lambda: IDLE in log.read_text("utf-8"), 1.5)

        # The stack may stop before PostgreSQL has answered.
        with suppress(psycopg.OperationalError):
            connection.execute("UPDATE jobs SET status = 'succeeded'")

    assert was_kept
    assert becomes(lambda: stack.find(home) is None)
    assert IDLE in log.read_text(encoding="utf-8")
