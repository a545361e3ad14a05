"""Counts and records what this process sends to databases, which does not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import Cursor
from sqlalchemy import Engine, event

from tests.fakes.pipeline import Pipeline


@dataclass(slots=True, kw_only=True)
class Counts:
    """The counts so far."""

    statements: int = 0
    rows: int = 0
    transactions: int = 0


@contextmanager
def counting(pipeline: Pipeline) -> Iterator[Counts]:
    """Count the statements, rows and transactions of a pipeline within the block."""
    counts = Counts()
    engine = pipeline.context.database.engine

    def count_statement(*_: object) -> None:
        counts.statements += 1

    def count_rows(*done: object) -> None:
        assert isinstance(done[1], Cursor)
        counts.rows += max(0, done[1].rowcount)

    def count_transaction(*_: object) -> None:
        counts.transactions += 1

    listeners: list[tuple[str, Callable[[object], None]]] = [
        ("before_cursor_execute", count_statement),
        ("after_cursor_execute", count_rows),
        ("commit", count_transaction),
        ("rollback", count_transaction),
    ]
    for name, listener in listeners:
        event.listen(engine, name, listener)
    try:
        yield counts
    finally:
        for name, listener in listeners:
            event.remove(engine, name, listener)


@contextmanager
def recorded(engine: Engine | type[Engine] = Engine) -> Iterator[list[tuple[str, object]]]:
    """Record the statements that are sent within the block, with their parameters."""
    sent: list[tuple[str, object]] = []

    def record(*arguments: object) -> None:
        sent.append((str(arguments[2]), arguments[3]))

    event.listen(engine, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", record)
