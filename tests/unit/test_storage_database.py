"""Tests of addresses of PostgreSQL, and of retries during an outage, without a server."""

from __future__ import annotations

import errno
from datetime import timedelta

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from chordwise.errors import ConfigurationError, LeaseLostError, ServiceUnavailableError
from chordwise.storage.database import Database, translate_errors
from chordwise.storage.postgresql import address_of

LOST = OperationalError("UPDATE", {}, psycopg.OperationalError("server closed the connection"))


@pytest.fixture
def database() -> Database:
    return Database(create_engine("postgresql+psycopg://"))


def entries(database: Database, within: timedelta, errors: list[Exception]) -> int:
    entered = 0
    for attempt in database.attempts(within):
        with attempt:
            entered += 1
            if len(errors) >= entered:
                raise errors[entered - 1]
    return entered


def test_a_transaction_is_retried_after_a_lost_connection_until_the_timeout(
    database: Database,
) -> None:
    assert entries(database, timedelta(seconds=30), [LOST, LOST]) == 3
    with pytest.raises(ServiceUnavailableError, match="server closed the connection"):
        entries(database, timedelta(0), [LOST])


@pytest.mark.parametrize("error", [LeaseLostError("gone"), ValueError("a defect")])
def test_other_errors_are_not_retried(database: Database, error: Exception) -> None:
    with pytest.raises(type(error)):
        entries(database, timedelta(seconds=30), [error, AssertionError("entered again")])


def test_a_lack_of_file_descriptors_counts_as_an_outage() -> None:
    with pytest.raises(ServiceUnavailableError) as caught, translate_errors():
        raise OSError(errno.EMFILE, "Too many open files")

    assert "Too many open files" in caught.value.what
    assert "ulimit" in caught.value.hint
    with pytest.raises(BrokenPipeError), translate_errors():  # unrelated to the database
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


ADDRESSES = {
    "postgresql://ann:p%40ss/w?rd@db.lan:5433/letters": {
        "host": "db.lan",
        "port": "5433",
        "user": "ann",
        "password": "p@ss/w?rd",
        "dbname": "letters",
    },
    "postgresql+psycopg://ann@/letters?host=/run/sockets&connect_timeout=3": {
        "user": "ann",
        "dbname": "letters",
        "host": "/run/sockets",
        "connect_timeout": "3",
    },
    "postgres://[::1]:5433/letters": {"host": "::1", "port": "5433", "dbname": "letters"},
    "postgresql://one,two/letters": {"host": "one,two", "dbname": "letters"},
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_has_the_parameters_of_its_url(url: str) -> None:
    assert address_of(SecretStr(url)) == ADDRESSES[url]


@pytest.mark.parametrize("url", ["letters", "mysql://db.lan/letters", "postgresql://db.lan:port/x"])
def test_another_address_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        address_of(SecretStr(url))
