"""What a stack runs, at which addresses, and that it goes on running."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import redis

from chordwise.embedded import stack
from chordwise.embedded.home import home_at
from chordwise.embedded.processes import ProcessIdentity
from chordwise.embedded.stack import Level
from chordwise.errors import ConfigurationError
from chordwise.settings import InboxSettings
from tests.fakes.stacks import COMMANDS, becomes, kill, nobody_left, note_of, running, settings_for


def test_the_level_rises_and_never_falls(home: Path) -> None:
    """A command that reads gets a migrated PostgreSQL and nothing else; one that works the rest.

    The processes of ours find database and broker in their environment.
    """
    heard: list[str] = []
    settings = settings_for(home)
    reading = stack.ensure(settings, Level.DATABASE, commands=COMMANDS, on_progress=heard.append)
    before = running(home)
    address = reading.require_database_url().get_secret_value().replace("+psycopg", "")
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


def test_other_settings_bring_a_new_worker(home: Path) -> None:
    """The servers stay, while the processes that behave by the settings are replaced."""
    stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
    before = running(home)

    stack.ensure(settings_for(home, model="openai/gpt-5"), Level.ALL, commands=COMMANDS)
    stack.ensure(settings_for(home, model="openai/gpt-5"), Level.ALL, commands=COMMANDS)

    after = running(home)
    assert after.children["postgres"] == before.children["postgres"]
    assert after.children["valkey"] == before.children["valkey"]
    assert nobody_left([before.children["worker"], before.children["scheduler"]])
    assert {"worker", "scheduler"} <= set(after.children)


def test_what_a_stack_watches_is_not_ended_from_elsewhere(home: Path, tmp_path: Path) -> None:
    """Files would wait, and nights pass, for a command that somebody gave in another folder.

    A change of its own file may end it.
    """
    file = tmp_path / "chordwise.toml"
    inbox = InboxSettings(folders=(tmp_path / "inbox",))
    stack.ensure(settings_for(home, file=file, inbox=inbox), Level.ALL, commands=COMMANDS)
    before = running(home)
    other = tmp_path / "other" / "chordwise.toml"

    for elsewhere in (settings_for(home), settings_for(home, file=other, model="openai/gpt-5")):
        with pytest.raises(ConfigurationError, match="watches the inboxes") as refused:
            stack.ensure(elsewhere, Level.ALL, commands=COMMANDS)
        assert str(file) in refused.value.hint
        stack.ensure(elsewhere, Level.DATABASE, commands=COMMANDS)
        assert not stack.keeps_watch(elsewhere)

    assert running(home).children == before.children
    assert stack.keeps_watch(settings_for(home, file=file, inbox=inbox))
    stack.ensure(settings_for(home, file=file), Level.ALL, commands=COMMANDS)
    assert nobody_left([before.children["scheduler"]])


def test_services_of_the_users_own_are_not_started(home: Path, tmp_path: Path) -> None:
    """With both addresses given, only worker and scheduler run, and they get these addresses."""
    own = stack.ensure(settings_for(tmp_path / "other"), Level.ALL, commands=COMMANDS)
    settings = settings_for(home, database_url=own.database_url, broker_url=own.broker_url)

    services = stack.ensure(settings, Level.ALL, commands=COMMANDS)

    assert set(running(home).children) == {"worker", "scheduler"}
    assert services.database_url == own.database_url
    assert becomes(lambda: note_of(home, "worker") != "")
    assert note_of(home, "worker").startswith(own.require_database_url().get_secret_value())
    assert stack.stop(home)
    assert stack.stop(tmp_path / "other")


def has_another(home: Path, name: str, before: ProcessIdentity) -> bool:
    """Return whether a child of this name runs that is not the one before."""
    return running(home).children.get(name) not in (None, before)


def test_what_dies_comes_back(home: Path) -> None:
    """A child that was killed is started again, at the same address."""
    services = stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)
    address = services.require_database_url().get_secret_value().replace("+psycopg", "")

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


def test_a_long_home_gets_its_sockets_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home too deep for a socket's address works, for a command with another TMPDIR too."""
    home = tmp_path / ("deep" * 30)

    stack.ensure(settings_for(home), Level.DATABASE, commands=COMMANDS)
    sockets = home_at(home).sockets()
    with monkeypatch.context() as patch, TemporaryDirectory(dir="/tmp") as folder:
        patch.setattr(tempfile, "tempdir", folder)
        services = stack.ensure(settings_for(home), Level.ALL, commands=COMMANDS)

    try:
        assert services.broker_url is not None
        address = services.broker_url.get_secret_value().replace("redis+socket", "unix")
        with redis.Redis.from_url(address) as client:
            assert client.ping()
    finally:
        stack.stop(home)
    assert not sockets.is_relative_to(home)
    assert not sockets.exists()
