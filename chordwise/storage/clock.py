"""The database's clock: the only one that leases and due-times go by."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.orm import Session


def database_now() -> ColumnElement[datetime]:
    """Return the moment of the statement, not of its transaction's start."""
    return func.clock_timestamp()


def statement_start() -> ColumnElement[datetime]:
    """Return when the statement began: one moment for all rows, by which an index can be asked.

    A volatile function such as that of `database_now` is never compared with an index.
    """
    return func.statement_timestamp()


def after(delay: timedelta) -> ColumnElement[datetime]:
    """Return the moment `delay` from now."""
    return func.clock_timestamp() + literal(delay)


def read(session: Session) -> datetime:
    """Ask the database what time it is."""
    return session.scalars(select(database_now())).one()
