"""How a stack leaves: when it is told to, when it is idle, and when it was killed."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from signal import Signals

import psycopg

import chordwise
from chordwise.embedded import processes, stack
from chordwise.embedded.home import home_at
from chordwise.embedded.stack import Level
from chordwise.settings import InboxSettings
from tests.fakes.stacks import (
    COMMANDS,
    becomes,
    everybody,
    kill,
    nobody_left,
    note_of,
    python,
    running,
    settings_for,
)


def test_a_killed_supervisor_leaves_no_orphans(home: Path) -> None:
    """Worker and scheduler notice its death; the next command clears away what remains.

    After `down` nothing of the stack runs, and nothing claims that it does.
    """
    settings = settings_for(home)
    stack.ensure(settings, Level.ALL, commands=COMMANDS)
    before = running(home)

    kill(before.supervisor)
    assert stack.find(home) is None
    assert becomes(lambda: note_of(home, "worker") == "orphaned")
    stack.ensure(settings, Level.ALL, commands=COMMANDS)

    after = running(home)
    assert nobody_left(everybody(before))
    assert set(after.children) == {"postgres", "valkey", "scheduler", "worker"}
    assert stack.stop(home)
    assert nobody_left(everybody(after))
    assert stack.find(home) is None
    assert not stack.stop(home)


def test_down_stops_what_a_killed_supervisor_left(home: Path) -> None:
    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    before = running(home)
    kill(before.supervisor)

    assert stack.stop(home)
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
    on_ready=lambda reached: print("ready", reached, flush=True),
    commands=Commands.model_validate_json(sys.argv[2]),
)
print("stopped")
"""


def test_ctrl_c_takes_the_foreground_down(home: Path) -> None:
    """Everything stops in order, and the command goes on to its end; so SIGTERM ends `up`."""
    with subprocess.Popen(
        python(FOREGROUND, str(home), COMMANDS.model_dump_json()),
        env={"PYTHONPATH": str(Path(chordwise.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        identities = everybody(running(home))
        os.kill(process.pid, Signals.SIGINT)
        rest = process.stdout.read()

    assert first.startswith("ready")
    assert "**********" in first
    assert rest == "stopped\n"
    assert process.returncode == 0
    assert nobody_left(identities)


def test_a_watched_inbox_keeps_an_idle_stack(home: Path) -> None:
    """What is dropped there must find somebody; without a folder the stack leaves again."""
    inbox, file = InboxSettings(folders=(home.parent / "inbox",)), home.parent / "chordwise.toml"
    watching = settings_for(home, idle_seconds=0.2, file=file, inbox=inbox)
    stack.ensure(watching, Level.ALL, commands=COMMANDS)
    was_kept = not processes.wait_until(lambda: stack.find(home) is None, 1.5)
    kept = everybody(running(home))

    stack.ensure(settings_for(home, idle_seconds=0.2, file=file), Level.ALL, commands=COMMANDS)

    assert was_kept
    assert becomes(lambda: stack.find(home) is None)
    assert becomes(lambda: nobody_left(kept))


def test_open_work_keeps_an_idle_stack(home: Path) -> None:
    """As long as a job is open the stack stays; it leaves once the job has ended."""
    services = stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    address = services.require_database_url().get_secret_value().replace("+psycopg", "")
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
