"""Starting a stack: once for all, and with a word on what does not start."""

from __future__ import annotations

import os
import select
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chordwise.embedded import control, stack
from chordwise.embedded.home import StackState, home_at, locked, write_state
from chordwise.embedded.processes import ProcessIdentity
from chordwise.embedded.stack import Commands, Level
from chordwise.errors import ConfigurationError, ExitCode, ServiceUnavailableError
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State
from tests.fakes.stacks import (
    COMMANDS,
    PATIENCE_SECONDS,
    becomes,
    kill,
    python,
    running,
    settings_for,
)


def test_commands_at_the_same_time_share_one_stack(home: Path) -> None:
    """Several first commands start one supervisor between them, and all get an answer.

    One in the foreground is refused then: it says where the first one is, and ends with its code.
    """
    settings, others = settings_for(home), settings_for(home, model="openai/gpt-5")

    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(stack.ensure, each, level, commands=COMMANDS)
            for each in (settings, others)
            for level in (Level.DATABASE, Level.ALL)
        ]
    pid = running(home).supervisor.pid
    with pytest.raises(ServiceUnavailableError, match=f"up already in process {pid}") as refusal:
        stack.hold(settings_for(home), on_progress=print, on_ready=print, commands=COMMANDS)

    assert len({each.result().database_url for each in asked}) == 1
    assert running(home).level is Level.ALL
    assert refusal.value.exit_code is ExitCode.UNAVAILABLE
    assert running(home).supervisor.pid == pid


def test_a_request_that_a_leaving_supervisor_has_not_read_goes_to_the_next(home: Path) -> None:
    """Its connection ends without a word, and the command starts another supervisor."""
    place = home_at(home)
    place.prepare()

    with ThreadPoolExecutor() as pool, locked(place), control.listen(place) as listener:
        path = Path(listener.getsockname())
        own = ProcessIdentity(pid=os.getpid(), created_at=0)
        write_state(place, StackState(supervisor=own, control_socket=path))
        asked = pool.submit(stack.ensure, settings_for(home), Level.DATABASE, commands=COMMANDS)
        is_asked, _, _ = select.select([listener], [], [], PATIENCE_SECONDS)

    assert is_asked
    assert asked.result().require_database_url().get_secret_value() == running(home).database_url


MIGRATION = """
import os, time
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.05)
"""


def test_a_supervisor_that_is_killed_while_it_starts_a_stack_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings that it was handed lie in no file, and the next command clears away the rest."""
    key = "a-key-of-mine"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    commands = COMMANDS.model_copy(update={"migrate": python(MIGRATION)})
    left: list[bool] = []

    def strike(activity: str) -> None:
        if activity == "Bringing the tables up to date":
            files = [path for path in home.rglob("*") if path.is_file()]
            left.extend(key.encode() in path.read_bytes() for path in files)
            kill(running(home).supervisor)

    with pytest.raises(ServiceUnavailableError, match="The stack ended while it was starting"):
        stack.ensure(settings_for(home), Level.DATABASE, commands=commands, on_progress=strike)
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)

    assert left
    assert not any(left)
    assert running(home).phase == "ready"


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
    """Or when it waits for servers: documents can be taken in meanwhile."""
    signs = []

    for model in ("openai/gpt-5", "openai/gpt-6"):
        commands = worker(State.CONSUMING, 1.0)
        stack.ensure(settings_for(home, model=model), Level.ALL, commands=commands)
        signs.append(liveness.last_sign(home, "worker"))
    stack.ensure(settings_for(home), Level.ALL, commands=worker(State.HELD_UP))

    assert all(sign.is_healthy and sign.age_seconds < 1 for sign in signs)
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
    """Whoever only reads goes on reading, and the next one who wants work done tries again."""
    broken = COMMANDS.model_copy(update={"worker": python("raise SystemExit('no')")})
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)

    with pytest.raises(ServiceUnavailableError, match="ended as it started"):
        stack.ensure(settings_for(home), Level.ALL, commands=broken)
    left = set(running(home).children)
    stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)

    assert left == {"postgres", "valkey"}
    assert set(running(home).children) == {"postgres", "valkey", "scheduler", "worker"}
