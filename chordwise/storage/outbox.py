"""The outbox: one message for each piece of work that waits for a worker, until a worker begins it.

The broker holds only a few of the messages (`pipeline/jobs/dispatch.py`). A message that was sent
and whose work has not begun is sent again after a wait that grows, so the broker may lose messages
or deliver them twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import TypedDict, Unpack

from sqlalchemy import ColumnElement, Index, SmallInteger, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage import clock
from chordwise.storage.database import Store
from chordwise.storage.record import CreatedAt, Record, in_ids

CHANNEL = "chordwise_outbox"
"""The channel on which PostgreSQL announces transactions that promised messages."""
LAST_ATTEMPT = "last attempt"
"""The reason of a message for a chunk whose worker was lost repeatedly."""
_MAX_DOUBLINGS = 6


class Urgency(IntEnum):
    """The order in which messages are sent: those of begun work first, those of nightly runs last.

    Fan-outs and chunks of new work, and postponed work, have the urgency of their run.
    """

    BEGUN = 0
    NEW = 1
    NIGHTLY = 2

    @classmethod
    def of_run(cls, priority: str) -> Urgency:
        """Return the urgency of the new work of a run with this priority."""
        return cls.NIGHTLY if priority == "nightly" else cls.NEW


class OutboxMessage(Record):
    """A message for a chunk or a job (`id`), sent from `due_at` on; `sends` counts the sendings."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_unsent", "urgency", "due_at", "id", postgresql_where="sends = 0"),
        Index("ix_outbox_sent", "due_at", postgresql_where="sends > 0"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    task: Mapped[str]
    reason: Mapped[str]
    urgency: Mapped[int] = mapped_column(SmallInteger)
    sends: Mapped[int]
    created_at: Mapped[CreatedAt]
    due_at: Mapped[CreatedAt]


@dataclass(frozen=True, slots=True)
class DueMessage:
    """A message that is to be sent to the broker."""

    id: uuid.UUID
    task: str
    urgency: Urgency
    reason: str

    @property
    def is_sent_alone(self) -> bool:
        """Whether the chunk must not share a message with others."""
        return self.reason == LAST_ATTEMPT


@dataclass(frozen=True, slots=True)
class Backlog:
    """The messages of one urgency: how many were sent and have not led to work, and what is due."""

    in_flight: int = 0
    is_overdue: bool = False
    """Whether the wait of a message that was sent is over."""
    has_unsent: bool = False
    """Whether there are messages that are due and were not sent yet."""


class When(TypedDict, total=False):
    """The urgency of a message, by default that of begun work, and its delay."""

    urgency: Urgency
    delay: timedelta


def promise(
    store: Store, task: str, ids: Collection[uuid.UUID], *, reason: str, **when: Unpack[When]
) -> None:
    """Promise a message for each chunk or job, sent after the commit and the delay.

    It replaces an earlier message for the same work, but keeps its urgency.
    """
    if ids:
        default: When = {"urgency": Urgency.BEGUN, "delay": timedelta()}
        values = {"ids": sorted(ids), "task": task, "reason": reason}
        store.execute(_PROMISE, {**values, **default, **when})


# In the order of the ids, so that two transactions cannot wait for each other.
_PROMISE = text("""
    INSERT INTO outbox (id, task, reason, urgency, sends, due_at)
    SELECT id, :task, :reason, :urgency, 0, clock_timestamp() + :delay
    FROM unnest(CAST(:ids AS uuid[])) AS id
    ON CONFLICT (id) DO UPDATE
    SET task = excluded.task, reason = excluded.reason, sends = 0, due_at = excluded.due_at""")


def record_sent(
    store: Store, task: str, urgencies: Mapping[uuid.UUID, Urgency], wait: timedelta
) -> None:
    """Record messages for chunks that the caller sends after the commit.

    They are overdue after `wait`, and as many times that as there are thousands sent before.
    """
    if urgencies:
        values = {"task": task, "wait": wait, "ids": sorted(urgencies)}
        ordered = [urgencies[id_] for id_ in sorted(urgencies)]
        store.execute(_RECORD_SENT, {**values, "urgencies": ordered})


_RECORD_SENT = text("""
    INSERT INTO outbox (id, task, reason, urgency, sends, due_at)
    SELECT id, :task, 'fan-out', urgency, 1, clock_timestamp() + :wait * (1 + position / 1000)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:urgencies AS smallint[]))
        WITH ORDINALITY AS sent (id, urgency, position)
    ON CONFLICT (id) DO UPDATE
    SET task = excluded.task, reason = excluded.reason, sends = 1, due_at = excluded.due_at""")


def backlog(session: Session) -> Mapping[Urgency, Backlog]:
    """Return how many messages of each urgency are on their way, and which have to be sent."""
    return {Urgency(row[0]): Backlog(*row[1:]) for row in session.execute(_BACKLOG)}


_BACKLOG = text("""
    SELECT urgency.value, count(sent.id),
        coalesce(bool_or(sent.due_at <= statement_timestamp()), false),
        EXISTS (
            SELECT FROM outbox AS unsent WHERE unsent.sends = 0
                AND unsent.urgency = urgency.value AND unsent.due_at <= statement_timestamp()
        )
    FROM generate_series(0, 2) AS urgency (value)
    LEFT JOIN outbox AS sent ON sent.sends > 0 AND sent.urgency = urgency.value
    GROUP BY urgency.value""")


def take(session: Session, urgency: Urgency, limit: int, wait: timedelta) -> Sequence[DueMessage]:
    """Return the longest due unsent messages of an urgency, and record that they are sent.

    They are overdue after `wait`, which doubles each time that a message is sent again.
    """
    is_due = OutboxMessage.due_at <= clock.statement_start()
    is_chosen = (OutboxMessage.urgency == urgency) & (OutboxMessage.sends == 0) & is_due
    return _take(session, is_chosen, limit, wait)


def take_overdue(
    session: Session, longer_than: timedelta, limit: int, wait: timedelta
) -> Sequence[DueMessage]:
    """Return messages whose wait is over for longer than this, and record that they are sent."""
    is_overdue = OutboxMessage.due_at <= clock.statement_start() - longer_than
    return _take(session, (OutboxMessage.sends > 0) & is_overdue, limit, wait)


def _take(
    session: Session, condition: ColumnElement[bool], limit: int, wait: timedelta
) -> Sequence[DueMessage]:
    chosen = select(OutboxMessage.id).where(condition).limit(limit)
    ordered = chosen.order_by(OutboxMessage.due_at, OutboxMessage.id)
    ids = session.scalars(ordered.with_for_update(skip_locked=True)).all()
    if not ids:
        return ()
    rows = session.execute(_SEND, {"ids": list(ids), "wait": wait})
    sent = {row[0]: DueMessage(row[0], row[1], Urgency(row[2]), row[3]) for row in rows}
    return [sent[id_] for id_ in ids]


_SEND = text(f"""
    UPDATE outbox SET sends = sends + 1,
        due_at = clock_timestamp() + :wait * 2 ^ least(sends, {_MAX_DOUBLINGS})
    WHERE id = ANY(CAST(:ids AS uuid[]))
    RETURNING id, task, urgency, reason""")


def take_back(session: Session, ids: Collection[uuid.UUID]) -> None:
    """Record that messages were not sent after all."""
    session.execute(
        update(OutboxMessage)
        .where(in_ids(OutboxMessage.id, ids), OutboxMessage.sends > 0)
        .values(sends=OutboxMessage.sends - 1, due_at=clock.database_now())
    )


def defer(store: Store, ids: Collection[uuid.UUID], delay: timedelta) -> None:
    """Send these messages again after the delay, unless the work has begun by then."""
    store.execute(_DEFER, {"ids": list(ids), "delay": delay})


_DEFER = text("""
    UPDATE outbox SET sends = 0, due_at = clock_timestamp() + :delay
    WHERE id = ANY(CAST(:ids AS uuid[]))""")


def hasten(store: Store, reason: str, first: uuid.UUID, last: uuid.UUID) -> None:
    """Make the unsent messages of a range of ids that have this reason due now."""
    store.execute(_HASTEN, {"reason": reason, "first": first, "last": last})


_HASTEN = text("""
    UPDATE outbox SET due_at = clock_timestamp()
    WHERE id BETWEEN :first AND :last AND reason = :reason AND sends = 0""")


def remove(store: Store, ids: Collection[uuid.UUID]) -> None:
    """Remove the messages of work that is not to be begun any more."""
    store.execute(_REMOVE, {"ids": list(ids)})


_REMOVE = text("DELETE FROM outbox WHERE id = ANY(CAST(:ids AS uuid[]))")


IS_CLAIMED = "EXISTS (SELECT FROM claimed WHERE claimed.id = outbox.id)"
"""The SQL for work that the same statement has claimed."""


def removal(is_wanted: str, has_begun: str = IS_CLAIMED) -> str:
    """Return SQL that removes the messages of `:ids` whose work has begun.

    Also removed are messages that have arrived at a worker in vain, unless the work `is_wanted`:
    its message is then repeated. A message that was promised meanwhile is not sent yet and stays.
    """
    return f"""DELETE FROM outbox WHERE id = ANY(CAST(:ids AS uuid[]))
            AND ({has_begun} OR sends > 0 AND NOT {is_wanted})"""
