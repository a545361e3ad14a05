"""Tests that a key of a provider and a password of the database are changed while a run works."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url

from tests.conftest import Servers
from tests.e2e.conftest import Stage, set_stage
from tests.fakes.configuration import configuration
from tests.fakes.processes import Processes
from tests.peers.answering_server import AnsweringHandler, AnsweringServer
from tests.peers.serving import serving_in_a_thread

_DOCUMENTS = 40
_KEYED = 'api_key_env = "PEER_API_KEY"'
_FINISHED = "SELECT status = 'finished' FROM runs"
_ROLE = "rotated"


class KeyedServer(AnsweringServer):
    """A provider that accepts `keys`, and counts the requests with another key."""

    def __init__(self) -> None:
        super().__init__(0.05, KeyedHandler)
        self.keys = {"old-key"}
        self.rejected = 0


class KeyedHandler(AnsweringHandler):
    """Rejects a request with another key."""

    server: KeyedServer

    def converse(self, user: str) -> None:
        if self.headers["Authorization"].removeprefix("Bearer ") in self.server.keys:
            super().converse(user)
            return
        self.server.rejected += 1
        self.reply(401, json.dumps({"error": {"message": "Incorrect API key."}}).encode())


@pytest.fixture
def provider() -> Iterator[KeyedServer]:
    server = KeyedServer()
    with serving_in_a_thread(server):
        yield server


@pytest.fixture
def stage(
    tmp_path: Path, database_url: SecretStr, broker_url: SecretStr, provider: KeyedServer
) -> Iterator[Stage]:
    settings = configuration(provider.base_url, model=_KEYED)
    with set_stage(tmp_path, settings, provider, database_url, broker_url) as rotating:
        yield rotating


@contextmanager
def processes_with(stage: Stage, **environment: str) -> Iterator[Processes]:
    """Start a scheduler and a worker with these variables; end them as an operator would."""
    (folder := stage.folder / environment["PEER_API_KEY"]).mkdir()
    variables = {**stage.processes.environment, **environment}
    with Processes(folder=folder, environment=variables) as processes:
        processes.start("scheduler")
        processes.start("worker")
        yield processes


@contextmanager
def a_login(servers: Servers, database_url: SecretStr) -> Iterator[Callable[[str], str]]:
    """Yield a function that sets the password of a login, and returns its address."""
    url = make_url(database_url.get_secret_value())
    role, owner = sql.Identifier(_ROLE), sql.Identifier(url.username or "")

    with psycopg.connect(servers.postgres.url("postgres"), autocommit=True) as connection:

        def login(password: str) -> str:
            change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(password))
            connection.execute(change)
            changed = url.set(username=_ROLE, password=password)
            return changed.render_as_string(hide_password=False)

        connection.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(role, owner))
        try:
            yield login
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def submit(stage: Stage) -> None:
    folder = stage.folder / "letters"
    folder.mkdir()
    for number in range(_DOCUMENTS):
        text = f"Letter {number}: the bridge was opened in the year {1700 + number}."
        (folder / f"{number:02}.txt").write_text(text, "utf-8")
    stage.submit(str(folder))


def check_complete(stage: Stage) -> None:
    stage.wait_for(_FINISHED)
    assert stage.count("SELECT count(*) FROM results") == _DOCUMENTS
    assert stage.value("SELECT bool_and(status = 'succeeded') FROM jobs")
    assert stage.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")


def test_a_key_and_a_password_are_replaced_without_a_lost_step(
    stage: Stage, provider: KeyedServer, servers: Servers, database_url: SecretStr
) -> None:
    """The new processes start before the old ones end, and each document has one answer."""
    with a_login(servers, database_url) as login, ExitStack() as rotated:
        before = {"PEER_API_KEY": "old-key", "CHORDWISE_DATABASE_URL": login("old password")}
        with processes_with(stage, **before):
            submit(stage)
            stage.wait_for("SELECT count(*) > 3 FROM results")
            provider.keys.add("new-key")
            after = {"PEER_API_KEY": "new-key", "CHORDWISE_DATABASE_URL": login("new password")}
            rotated.enter_context(processes_with(stage, **after))
        provider.keys.remove("old-key")

        check_complete(stage)
    assert provider.rejected == 0


@pytest.mark.nightly
def test_a_run_that_a_revoked_key_has_paused_continues(stage: Stage, provider: KeyedServer) -> None:
    with processes_with(stage, PEER_API_KEY="old-key"):
        submit(stage)
        stage.wait_for("SELECT count(*) > 3 FROM results")
        provider.keys = {"new-key"}
        stage.wait_for("SELECT status = 'paused' FROM runs")

    with processes_with(stage, PEER_API_KEY="new-key") as processes:
        continued = processes.run("continue", "latest")
        assert continued.returncode == 0, continued.stderr
        check_complete(stage)
