"""Tests of the scripts and options of docker-compose.yml with real servers of the same versions."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import yaml
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import URL

from chordwise.embedded import postgres, processes, valkey
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.errors import UsageError
from chordwise.pipeline.runs import user_sql
from chordwise.storage import migration, revisions
from chordwise.storage.database import open_engine
from tests.fakes.processes import wait_until
from tests.house.checkout import ROOT

PASSWORD = 'it\'s a "long" one'  # noqa: S105 - of this test
ADMINISTRATOR = "postgres"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="cw-") as name:
        yield Path(name)


@pytest.fixture
def secret(folder: Path) -> Path:
    """Return a file with a password, as Compose mounts it."""
    file = folder / "password"
    file.write_text(PASSWORD, "utf-8")
    return file


@pytest.fixture
def database(folder: Path) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Return the administrator's connection to a server on which the script has not run."""
    (folder / "run").mkdir(mode=0o700)
    server = EmbeddedPostgres(folder / "postgres", folder / "run")
    server.start()
    clear_the_names(server)
    address = server.url("postgres").replace(f"//{postgres.USER}:", f"//{ADMINISTRATOR}:")
    with psycopg.connect(address, autocommit=True) as connection:
        yield connection
    server.stop()


def clear_the_names(server: EmbeddedPostgres) -> None:
    """Rename the embedded server's owner and drop its database: the script creates both names."""
    address = server.url("postgres")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE ROLE helper SUPERUSER LOGIN PASSWORD 'helper'")
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(postgres.DATABASE)))
    with psycopg.connect(address, user="helper", password="helper", autocommit=True) as connection:  # noqa: S106 - of this test
        connection.execute(
            sql.SQL("ALTER ROLE {} RENAME TO {}").format(
                sql.Identifier(postgres.USER), sql.Identifier(ADMINISTRATOR)
            )
        )


def create_role(administrator: psycopg.Connection[tuple[object, ...]], secret: Path) -> None:
    """Run the script that Compose mounts into PostgreSQL's container."""
    subprocess.run(
        ["sh", str(ROOT / "deploy" / "create-role.sh")],  # noqa: S607 - the shell from the PATH
        env={
            "PATH": f"{postgres.programs()}:/usr/bin:/bin",
            "PGHOST": administrator.info.host,
            "PGPASSWORD": administrator.info.password,
            "CHORDWISE_DATABASE_PASSWORD_FILE": str(secret),
        },
        check=True,
    )


def test_chordwise_works_as_a_role_without_superuser_privileges(
    database: psycopg.Connection[tuple[object, ...]], secret: Path
) -> None:
    create_role(database, secret)
    url = URL.create(
        "postgresql",
        username="chordwise",
        password=PASSWORD,
        database="chordwise",
        query={"host": database.info.host},
    )

    engine = open_engine(SecretStr(url.render_as_string(hide_password=False)))
    _, revision = migration.migrate(engine)
    engine.dispose()
    address = SecretStr(url.render_as_string(hide_password=False))
    with user_sql.run_query(address, "SELECT count(*) FROM documents") as answer:
        (documents,) = next(iter(answer.rows))

    with (
        pytest.raises(UsageError, match="permission denied for function"),
        user_sql.run_query(address, "SELECT pg_advisory_lock(1)") as answer,
    ):
        next(iter(answer.rows))

    rights = database.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = 'chordwise'"
    ).fetchone()
    assert user_sql.callable_functions(address) == []
    assert revision == revisions.newest_revision()
    assert documents == 0
    assert rights == (False, True, False)


def test_the_broker_is_persistent_and_needs_a_password(folder: Path, secret: Path) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    shell, script, *options = compose["services"]["valkey"]["command"]
    (mount,) = compose["services"]["valkey"]["configs"]
    assert script == mount["target"]
    started = ROOT / compose["configs"][mount["source"]]["file"]
    socket = folder / "valkey.sock"
    local = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    environment = {
        "PATH": f"{valkey.program().parent}:/usr/bin:/bin",
        "TMPDIR": str(folder),
        "VALKEY_PASSWORD_FILE": str(secret),
    }

    command = [shell, str(started), *options, *local]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(socket.exists, 30, "the broker's socket")
            with redis.Redis(unix_socket_path=str(socket), password=PASSWORD) as client:
                wait_until(client.ping, 30, "the broker's answer")
                names = ("appendonly", "appendfsync", "save", "maxmemory-policy")
                told = {name: client.config_get(name)[name] for name in names}
            with (
                redis.Redis(unix_socket_path=str(socket)) as stranger,
                pytest.raises(redis.AuthenticationError),
            ):
                stranger.ping()
            arguments = processes.command_of(server.pid)
        finally:
            server.terminate()

    assert PASSWORD not in " ".join(arguments)
    assert "valkey-server" in arguments[0]  # the shell was replaced, so signals arrive
    assert told == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }


def test_the_password_of_the_role_is_in_no_argument(folder: Path, secret: Path) -> None:
    """Every user of the host can read the arguments of a process."""
    script = (ROOT / "deploy" / "create-role.sh").read_text("utf-8")
    written = folder / "arguments"
    psql = folder / "psql"
    psql.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{written}\ncat >/dev/null\n', "utf-8")
    psql.chmod(0o700)

    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "CHORDWISE_DATABASE_PASSWORD_FILE": str(secret),
    }
    subprocess.run(["sh", "-c", script], env=environment, check=True)  # noqa: S607 - as above

    assert "--quiet" in written.read_text("utf-8")
    assert PASSWORD not in written.read_text("utf-8")
