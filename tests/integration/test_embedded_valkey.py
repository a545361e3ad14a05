"""Tests of the embedded Valkey: a real server, and a real Celery that uses its socket."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import Signals

import pytest
import redis

from chordwise.embedded import processes
from chordwise.embedded.valkey import EmbeddedValkey
from chordwise.errors import ServiceUnavailableError
from chordwise.settings.service_addresses import celery_address
from tests.fakes.processes import completed

CELERY_APPLICATION = """
import os, sys
from celery import Celery, chord
application = Celery("sums", broker=os.environ["URL"], backend=os.environ["URL"])

@application.task(name="double")
def double(number):
    return 2 * number

@application.task(name="total")
def total(numbers):
    return sum(numbers)

if __name__ == "__main__" and sys.argv[1] == "work":
    application.worker_main(["worker", "--pool=threads", "--concurrency=2", "--loglevel=ERROR"])
if __name__ == "__main__" and sys.argv[1] == "ask":
    header = [double.si(number) for number in (1, 2, 3)]
    print(chord(header)(total.s()).get(timeout=30))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home whose path needs quoting in addresses."""
    home = tmp_path / "a home%é"
    (home / "run").mkdir(parents=True, mode=0o700)
    return home


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(home / "valkey", home / "run")
    yield server
    server.stop()


def client(server: EmbeddedValkey) -> redis.Redis:
    return redis.Redis.from_url(server.url(), decode_responses=True)


def test_messages_survive_a_restart(server: EmbeddedValkey) -> None:
    server.start()
    with client(server) as connection:
        connection.set("note", "kept")

    server.stop()
    server.start()

    with client(server) as connection:
        assert connection.get("note") == "kept"


def test_the_server_keeps_all_messages_and_has_no_port(server: EmbeddedValkey) -> None:
    server.start()

    with client(server) as connection:
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert connection.config_get("appendonly") == {"appendonly": "yes"}
        assert connection.config_get("port") == {"port": "0"}


def test_a_client_without_the_password_is_refused(home: Path, server: EmbeddedValkey) -> None:
    server.start()
    password = (home / "valkey.password").read_text(encoding="utf-8")
    identity = server.identity()
    assert identity is not None

    stranger = redis.Redis(unix_socket_path=str(home / "run" / "valkey.sock"))
    with pytest.raises(redis.AuthenticationError):
        stranger.ping()
    stranger.close()

    assert not any(password in argument for argument in processes.command_of(identity.pid))
    files = (home / "valkey.password", home / "valkey" / "valkey.conf")
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]


def test_a_second_start_is_refused(server: EmbeddedValkey) -> None:
    server.start()

    with pytest.raises(ServiceUnavailableError, match="is already running"):
        server.start()


def test_a_failed_start_reports_the_reason(home: Path, server: EmbeddedValkey) -> None:
    server.start()
    server.stop()
    manifest = home / "valkey" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("nonsense\n", encoding="utf-8")

    with pytest.raises(ServiceUnavailableError, match="manifest"):
        server.start()

    assert server.identity() is None


def test_a_chord_of_celery_runs_over_the_socket(tmp_path: Path, server: EmbeddedValkey) -> None:
    """Celery uses the same address as broker and as result backend, with the password."""
    server.start()
    script = tmp_path / "sums.py"
    script.write_text(CELERY_APPLICATION, encoding="utf-8")
    environment = {"URL": celery_address(server.url())}
    worker = processes.launch(
        [sys.executable, str(script), "work"], log=tmp_path / "log", environment=environment
    )

    try:
        outcome = completed(sys.executable, str(script), "ask", environment=environment)
    finally:
        processes.stop(worker, (Signals.SIGTERM, 20))

    assert outcome.stdout.strip() == "12", outcome.stderr
