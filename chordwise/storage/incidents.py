"""Incidents: failures that were repaired automatically, counted by kind and reason."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage import clock
from chordwise.storage.record import CreatedAt, Record


class IncidentKind(StrEnum):
    """The kind of an incident."""

    RESCUE = "rescue"
    REJECTED_MESSAGE = "rejected_message"
    LEASE_LOST = "lease_lost"
    RELEASED = "released"
    DELIVERY_FAILED = "delivery_failed"
    PROCESS_LOST = "process_lost"


class Incident(Record):
    """The number of incidents of a kind and reason, with the times of the first and last one."""

    __tablename__ = "incidents"

    kind: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[CreatedAt]
    last_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())


def count(session: Session, kind: IncidentKind, reason: str, number: int = 1) -> None:
    """Add to the count of a kind and a reason; do nothing if `number` is less than one.

    The row stays locked until the transaction ends, so this should be its last statement.
    """
    if number < 1:
        return
    row = insert(Incident).values(kind=kind, reason=reason, count=number)
    more = {"count": Incident.count + row.excluded.count, "last_at": clock.database_now()}
    session.execute(row.on_conflict_do_update(index_elements=["kind", "reason"], set_=more))
