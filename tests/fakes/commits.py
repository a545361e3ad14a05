"""Commits whose response is lost: they are made, and reported as failed."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from sqlalchemy import Connection, Engine, PoolProxiedConnection, event
from sqlalchemy.exc import OperationalError

from tests.fakes.pipeline import Pipeline


def unconfirmed(pipeline: Pipeline, statement: str) -> Callable[[], bool]:
    """Report the next commit after a statement as lost although it was made.

    Return a reset, which returns whether there was such a commit.
    """
    engine: Engine = pipeline.context.database.engine
    commit = engine.dialect.do_commit
    seen: list[str] = []
    lost: list[str] = []

    def lose_if_seen() -> None:
        if seen and not lost:
            lost.extend(seen)
            raise OperationalError("COMMIT", {}, psycopg.OperationalError("the connection is lost"))

    def note(connection: Connection, *arguments: object) -> None:
        if statement in str(arguments[1]):
            seen.append(statement)
            if connection.get_isolation_level() == "AUTOCOMMIT":
                lose_if_seen()

    def do_commit(connection: PoolProxiedConnection) -> None:
        commit(connection)
        lose_if_seen()

    event.listen(engine, "after_cursor_execute", note)
    engine.dialect.do_commit = do_commit  # type: ignore[assignment, method-assign]

    def end() -> bool:
        event.remove(engine, "after_cursor_execute", note)
        engine.dialect.do_commit = commit  # type: ignore[method-assign]
        return bool(lost)

    return end
