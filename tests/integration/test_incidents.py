"""Incidents add up, each under its kind and reason, and everybody who reads may see them."""

from __future__ import annotations

import threading

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runs import user_sql
from chordwise.storage import incidents
from chordwise.storage.database import Database, open_engine
from chordwise.storage.incidents import Incident, IncidentKind
from tests.fakes.processes import wait_until
from worker.rejections import Rejection, Rejections


def counts(database: Database) -> dict[tuple[str, str], int]:
    """Return every count by kind and reason."""
    with database.read() as session:
        return {(row.kind, row.reason): row.count for row in session.scalars(select(Incident))}


def test_counts_add_up_by_kind_and_reason(database_url: SecretStr) -> None:
    """The same reason under two kinds is two rows; none is no row."""
    engine = open_engine(database_url)
    database = Database(engine)
    for number in (1, 4):
        with database.write() as session:
            incidents.count(session, IncidentKind.RESCUE, "due", number)
            incidents.count(session, IncidentKind.HANDED_BACK, "due")
            incidents.count(session, IncidentKind.LEASE_LOST, "late", 0)

    found = counts(database)

    with database.read() as session:
        row = session.get_one(Incident, ("rescue", "due"))
    engine.dispose()
    assert found == {("rescue", "due"): 5, ("handed_back", "due"): 2}
    assert row.first_at < row.last_at


def test_counting_at_the_same_time_loses_nothing(database_url: SecretStr) -> None:
    """Eight threads that count the same reason do not overwrite each other."""
    engine = open_engine(database_url, pool_size=8)
    database = Database(engine)

    def work() -> None:
        for _ in range(10):
            with database.write() as session:
                incidents.count(session, IncidentKind.LEASE_LOST, "heartbeat")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = counts(database)
    engine.dispose()
    assert found == {("lease_lost", "heartbeat"): 80}


def test_readers_see_them(database_url: SecretStr) -> None:
    """`chordwise sql` answers what went wrong lately."""
    engine = open_engine(database_url)
    with Database(engine).write() as session:
        incidents.count(session, IncidentKind.RESCUE, "lease_expired")
    engine.dispose()

    with user_sql.answer(database_url, "SELECT kind, reason, count FROM incidents") as answer:
        rows = list(answer.rows)

    assert rows == [("rescue", "lease_expired", 1)]


def test_a_rejection_is_counted_once_the_database_is_back(
    database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is away nothing is raised into the worker, and nothing forgotten."""
    away = open_engine(SecretStr("postgresql://nobody@127.0.0.1:9/nothing"))
    back = open_engine(database_url)
    database = Database(away)
    rejections = Rejections(database)
    rejections.add(Rejection.BODY)
    rejections.add(Rejection.BODY)
    with pytest.raises(ServiceUnavailableError):
        rejections.count()

    reached = Database(back)
    monkeypatch.setattr(database, "write", reached.write)
    rejections.start()

    wait_until(lambda: bool(counts(reached)), 10, "the thread counts")
    found = counts(reached)
    away.dispose()
    back.dispose()
    assert found == {("rejected_message", "body"): 2}
