"""Tests of retrying transactions during an outage of the database, without a server."""

from __future__ import annotations

import errno
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from chordwise.errors import LeaseLostError, ServiceUnavailableError
from chordwise.storage.database import Database, translate_errors

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


def test_a_transaction_is_retried_after_a_lost_connection(database: Database) -> None:
    assert entries(database, timedelta(seconds=30), [LOST, LOST]) == 3


def test_retries_end_after_the_timeout(database: Database) -> None:
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
