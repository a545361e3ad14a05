"""Processes and commands refuse a wrong setup with a message, a hint and exit code 78."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import URL, make_url

from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.errors import ChordwiseError
from chordwise.pipeline.runtime.startup import wait_until_ready
from chordwise.settings import load
from chordwise.storage import migration
from chordwise.storage.database import open_engine
from tests.conftest import Servers
from tests.fakes.processes import ROOT, Processes, wait_until

LOW_FILES = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 512))
PASSWORD = "s3cr3tP4ssword"  # noqa: S105 - planted, and searched for in the output
ABSENT = make_url("postgresql://absent@127.0.0.1:9/nothing")
HINT = "CHORDWISE_DATABASE_URL"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The exit code and the output of a process."""

    exit_code: int
    said: str


def at(folder: Path, url: URL, broker: str = "redis://127.0.0.1:9/0") -> dict[str, str]:
    return {
        "CHORDWISE_HOME": str(folder / "home"),
        "CHORDWISE_DATABASE_URL": url.render_as_string(hide_password=False),
        "CHORDWISE_BROKER_URL": broker,
    }


def start(
    folder: Path,
    process: str,
    url: URL,
    before: Callable[[], None] | None = None,
) -> Refusal:
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        **at(folder, url),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", process],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=before,
    )
    return Refusal(exit_code=done.returncode, said=done.stderr)


def refused(folder: Path, url: URL) -> Refusal:
    """Return the outcome of the check with which every process starts."""
    address = SecretStr(url.render_as_string(hide_password=False))
    with pytest.raises(ChordwiseError) as raised:
        wait_until_ready(load(home=folder / "home", database_url=address), "worker", Event())
    error = raised.value
    return Refusal(exit_code=error.exit_code, said=f"{error.what}\n{error.hint}\n")


def check(refusal: Refusal, *words: str) -> None:
    """Check that the process was refused for the reason with these words, reported in two lines."""
    assert refusal.exit_code == 78, refusal.said
    assert [word for word in words if word not in refusal.said] == []
    assert "Traceback" not in refusal.said
    assert PASSWORD not in refusal.said
    assert len(refusal.said.strip().splitlines()) == 2


@contextmanager
def role(servers: Servers, database: str, rights: str = "") -> Iterator[str]:
    """Create a login role, with the given privileges on the tables of a database or none."""
    name = f"app_{next(_numbers)}"
    identifier = sql.Identifier(name)
    create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
    with servers.connect() as connection:
        connection.execute(create.format(identifier, sql.Literal(PASSWORD)))
    engine = open_engine(SecretStr(servers.postgres.url(database)))
    with engine.begin() as owner:
        if rights:
            owner.exec_driver_sql(f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {name}")
    yield name
    with engine.begin() as owner:
        owner.exec_driver_sql(f"DROP OWNED BY {name}")
    engine.dispose()
    with servers.connect() as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(identifier))


@pytest.mark.parametrize(
    ("process", "change", "words"),
    [
        ("worker", {"password": PASSWORD}, "password authentication failed"),
        ("scheduler", {"database": "nothing_we_know"}, "does not exist"),
    ],
)
def test_a_rejected_login_is_refused_as_a_wrong_setting(
    tmp_path: Path, database_url: SecretStr, process: str, change: dict[str, str], words: str
) -> None:
    """A wrong password or database name is reported as a wrong setting; the process does not wait.

    A low soft limit of open files is no reason for refusal: it is raised.
    """
    url = make_url(database_url.get_secret_value()).set(**change)  # type: ignore[arg-type]  # one str

    check(start(tmp_path, process, url, before=LOW_FILES), words, HINT, "pg_hba.conf")


@pytest.mark.parametrize(
    ("rights", "words"),
    [
        ("SELECT", ("may not DELETE, INSERT, UPDATE on answer_tables", "more")),
        ("", ("may not SELECT on alembic_version",)),
        ("ALL", ("read-only",)),
    ],
)
def test_a_role_without_privileges_is_refused(
    tmp_path: Path, servers: Servers, database_url: SecretStr, rights: str, words: tuple[str, ...]
) -> None:
    """Missing privileges are named; a role whose transactions are read-only is refused as well."""
    url = make_url(database_url.get_secret_value())
    assert url.database
    with role(servers, url.database, rights) as name:
        if rights == "ALL":
            with servers.connect() as connection:
                read_only = "SET default_transaction_read_only = on"
                connection.execute(f"ALTER ROLE {name} {read_only}".encode())
        refusal = refused(tmp_path, url.set(username=name, password=PASSWORD))

    check(refusal, *words, HINT)
    assert name in refusal.said or rights == "ALL"


def test_an_empty_database_is_refused(tmp_path: Path, servers: Servers) -> None:
    name = f"empty_{next(_numbers)}"
    with servers.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    refusal = refused(tmp_path, make_url(servers.postgres.url(name)))

    check(refusal, "schema none", "chordwise migrate")


def test_a_replica_and_a_missing_pg_hba_entry_are_refused(tmp_path: Path) -> None:
    """A standby is read-only, and the pg_hba.conf has no entry for the role."""
    (tmp_path / "run").mkdir(mode=0o700)
    server = EmbeddedPostgres(tmp_path / "postgres", tmp_path / "run")
    server.start()
    try:
        engine = open_engine(SecretStr(server.url()))
        migration.migrate(engine)
        engine.dispose()
        (tmp_path / "postgres" / "pg_hba.conf").write_text("local all chordwise scram-sha-256\n")
        server.stop()
        (tmp_path / "postgres" / "standby.signal").touch()
        server.start()

        standby = refused(tmp_path, make_url(server.url()))
        unknown = refused(tmp_path, make_url(server.url()).set(username="unknown"))
    finally:
        server.stop()

    check(standby, "replica", "primary", HINT)
    check(unknown, "no pg_hba.conf entry", HINT)


def test_too_low_a_file_limit_for_the_concurrency_is_refused(
    tmp_path: Path, database_url: SecretStr
) -> None:
    """A worker with 64 file descriptors does not start, because it would fail during its work."""
    url = make_url(database_url.get_secret_value())
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))

    refusal = start(tmp_path, "worker", url, before=few)

    check(refusal, "64 files", "worker.concurrency = 16", "ulimit -n")


@pytest.mark.parametrize(
    "process", ["worker", pytest.param("scheduler", marks=pytest.mark.nightly)]
)
def test_an_unavailable_database_is_waited_for(
    tmp_path: Path, servers: Servers, broker_url: SecretStr, template: str, process: str
) -> None:
    """The process stays alive and logs that it waits, until the server accepts the connection."""
    name = f"late_{next(_numbers)}"
    identifier = sql.Identifier(name)
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} CONNECTION LIMIT 0")
    with servers.connect() as connection:
        connection.execute(create.format(identifier, sql.Identifier(template)))
    with role(servers, name, "ALL") as user:
        url = make_url(servers.postgres.url(name)).set(username=user, password=PASSWORD)
        environment = at(tmp_path, url, broker_url.get_secret_value())
        with Processes(folder=tmp_path, environment=environment) as processes:
            started = processes.start(process)
            wait_until(lambda: "database.waiting" in processes.logs(), 60, "it waits")

            admit = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(identifier)
            with servers.connect() as connection:
                connection.execute(admit)

            wait_until(lambda: f"{process}.started" in processes.logs(), 60, "it works")
            assert started.poll() is None
            assert (tmp_path / "home" / "run" / f"{process}.alive").exists()
    assert started.returncode == 0
    assert "Traceback" not in processes.logs()


def test_a_worker_that_waits_can_be_stopped(tmp_path: Path, broker_url: SecretStr) -> None:
    environment = at(tmp_path, ABSENT, broker_url.get_secret_value())
    with Processes(folder=tmp_path, environment=environment) as processes:
        worker = processes.start("worker")
        wait_until(lambda: "database.waiting" in processes.logs(), 60, "it waits")

        worker.terminate()

        assert worker.wait(timeout=5) == 0


def test_a_command_that_writes_is_refused_for_a_read_only_role(
    tmp_path: Path, servers: Servers, database_url: SecretStr
) -> None:
    (tmp_path / "a.txt").write_text("The harbour was rebuilt in 1856.", "utf-8")
    url = make_url(database_url.get_secret_value())
    assert url.database
    with role(servers, url.database, "SELECT") as name:
        address = url.set(username=name, password=PASSWORD)
        environment = {**at(tmp_path, address), "CHORDWISE_EMBEDDED__START": "false"}
        processes = Processes(folder=tmp_path, environment=environment)
        submitted = processes.call("submit", "a.txt")
        listed = processes.call("runs")

    assert (submitted.returncode, listed.returncode) == (78, 0), submitted.stderr + listed.stderr
    assert f"“{name}” may not" in submitted.stderr


@pytest.mark.parametrize("command", ["analyze a.txt", "doctor", "up"])
def test_a_command_refuses_an_unsupported_broker_url(tmp_path: Path, command: str) -> None:
    (tmp_path / "a.txt").write_text("The harbour was rebuilt in 1856.", "utf-8")
    environment = at(tmp_path, ABSENT, f"amqp://user:{PASSWORD}@host//")
    processes = Processes(folder=tmp_path, environment=environment)

    done = processes.call(*command.split())

    said = " ".join(f"{done.stdout} {done.stderr}".split())
    assert done.returncode == 78, said
    assert "broker_url: amqp:// is not supported; use redis://HOST:6379/0" in said
    assert "Traceback" not in said
    assert PASSWORD not in said
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "process", ["worker", pytest.param("scheduler", marks=pytest.mark.nightly)]
)
def test_a_database_number_out_of_range_of_the_broker_is_refused(
    tmp_path: Path, database_url: SecretStr, broker_url: SecretStr, process: str
) -> None:
    """Only the server knows how many databases it has; the default is 16."""
    broker = f"{broker_url.get_secret_value()}?virtual_host=99"
    environment = at(tmp_path, make_url(database_url.get_secret_value()), broker)
    processes = Processes(folder=tmp_path, environment=environment)

    ended = processes.start(process).wait(timeout=60)
    examined = processes.call("doctor")

    assert ended == 78, processes.logs()
    said = processes.logs()
    assert "rejects the number of the database in broker_url: DB index is out of range" in said
    assert "Traceback" not in said
    assert examined.returncode == 78, examined.stdout
    assert "rejects the number of the database" in " ".join(examined.stdout.split())
