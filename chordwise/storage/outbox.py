"""The outbox: messages promised by committed transactions, until the broker has accepted them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Identity,
    Index,
    Select,
    SQLColumnExpression,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonValue
from chordwise.storage.record import CreatedAt, Record, insert_all

CHANNEL = "chordwise_outbox"
"""The channel on which PostgreSQL announces transactions that promised messages."""
LAST_ATTEMPT = "last attempt"
"""The reason of a message for a chunk whose worker was lost repeatedly."""


class OutboxMessage(Record):
    """One message, sent from `due_at` on: the name of the task and its arguments, only ids."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_unsent", "id", postgresql_where="sent_at IS NULL"),
        Index("ix_outbox_promised", text("(arguments ->> -1)"), postgresql_where="sent_at IS NULL"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    task: Mapped[str]
    arguments: Mapped[JsonValue]
    reason: Mapped[str]
    created_at: Mapped[CreatedAt]
    due_at: Mapped[CreatedAt]
    sent_at: Mapped[datetime | None]

    @property
    def is_sent_alone(self) -> bool:
        """Whether the chunk must not share a message with others."""
        return self.reason == LAST_ATTEMPT


def add(session: Session, task: str, *ids: uuid.UUID, reason: str) -> None:
    """Promise a message; it is sent after the transaction has been committed."""
    session.add(OutboxMessage(task=task, arguments=[str(id_) for id_ in ids], reason=reason))


def add_all(
    session: Session, task: str, ids_of_all: Iterable[tuple[uuid.UUID, ...]], *, reason: str
) -> None:
    """Promise a message for each id or pair of ids, in this order."""
    rows = [{"arguments": list(map(str, ids))} for ids in ids_of_all]
    insert_all(session, OutboxMessage, rows, task=task, reason=reason)


def add_selected(
    session: Session, task: str, ids: Select[*tuple[uuid.UUID, ...]], *, reason: str
) -> int:
    """Promise a message for each row of ids that a query selects; return their number."""
    found = ids.subquery()
    arguments = func.jsonb_build_array(*(cast(column, Text) for column in found.c))
    rows = select(literal(task), arguments, literal(reason)).select_from(found)
    names = ["task", "arguments", "reason"]
    inserted = insert(OutboxMessage).from_select(names, rows).returning(OutboxMessage.id).cte()
    return session.scalar(select(func.count()).select_from(inserted)) or 0


def lock_due(session: Session, limit: int) -> Sequence[OutboxMessage]:
    """Return, locked, the oldest due unsent messages that no other dispatcher has locked."""
    return session.scalars(
        select(OutboxMessage)
        .where(OutboxMessage.sent_at.is_(None), OutboxMessage.due_at <= func.clock_timestamp())
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
    """Delete messages sent longer ago than `older_than`; they serve diagnosis only."""
    session.execute(delete(OutboxMessage).where(OutboxMessage.sent_at < func.now() - older_than))


def is_promised(task: str, *, of: SQLColumnExpression[uuid.UUID]) -> ColumnElement[bool]:
    """Return the condition that an unsent message of this task has the id of a column last."""
    return exists().where(
        OutboxMessage.sent_at.is_(None), OutboxMessage.task == task, _named() == cast(of, Text)
    )


def unpromised(session: Session, task: str, ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of the ids for which no message of this task is unsent.

    As literals, the ids are hashed by PostgreSQL, which reads the messages at most once.
    """
    values = list(map(str, ids))
    texts: BindParameter[str] = bindparam("ids", values, expanding=True, literal_execute=True)
    waiting = select(_named()).where(
        OutboxMessage.sent_at.is_(None), OutboxMessage.task == task, _named().in_(texts)
    )
    found = set(session.scalars(waiting))
    return [id_ for id_ in ids if str(id_) not in found]


def _named() -> ColumnElement[str]:
    return OutboxMessage.arguments.op("->>", return_type=Text())(literal_column("-1"))


_ONLY_ROW = 1
_RESENDING = "sending everything since "


class BrokerMarker(Record):
    """The last marker that was stored in the broker."""

    __tablename__ = "broker_markers"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    marker: Mapped[str]
    created_at: Mapped[CreatedAt]


def current(session: Session) -> str | None:
    """Return the marker that the broker should hold; `None` if none was stored yet."""
    row = session.get(BrokerMarker, _ONLY_ROW, populate_existing=True)
    return row.marker if row else None


def resending_marker(moment: datetime) -> str:
    """Return the marker of a broker that receives all messages again since `moment`."""
    return f"{_RESENDING}{moment.isoformat()}"


def resending_since(marker: str | None) -> datetime | None:
    """Return since when a broker with this marker receives all messages again, or `None`."""
    if marker is None or not marker.startswith(_RESENDING):
        return None
    return datetime.fromisoformat(marker.removeprefix(_RESENDING))


def remember(session: Session, marker: str) -> None:
    """Record the marker that was just stored in the broker."""
    values = {"id": _ONLY_ROW, "marker": marker}
    session.execute(
        insert(BrokerMarker)
        .values(values)
        .on_conflict_do_update(index_elements=["id"], set_={"marker": marker})
    )
