"""The outbox: messages that a committed transaction promised, until the broker has them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Identity,
    Index,
    SQLColumnExpression,
    Text,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonValue
from chordwise.storage.record import CreatedAt, Record

LAST_ATTEMPT = "last attempt"
"""The reason of a message for a chunk that lost its worker again and again."""


class OutboxMessage(Record):
    """One message to come: the task's name and its arguments, ids and nothing else."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_unsent", "id", postgresql_where="sent_at IS NULL"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    task: Mapped[str]
    arguments: Mapped[JsonValue]
    reason: Mapped[str]
    created_at: Mapped[CreatedAt]
    sent_at: Mapped[datetime | None]

    @property
    def goes_alone(self) -> bool:
        """Whether the chunk may share no message with others."""
        return self.reason == LAST_ATTEMPT


def put(session: Session, task: str, *ids: uuid.UUID, reason: str) -> None:
    """Promise a message; it goes out after the transaction has been committed."""
    session.add(OutboxMessage(task=task, arguments=[str(id_) for id_ in ids], reason=reason))


def put_all(
    session: Session, task: str, of: Iterable[tuple[uuid.UUID, ...]], *, reason: str
) -> None:
    """Promise a message for each of the ids, or of the pairs of them, in this order."""
    rows = [{"task": task, "arguments": list(map(str, ids)), "reason": reason} for ids in of]
    if rows:
        session.execute(insert(OutboxMessage), rows)


def take(session: Session, limit: int) -> Sequence[OutboxMessage]:
    """Lock the oldest unsent messages that no other dispatcher holds."""
    return session.scalars(
        select(OutboxMessage)
        .where(OutboxMessage.sent_at.is_(None))
        .order_by(OutboxMessage.id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()


def mark_sent(session: Session, messages: Sequence[OutboxMessage]) -> None:
    """Record that the broker has accepted the messages."""
    session.execute(
        update(OutboxMessage)
        .where(OutboxMessage.id.in_([message.id for message in messages]))
        .values(sent_at=func.now())
    )


def forget_sent(session: Session, older_than: timedelta) -> None:
    """Delete what was sent long ago; it serves diagnosis only."""
    session.execute(delete(OutboxMessage).where(OutboxMessage.sent_at < func.now() - older_than))


def is_promised(task: str, *, of: SQLColumnExpression[uuid.UUID]) -> ColumnElement[bool]:
    """Return the condition that a message of this task, for the id in a column, waits already.

    The id is a task's last argument: the job's, or the chunk's.
    """
    return (
        select(OutboxMessage.id)
        .where(
            OutboxMessage.sent_at.is_(None),
            OutboxMessage.task == task,
            OutboxMessage.arguments[-1].astext == cast(of, Text),
        )
        .exists()
    )
