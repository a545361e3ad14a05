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
from typing import TypedDict, Unpack

from sqlalchemy import ColumnElement, Index, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage import clock
from chordwise.storage.database import Store
from chordwise.storage.record import CreatedAt, Record, in_ids

CHANNEL = "chordwise_outbox"
"""The channel on which PostgreSQL announces transactions that promised messages."""
LAST_ATTEMPT = "last attempt"
"""The reason of a message for a chunk whose worker was lost repeatedly."""
_MAX_DOUBLINGS = 6


class OutboxMessage(Record):
    """A message for a chunk or a job (`id`), sent from `due_at` on; `sends` counts the sendings."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_unsent", "is_nightly", "due_at", "id", postgresql_where="sends = 0"),
        Index("ix_outbox_sent", "due_at", postgresql_where="sends > 0"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    task: Mapped[str]
    reason: Mapped[str]
    is_nightly: Mapped[bool]
    sends: Mapped[int]
    created_at: Mapped[CreatedAt]
    due_at: Mapped[CreatedAt]


@dataclass(frozen=True, slots=True)
class DueMessage:
    """A message that is to be sent to the broker."""

    id: uuid.UUID
    task: str
    is_nightly: bool
    reason: str

    @property
    def is_sent_alone(self) -> bool:
        """Whether the chunk must not share a message with others."""
        return self.reason == LAST_ATTEMPT


@dataclass(frozen=True, slots=True)
class Backlog:
    """The numbers of messages that were sent and whose work has not begun, and what is due."""

    urgent: int
    nightly: int
    is_overdue: bool
    """Whether the wait of a message that was sent is over."""
    has_urgent: bool
    has_nightly: bool
    """Whether there are such messages that are due and were not sent yet."""

    @property
    def in_flight(self) -> int:
        """The number of messages that were sent and whose work has not begun."""
        return self.urgent + self.nightly


class When(TypedDict, total=False):
    """The urgency of a message, and the delay after which it is sent."""

    is_nightly: bool
    delay: timedelta


def promise(
    store: Store, task: str, ids: Collection[uuid.UUID], *, reason: str, **when: Unpack[When]
) -> None:
    """Promise a message for each chunk or job, sent after the commit and the delay.

    It replaces an earlier message for the same work, but keeps its urgency.
    """
    if ids:
        default: When = {"is_nightly": False, "delay": timedelta()}
        values = {"ids": sorted(ids), "task": task, "reason": reason}
        store.execute(_PROMISE, {**values, **default, **when})


# In the order of the ids, so that two transactions cannot wait for each other.
_PROMISE = text("""
    INSERT INTO outbox (id, task, reason, is_nightly, sends, due_at)
    SELECT id, :task, :reason, :is_nightly, 0, clock_timestamp() + :delay
    FROM unnest(CAST(:ids AS uuid[])) AS id
    ON CONFLICT (id) DO UPDATE
    SET task = excluded.task, reason = excluded.reason, sends = 0, due_at = excluded.due_at""")


def record_sent(
    store: Store, task: str, is_nightly: Mapping[uuid.UUID, bool], wait: timedelta
) -> None:
    """Record messages for chunks that the caller sends after the commit, with their urgency."""
    if is_nightly:
        urgencies = [is_nightly[id_] for id_ in sorted(is_nightly)]
        values = {"ids": sorted(is_nightly), "are_nightly": urgencies, "task": task, "wait": wait}
        store.execute(_RECORD_SENT, values)


_RECORD_SENT = text("""
    INSERT INTO outbox (id, task, reason, is_nightly, sends, due_at)
    SELECT id, :task, 'fan-out', is_nightly, 1, clock_timestamp() + :wait
    FROM unnest(CAST(:ids AS uuid[]), CAST(:are_nightly AS boolean[])) AS sent (id, is_nightly)
    ON CONFLICT (id) DO UPDATE
    SET task = excluded.task, reason = excluded.reason, sends = 1, due_at = excluded.due_at""")


def backlog(session: Session) -> Backlog:
    """Return how many messages are on their way, and which have to be sent."""
    return Backlog(*session.execute(_BACKLOG).one())


_DUE = "EXISTS (SELECT FROM outbox WHERE sends = 0 AND {} AND due_at <= statement_timestamp())"
_BACKLOG = text(f"""
    SELECT count(*) FILTER (WHERE NOT is_nightly), count(*) FILTER (WHERE is_nightly),
        coalesce(bool_or(due_at <= statement_timestamp()), false),
        {_DUE.format("NOT is_nightly")}, {_DUE.format("is_nightly")}
    FROM outbox WHERE sends > 0""")  # noqa: S608 - fixed names


def take(
    session: Session, *, is_nightly: bool, limit: int, wait: timedelta
) -> Sequence[DueMessage]:
    """Return the longest due messages that were not sent yet, and record that they are sent.

    They are overdue after `wait`, which doubles each time that a message is sent again.
    """
    urgency = OutboxMessage.is_nightly if is_nightly else ~OutboxMessage.is_nightly
    is_due = OutboxMessage.due_at <= clock.statement_start()
    return _take(session, urgency & (OutboxMessage.sends == 0) & is_due, limit, wait)


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
    sent = {row[0]: DueMessage(*row) for row in rows}
    return [sent[id_] for id_ in ids]


_SEND = text(f"""
    UPDATE outbox SET sends = sends + 1,
        due_at = clock_timestamp() + :wait * 2 ^ least(sends, {_MAX_DOUBLINGS})
    WHERE id = ANY(CAST(:ids AS uuid[]))
    RETURNING id, task, is_nightly, reason""")  # noqa: S608 - fixed names


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
            AND ({has_begun} OR sends > 0 AND NOT {is_wanted})"""  # noqa: S608 - fixed names
