"""The entities of grouped columns: which value joins which, and the decisions of people."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ForeignKey, delete, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column
from sqlalchemy.types import Text

from chordwise.domain.entities import GroupedValues
from chordwise.domain.json_values import JsonValue
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record, new_id


class EntityValue(Record):
    """A value of a grouped column: the value that it `joins` by a rule, and its entity now."""

    __tablename__ = "entity_values"

    column_name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[uuid.UUID]
    entity_id: Mapped[uuid.UUID]
    joins: Mapped[str]
    joined_by: Mapped[str]
    entity: Mapped[str]
    doubts: Mapped[JsonValue | None]


class EntityDecision(Record):
    """A decision that names are one entity, or that the first one differs from the others."""

    __tablename__ = "entity_decisions"

    id: Mapped[Identity]
    column_name: Mapped[str] = mapped_column(index=True)
    action: Mapped[str]
    names: Mapped[list[str]] = mapped_column(ARRAY(Text))
    author: Mapped[str | None]
    withdraws: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("entity_decisions.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=database_now())


def values_of(session: Session, column: str) -> dict[str, EntityValue]:
    """Return the values of a grouped column by their text."""
    rows = session.scalars(select(EntityValue).where(EntityValue.column_name == column))
    return {row.value: row for row in rows}


def add(
    session: Session, column: str, grouping: GroupedValues, known: Mapping[str, EntityValue]
) -> Mapping[str, EntityValue]:
    """Add new values, those that others join first; their entities are the caller's to set."""
    doubts: dict[str, list[JsonValue]] = defaultdict(list)
    for pair in grouping.doubtful:
        value, other = sorted((pair.value, pair.other), key=known.__contains__)
        doubts[value].append([other, pair.reason, round(pair.likeness, 3)])
    ordered = sorted(grouping.joins.items(), key=lambda join: join[0] != join[1][0])
    added = {
        value: EntityValue(
            column_name=column,
            value=value,
            id=new_id(),
            joins=joins,
            joined_by=reason,
            doubts=doubts.get(value),
        )
        for value, (joins, reason) in ordered
    }
    session.add_all(added.values())
    return added


def clear(session: Session, column: str) -> None:
    """Delete the values of a column; the decisions on them are kept."""
    session.execute(delete(EntityValue).where(EntityValue.column_name == column))


def decisions_of(session: Session, column: str) -> Sequence[EntityDecision]:
    """Return the decisions in force, the latest last."""
    later = aliased(EntityDecision)
    return session.scalars(
        select(EntityDecision)
        .where(
            EntityDecision.column_name == column,
            EntityDecision.withdraws.is_(None),
            ~select(later).where(later.withdraws == EntityDecision.id).exists(),
        )
        .order_by(EntityDecision.id)
    ).all()
