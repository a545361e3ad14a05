"""Stacks of real supervisors and servers, with small substitutes for worker and scheduler."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb_extension_postgres_scanner
import psycopg
import pytest

from chordwise.domain.json_values import JsonObject
from chordwise.embedded import processes, stack
from chordwise.embedded.home import StackState
from chordwise.embedded.processes import ProcessIdentity
from chordwise.embedded.stack_plan import Commands
from chordwise.settings import EmbeddedSettings, Settings, WorkerSettings
from tests.fakes.processes import wait_until

PATIENCE_SECONDS = 30.0
PROCESS = """
import os, signal, sys, threading
from pathlib import Path
from chordwise.embedded import processes
from chordwise.telemetry import liveness
note = Path(os.environ["CHORDWISE_HOME"], sys.argv[1] + ".note")
gone = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: gone.set())
wanted = ("CHORDWISE_DATABASE_URL", "CHORDWISE_BROKER_URL", "CHORDWISE_MODEL")
note.write_text("\\n".join(os.environ.get(name, "") for name in wanted))
processes.watch_parent(lambda: (note.write_text("orphaned"), gone.set()))
liveness.write_heartbeat(Path(os.environ["CHORDWISE_HOME"]), sys.argv[1], liveness.State.CONSUMING)
gone.wait()
"""
MIGRATION = """
import os, psycopg
address = os.environ["CHORDWISE_DATABASE_URL"]
with psycopg.connect(address) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS jobs (status text)")
    connection.execute("CREATE TABLE IF NOT EXISTS deliveries (status text)")
    connection.execute("CREATE TABLE IF NOT EXISTS schedules (enabled boolean)")
    connection.execute("CREATE TABLE IF NOT EXISTS schedule_runs (status text)")
"""


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs Python code."""
    return (sys.executable, "-P", "-c", code, *arguments)


COMMANDS = Commands(
    migrate=python(MIGRATION),
    worker=python(PROCESS, "worker"),
    scheduler=python(PROCESS, "scheduler"),
)


def settings_for(
    home: Path, *, idle_seconds: float = 600, file: Path | None = None, **changes: object
) -> Settings:
    """Return settings with an embedded stack and the given changes, as if read from a file."""
    values: dict[str, object] = {
        "home": home,
        "embedded": EmbeddedSettings(idle_minutes=idle_seconds / 60),
        "worker": WorkerSettings(shutdown_grace_seconds=1),
    }

    class OfFile(Settings):
        toml_file = file

    return OfFile.model_validate(values | changes)


@contextmanager
def a_home(tmp_path: Path) -> Iterator[Path]:
    """Lend a home below a private folder, and stop its stack afterwards."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    yield closed / "home"
    stack.stop(closed / "home")


def copy_data(initialized: Path, home: Path) -> None:
    """Copy the data of an initialized PostgreSQL, and its password, into a home."""
    shutil.copytree(initialized / "postgres", home / "postgres")
    shutil.copy2(initialized / "postgres.password", home)


def running(home: Path) -> StackState:
    """Return the state of a running stack."""
    state = stack.find(home)
    assert state is not None
    return state


def becomes(condition: Callable[[], bool]) -> bool:
    """Return whether a condition is met within 30 seconds."""
    return processes.wait_until(condition, PATIENCE_SECONDS)


def note_of(home: Path, name: str) -> str:
    """Return the note of a substitute process; empty if there is none yet."""
    path = home / f"{name}.note"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def kill(identity: ProcessIdentity) -> None:
    processes.stop(identity)
    assert not processes.is_alive(identity)


def processes_of(state: StackState) -> list[ProcessIdentity]:
    return [state.supervisor, *state.children.values()]


def all_ended(identities: list[ProcessIdentity]) -> bool:
    return not any(processes.is_alive(identity) for identity in identities)


@contextmanager
def open_to_programs(home: Path) -> Iterator[JsonObject]:
    """Open the database of a home with `chordwise connect`; check that the login ends with it."""
    said = home.with_name("connect.json")
    with said.open("w") as out:
        connect = ["-m", "chordwise", "connect", "--listen", "127.0.0.1:0", "--json", "--home"]
        process = subprocess.Popen([sys.executable, *connect, str(home)], stdout=out)
    wait_until(lambda: said.read_text().endswith("}\n"), 30, "the port is open")
    address: JsonObject = json.loads(said.read_text())
    yield address
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(str(address["url"]))


def postgres_extension_of_duckdb() -> Path:
    """Return the file of the extension; its package fits only the same version of DuckDB."""
    package = Path(duckdb_extension_postgres_scanner.__file__).parent
    return next(package.rglob("postgres_scanner.duckdb_extension"))
