"""Leases: rows that one process works on, held by a token until a time that a heartbeat extends."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import Boolean, ColumnElement, and_, literal_column, select, update
from sqlalchemy.orm import Mapped, Session

from chordwise.errors import LeaseLostError
from chordwise.storage import clock
from chordwise.storage.record import Identity, Record, in_ids, update_rows


class Leased(Record):
    """A table whose rows are leased; `AT_WORK` are the states of a row that a process holds."""

    __abstract__ = True
    AT_WORK: ClassVar[Collection[str]]

    id: Mapped[Identity]
    status: Mapped[str]
    lease_token: Mapped[uuid.UUID | None]
    lease_until: Mapped[datetime | None]

    @classmethod
    def is_at_work(cls) -> ColumnElement[bool]:
        """Return the condition that a process works on a row, or that its lease has expired."""
        return cls.status.in_(cls.AT_WORK)

    @classmethod
    def has_expired(cls) -> ColumnElement[bool]:
        """Return the condition that another process may take a row over."""
        may_expire = literal_column(clock.LEASES_MAY_EXPIRE, Boolean)
        return and_(cls.is_at_work(), cls.lease_until < clock.database_now(), may_expire)

    @classmethod
    def is_held(cls, id_: uuid.UUID, token: uuid.UUID) -> ColumnElement[bool]:
        """Return the condition that a row is held with this token."""
        return and_(cls.id == id_, cls.lease_token == token, cls.is_at_work())


class StepRecord(Leased):
    """Leased work whose attempts are counted; `FREE` is its state after a release."""

    __abstract__ = True
    FREE: ClassVar[str]

    attempts: Mapped[int]


def extend(
    session: Session, table: type[Leased], tokens: Collection[uuid.UUID], lease: timedelta
) -> set[uuid.UUID]:
    """Extend leases; return the tokens of those that were still held.

    The rows are locked in the order of their ids, as in `chunks.end_all`.
    """
    if not tokens:
        return set()
    is_held = in_ids(table.lease_token, tokens) & table.is_at_work()
    held = select(table.id).where(is_held).order_by(table.id).with_for_update(key_share=True)
    extended = (
        update(table)
        .where(table.id.in_(held), is_held)
        .values(lease_until=clock.now_plus(lease))
        .returning(table.lease_token)
        .cte("extended")
    )
    return set(session.scalars(select(extended.c.lease_token).distinct()))


def require_all(held: Collection[uuid.UUID], ids: Collection[uuid.UUID]) -> None:
    """Check that a process still holds all of the files with these ids.

    Raises:
        LeaseLostError: Another process has taken one of them over.
    """
    if len(held) < len(ids):
        raise LeaseLostError("Another process has taken this file over.")


def has_ended(session: Session, table: type[Leased], id_: uuid.UUID, token: uuid.UUID) -> bool:
    """Return whether work has left the lease with this token: it has ended, or is postponed."""
    left = and_(table.id == id_, table.lease_token == token, ~table.is_at_work())
    return session.scalar(select(table.id).where(left)) is not None


def release(
    session: Session,
    table: type[StepRecord],
    id_: uuid.UUID,
    token: uuid.UUID,
    attempts: ColumnElement[int] | None = None,
) -> bool:
    """Release unfinished work; the attempt does not count, or `attempts` says how many do.

    Returns false if the lease is lost.
    """
    return update_rows(
        session,
        table,
        table.is_held(id_, token),
        status=table.FREE,
        attempts=table.attempts - 1 if attempts is None else attempts,
        lease_token=None,
        lease_until=None,
    )
