"""The database's clock: the only one that leases and due-times go by."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Boolean, ColumnElement, func, literal, literal_column, select
from sqlalchemy.orm import Session

HOLDERS_HAVE_COME = "pg_postmaster_start_time() < clock_timestamp() - interval '6 seconds'"
"""Says that a lease that has run out may be taken over.

Leases cannot be renewed while the database is unavailable, so for six seconds after its restart
they are left to their holders. A worker with an answer tries to store it every five seconds or
more often.
"""


def database_now() -> ColumnElement[datetime]:
    """Return the time of the statement, not of its transaction's start."""
    return func.clock_timestamp()


def statement_start() -> ColumnElement[datetime]:
    """Return when the statement began: one moment for all rows, by which an index can be asked.

    A volatile function such as that of `database_now` is never compared with an index.
    """
    return func.statement_timestamp()


def after(delay: timedelta) -> ColumnElement[datetime]:
    """Return the time `delay` from now."""
    return func.clock_timestamp() + literal(delay)


def holders_have_come() -> ColumnElement[bool]:
    """Return the condition that a lease that has run out may be taken over."""
    return literal_column(HOLDERS_HAVE_COME, Boolean)


def read(session: Session) -> datetime:
    """Ask the database what time it is."""
    return session.scalars(select(database_now())).one()
