"""Tests of commands that run in a fork of the command server of a running stack."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import psutil
import pytest

from chordwise.embedded import stack
from chordwise.errors import ExitCode
from tests.fakes.processes import Processes, wait_until

pytestmark = [
    pytest.mark.xdist_group("command_server"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each command loads its own code"),
]

# Append the imported modules of the process to its errors, on a separate line.
ASKING = """
import sys
from chordwise.cli import main
try:
    main()
finally:
    sys.stderr.write("\\n@" + " ".join(sys.modules))
"""
# The client needs longer to send its streams than a server has to answer.
SLOWLY = """
import socket, sys, time
send = socket.send_fds
socket.send_fds = lambda *arguments: (time.sleep(1.5), send(*arguments))
"""
_PR_SET_NO_NEW_PRIVS = 38
HEAVY = {"typer", "pydantic", "sqlalchemy", "psycopg", "chordwise.settings", "chordwise.storage"}
ASLEEP = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(50)%'"
LETTER = "A letter from the standard input. It says little."


def _forbid_new_privileges() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _leave_groups() -> None:
    os.setgroups([65_534])


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A folder beside a running stack with a command server."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def server(self) -> psutil.Process:
        """The command server."""
        found = stack.find(self.folder / "home")
        assert found is not None
        return psutil.Process(found.children["command-server"].pid)

    def is_listening(self) -> bool:
        """Return whether a command server accepts connections."""
        with socket.socket(socket.AF_UNIX) as connection:
            found = [*(self.folder / "home" / "run").glob("cmd-*")]
            return bool(found) and connection.connect_ex(str(found[0])) == 0

    def ask(
        self, *arguments: str, prepare: Callable[[], object] | None = None, code: str = ASKING
    ) -> tuple[CompletedProcess[str], set[str]]:
        """Run a command; return its outcome, and the modules that the client has imported."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=LETTER,
            preexec_fn=prepare,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        done.stderr, _, modules = done.stderr.rpartition("\n@")
        return done, set(modules.split())

    def alone(
        self, *arguments: str, prepare: Callable[[], object] | None = None
    ) -> CompletedProcess[str]:
        """Run a command in a process that does not use a server."""
        home = str(self.folder / "home")
        done, imported = self.ask("--home", home, *arguments, prepare=prepare)
        assert imported >= HEAVY
        return done

    def sleep(self) -> tuple[subprocess.Popen[str], psutil.Process]:
        """Start a command that waits for the database; return its process, and the fork."""
        asking = subprocess.Popen(
            [sys.executable, "-m", "chordwise", "sql", "SELECT pg_sleep(50)"],
            cwd=self.folder,
            env=self.environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: "pid" in self.ask("sql", ASLEEP)[0].stdout, 30, "the command waits")
        wait_until(lambda: len(self.server.children()) == 1, 30, "the fork of the question ends")
        (fork,) = self.server.children()
        return asking, fork


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """Use one home with an answer for all tests of this module."""
    folder = Path(tempfile.mkdtemp(prefix="cw-"))
    (folder / "one.txt").write_text("The parcel arrived broken. Please send it back.", "utf-8")
    environment = {"CHORDWISE_HOME": str(folder / "home"), "CHORDWISE_WORKER__PROCESSES": "1"}
    processes = Processes(folder=folder, environment=environment)
    done = processes.run("analyze", "one.txt")
    assert done.returncode == ExitCode.SUCCESS, done.stderr
    desk = Desk(folder=folder, environment=processes._environment())
    wait_until(desk.is_listening, 60, "the command server listens")
    yield desk
    processes.run("down")
    assert not any((folder / "home" / "run").glob("cmd-*"))
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["runs"], ExitCode.SUCCESS),
        (["results", "--limit", "no"], ExitCode.USAGE),
        (["sql", "SELECT no_column FROM results"], ExitCode.USAGE),
        (["sql", "SELECT 'straße', '\u202e'", "--json"], ExitCode.SUCCESS),
    ],
)
def test_a_fork_has_the_output_and_exit_code_of_a_process(
    desk: Desk, arguments: list[str], code: ExitCode
) -> None:
    """The client imports almost no modules."""
    light, imported = desk.ask(*arguments)
    alone = desk.alone(*arguments)

    assert (light.returncode, light.stdout, light.stderr) == (code, alone.stdout, alone.stderr)
    assert not imported & HEAVY
    assert len(imported) <= 150


def test_a_fork_has_the_streams_folder_umask_and_limits_of_its_command(desk: Desk) -> None:
    """Standard input is read; the working folder, the umask and the limit of file sizes apply."""
    submitted, _ = desk.ask("submit", "-", "--json")
    written, _ = desk.ask("export", "facts", "-o", "a.csv", prepare=lambda: os.umask(0o027))
    assert (submitted.returncode, written.returncode) == (0, 0), written.stderr

    assert json.loads(submitted.stdout)["run_id"]
    assert (desk.folder / "a.csv").stat().st_mode & 0o777 == 0o640
    small = (resource.RLIMIT_FSIZE, (100, 100))
    refused, imported = desk.ask(
        *("export", "facts", "-o", "b.csv"), prepare=lambda: resource.setrlimit(*small)
    )
    alone = desk.alone("export", "facts", "-o", "b.csv", prepare=lambda: resource.setrlimit(*small))
    assert (refused.returncode, refused.stderr) == (alone.returncode, alone.stderr)
    assert "b.csv" in refused.stderr
    assert not imported & HEAVY


def test_the_server_has_one_thread_and_waits_for_its_forks(desk: Desk) -> None:
    """A second thread would not survive a fork; no zombie process remains."""
    desk.ask("runs")

    assert desk.server.num_threads() == 1
    wait_until(lambda: not desk.server.children(), 30, "the forks have ended")
    assert desk.server.cpu_times().children_user > 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, ExitCode.DETACHED), (signal.SIGTERM, -15), (signal.SIGKILL, -9)],
)
def test_a_fork_ends_with_its_command(desk: Desk, number: signal.Signals, code: int) -> None:
    """The command handles Ctrl-C; no process continues after the client has ended."""
    asking, fork = desk.sleep()

    asking.send_signal(number)
    _, errors = asking.communicate(timeout=30)

    assert (asking.returncode, errors) == (code, "")
    fork.wait(timeout=30)


def test_a_slow_client_gets_the_outcome_of_its_command(desk: Desk) -> None:
    """A fork waits for its client, and a command that did not run is not taken for a success."""
    slow = ASKING.replace("import sys", SLOWLY)

    late, imported = desk.ask("runs", "--no-such-option", code=slow)

    assert (late.returncode, imported & HEAVY) == (ExitCode.USAGE, set())
    assert "--no-such-option" in late.stderr


def test_a_killed_fork_is_an_error(desk: Desk) -> None:
    asking, fork = desk.sleep()

    fork.kill()
    _, errors = asking.communicate(timeout=30)

    assert asking.returncode == ExitCode.INTERNAL
    assert "killed" in errors


@pytest.mark.parametrize("restrict", [_forbid_new_privileges, _leave_groups])
def test_a_command_with_fewer_rights_runs_in_its_own_process(
    desk: Desk, restrict: Callable[[], object]
) -> None:
    """The server may have more groups or privileges than the process of the user."""
    if restrict is _leave_groups and os.geteuid() != 0:
        pytest.skip("only root may change its groups")

    done, modules = desk.ask("runs", prepare=restrict)

    assert done.returncode == 0
    assert modules >= HEAVY


def test_without_a_server_a_command_runs_in_its_own_process(desk: Desk) -> None:
    """A hanging server delays it for a second; the supervisor replaces a dead server."""
    server = desk.server
    server.suspend()
    waited, imported = desk.ask("runs")
    assert (waited.returncode, imported >= HEAVY) == (ExitCode.SUCCESS, True)

    server.kill()
    again, imported = desk.ask("runs")
    assert (again.returncode, again.stdout) == (ExitCode.SUCCESS, waited.stdout)
    assert imported >= HEAVY

    wait_until(desk.is_listening, 60, "another server has taken its place")
    assert not desk.ask("runs")[1] & HEAVY
