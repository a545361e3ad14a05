"""Transactions that are attempted again while the database is away; no server is needed."""

from __future__ import annotations

import errno
from datetime import timedelta

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from chordwise.errors import LeaseLostError, ServiceUnavailableError
from chordwise.storage.database import Database, translate_errors

LOST = OperationalError("UPDATE", {}, Exception("server closed the connection"))


@pytest.fixture
def database() -> Database:
    """Return a database whose sessions never reach for a server."""
    return Database(create_engine("postgresql+psycopg://"))


def entries(database: Database, within: timedelta, errors: list[Exception]) -> int:
    """Enter the block, which raises these errors first; return how often it was entered."""
    entered = 0
    for attempt in database.attempts(within):
        with attempt:
            entered += 1
            if len(errors) >= entered:
                raise errors[entered - 1]
    return entered


def test_a_lost_connection_is_waited_out(database: Database) -> None:
    """The block is entered again until it succeeds, and not after that."""
    assert entries(database, timedelta(seconds=30), [LOST, LOST]) == 3


def test_the_wait_has_an_end(database: Database) -> None:
    """Afterwards the error is that of the last attempt."""
    with pytest.raises(ServiceUnavailableError, match="server closed the connection"):
        entries(database, timedelta(0), [LOST])


@pytest.mark.parametrize("error", [LeaseLostError("gone"), ValueError("a defect")])
def test_other_errors_are_not_waited_out(database: Database, error: Exception) -> None:
    """The first one is raised, and the second never reached."""
    with pytest.raises(type(error)):
        entries(database, timedelta(seconds=30), [error, AssertionError("entered again")])


def test_no_descriptor_left_counts_as_a_database_that_is_away() -> None:
    """Work waits for it, as for an outage, and the hint names the limit."""
    with pytest.raises(ServiceUnavailableError) as caught, translate_errors():
        raise OSError(errno.EMFILE, "Too many open files")

    assert "Too many open files" in caught.value.what
    assert "ulimit" in caught.value.hint
    with pytest.raises(BrokenPipeError), translate_errors():  # it has nothing to do with it
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
