"""The clock of the database, which alone decides about leases and due times."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.orm import Session

LEASES_MAY_EXPIRE = "pg_postmaster_start_time() < clock_timestamp() - interval '6 seconds'"
"""The condition that an expired lease may be taken over.

Leases cannot be renewed while the database is unavailable, so for six seconds after a restart of
the database they are reserved for their holders. A worker with an answer tries to store it at
least every five seconds.
"""


def database_now() -> ColumnElement[datetime]:
    """Return the current time, not the start of the transaction."""
    return func.clock_timestamp()


def statement_start() -> ColumnElement[datetime]:
    """Return the start of the statement: the same time for all rows, usable in an index search.

    A volatile function such as that of `database_now` is never used in an index search.
    """
    return func.statement_timestamp()


def now_plus(delay: timedelta) -> ColumnElement[datetime]:
    """Return the time `delay` from now."""
    return func.clock_timestamp() + literal(delay)


def read(session: Session) -> datetime:
    """Return the current time of the database."""
    return session.scalars(select(database_now())).one()
