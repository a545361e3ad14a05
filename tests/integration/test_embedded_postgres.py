"""Tests of the embedded PostgreSQL: a real server, started and stopped by the tests."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest
from psycopg import sql

import chordwise
from chordwise.embedded import processes, unprivileged
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.errors import ConfigurationError, ServiceUnavailableError
from tests.fakes.processes import completed
from tests.fakes.stacks import copy_data

pytestmark = pytest.mark.xdist_group("embedded_postgres")

NOBODY = 65_534
PYTHON = (sys.base_prefix, sys.prefix)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with a folder for sockets, below a folder that only its owner may enter."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    (home / "run").mkdir(parents=True, mode=0o700)
    return home


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(home / "postgres", home / "run")
    yield server
    server.stop()


@pytest.fixture
def used(home: Path, initialized: Path, server: EmbeddedPostgres) -> EmbeddedPostgres:
    copy_data(initialized, home)
    return server


@pytest.fixture(scope="module")
def running(
    initialized: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedPostgres]:
    """Return one running server for all tests that only read from it."""
    folder = tmp_path_factory.mktemp("running")
    copy_data(initialized, folder)
    (folder / "run").mkdir(mode=0o700)
    server = EmbeddedPostgres(folder / "postgres", folder / "run")
    server.start()
    yield server
    server.stop()


def answer(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_data_survives_a_restart(used: EmbeddedPostgres) -> None:
    used.start()
    with psycopg.connect(used.url()) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'kept' AS note")
    identity = used.identity()
    assert identity is not None
    identities = [
        processes.identify(child.pid) for child in psutil.Process(identity.pid).children()
    ]
    children = [child for child in identities if child is not None]

    stopped = used.stop()

    assert children
    assert processes.wait_until(
        lambda: not any(processes.is_alive(child) for child in (identity, *children)), 10
    )
    assert (stopped, used.stop()) == (True, False)
    used.start()
    assert answer(used, "SELECT note FROM notes") == "kept"


def test_the_server_is_closed_and_ignores_the_system_locale(running: EmbeddedPostgres) -> None:
    """It has no network and requires the password; umlauts are lower-cased everywhere."""
    assert answer(running, "SELECT lower('ÄÖÜ')") == "äöü"
    assert answer(running, "SHOW server_encoding") == "UTF8"
    assert answer(running, "SHOW listen_addresses") == ""
    forged = running.url().replace("://chordwise:", "://chordwise:not-")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(forged)
    with pytest.raises(ServiceUnavailableError, match="is already running"):
        running.start()


def test_the_server_leaves_folders_above_its_own(home: Path, server: EmbeddedPostgres) -> None:
    above = (home, home.parent, home.parent.parent)
    before = [(folder.stat().st_mode, folder.stat().st_uid) for folder in above]

    server.start()

    assert [(folder.stat().st_mode, folder.stat().st_uid) for folder in above] == before
    assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "postgres.password").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_root_gives_up_all_capabilities(home: Path, running: EmbeddedPostgres) -> None:
    """A command that the server's configuration or a superuser's statement starts has none."""
    identity = running.identity()

    assert identity is not None
    status = Path(f"/proc/{identity.pid}/status").read_text(encoding="utf-8")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["Uid"].split()[0]) != 0
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    secret = home.parent / "secret"
    secret.write_text("root's", "utf-8")
    with psycopg.connect(running.url(), autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE said (line text)")
        for command in ("id -u", "grep Cap /proc/self/status", f"cat '{secret}' 2>&1 || true"):
            copied = sql.SQL("COPY said FROM PROGRAM {} (DELIMITER E'\\x01')").format(
                sql.Literal(command)
            )
            connection.execute(copied)
        said = [str(line) for (line,) in connection.execute("SELECT line FROM said")]
    assert said[0] != "0"
    assert {line.partition(chr(9))[2] for line in said if line.startswith("Cap")} == {"0" * 16}
    assert "No such file" in said[-1]


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the user `nobody`, without any capability."""
    plain = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
    return completed(*plain)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_in_an_open_home_the_data_is_closed_to_other_users() -> None:
    """Below a folder that everyone can enter, no other service can read or change the data.

    This holds for a new folder and for one that belonged to the user `nobody`.
    """
    with TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "run").mkdir(mode=0o700)
        data = home / "postgres"
        server = EmbeddedPostgres(data, home / "run")
        try:
            server.start()
            expect_closed(data)
            server.stop()
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(data)], check=True)  # noqa: S607
            server.start()
            expect_closed(data)
            assert answer(server, "SELECT 1") == 1
        finally:
            server.stop()


def expect_closed(data: Path) -> None:
    """Check that other users can neither read nor change the data; root does not own it."""
    rules = str(data / "pg_hba.conf")

    assert "Permission denied" in as_nobody("cat", rules).stderr
    written = as_nobody("sh", "-c", f"echo 'local all all trust' >> '{rules}'")
    assert "Permission denied" in written.stderr
    assert {path.lstat().st_uid for path in data.rglob("*")} & {0, NOBODY} == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_programs_may_be_below_a_closed_folder_of_root(tmp_path: Path) -> None:
    """A checkout in root's home works: access(2), which initdb uses, succeeds as well."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "programs" / "program"
    program.parent.mkdir()
    program.touch(mode=0o755)
    launcher = [sys.executable, "-I", "-S", unprivileged.__file__, str(NOBODY), str(NOBODY)]
    launcher.append("\n".join((str(program.parent), *PYTHON)))
    asking = "import os, sys; print(os.getuid(), os.access(sys.argv[1], os.R_OK | os.X_OK))"

    outcome = completed(*launcher, sys.executable, "-c", asking, str(program))

    assert outcome.stdout.split() == [str(NOBODY), "True"], outcome.stderr


@pytest.mark.parametrize("crash", ["with a client", "with a stranger's pid"])
def test_the_server_starts_after_a_kill(home: Path, used: EmbeddedPostgres, crash: str) -> None:
    used.start()
    identity = used.identity()
    assert identity is not None
    with psycopg.connect(used.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'kept' AS note")
        processes.stop(identity)
    pid_file = home / "postgres" / "postmaster.pid"
    if crash == "with a stranger's pid":
        _, _, rest = pid_file.read_text(encoding="utf-8").partition("\n")
        pid_file.write_text(f"{os.getppid()}\n{rest}", encoding="utf-8")

    used.start()

    assert answer(used, "SELECT note FROM notes") == "kept"


def test_an_interrupted_initialization_is_restarted(home: Path, server: EmbeddedPostgres) -> None:
    half = home / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18", encoding="utf-8")

    server.start()

    assert answer(server, "SELECT 1") == 1
    assert not half.exists()


def test_data_of_another_version_is_refused(home: Path, server: EmbeddedPostgres) -> None:
    (home / "postgres").mkdir()
    (home / "postgres" / "PG_VERSION").write_text("17\n", encoding="utf-8")

    with pytest.raises(ConfigurationError, match="PostgreSQL 17"):
        server.start()

    assert (home / "postgres" / "PG_VERSION").exists()


def test_a_missing_password_is_named(home: Path, used: EmbeddedPostgres) -> None:
    (home / "postgres.password").unlink()

    with pytest.raises(ConfigurationError, match=r"postgres\.password is missing"):
        used.start()


def test_a_failed_start_reports_the_reason(home: Path, used: EmbeddedPostgres) -> None:
    with (home / "postgres" / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("no_such_setting = on\n")

    with pytest.raises(ServiceUnavailableError, match=r"no_such_setting|configuration file"):
        used.start()

    assert used.identity() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize(
    ("without", "mode", "kept"),
    [
        ("-sys_admin", 0o755, 0),
        ("-sys_admin", 0o700, 1 << 1),
        ("-setpcap", 0o700, 0),
        ("-sys_admin,-setpcap", 0o755, 0),
        ("-sys_admin,-setpcap", 0o700, None),
    ],
)
def test_in_a_container_root_keeps_at_most_one_capability(
    without: str, mode: int, kept: int | None
) -> None:
    """It may forbid mount namespaces; without CAP_SETPCAP too, a closed program is reported."""
    bounded = ["setpriv", f"--bounding-set={without}", sys.executable, "-I", "-S"]
    with TemporaryDirectory() as folder:
        program = Path(folder) / "programs" / "program"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\ngrep CapEff /proc/self/status\n", "ascii")
        program.chmod(0o755)
        Path(folder).chmod(mode)

        user = (str(NOBODY), str(NOBODY), str(program.parent))
        outcome = completed(*bounded, unprivileged.__file__, *user, str(program))

    if kept is not None:
        assert outcome.stdout.split() == ["CapEff:", f"{kept:016x}"], outcome.stderr
    else:
        assert "cannot be started by user" in outcome.stderr
        assert "Traceback" not in outcome.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unprivileged_user_runs_the_server(tmp_path: Path) -> None:
    home = tmp_path / "home of nobody"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    launcher = [sys.executable, "-I", "-S", unprivileged.__file__, str(NOBODY), str(NOBODY)]

    code = str(Path(chordwise.__file__).parents[1])
    launcher.append("\n".join((str(home), code, *PYTHON)))
    environment = {"PYTHONPATH": code}
    outcome = completed(
        *launcher, sys.executable, "-c", AS_NOBODY, str(home), environment=environment
    )

    assert outcome.stdout.split() == [str(NOBODY), "True"], outcome.stderr
    assert (home / "postgres").stat().st_uid == NOBODY


AS_NOBODY = """
import sys
from pathlib import Path
import psutil
from chordwise.embedded.postgres import EmbeddedPostgres
home = Path(sys.argv[1])
(home / "run").mkdir(mode=0o700)
server = EmbeddedPostgres(home / "postgres", home / "run")
server.start()
print(psutil.Process(server.identity().pid).uids().real, server.stop())
"""
