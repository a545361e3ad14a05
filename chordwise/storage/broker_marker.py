"""The marker by which a broker that lost its memory is told from one that kept it."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage.record import CreatedAt, Record

_ONLY_ROW = 1


class BrokerMarker(Record):
    """The marker that the broker was last given."""

    __tablename__ = "broker_markers"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    marker: Mapped[str]
    created_at: Mapped[CreatedAt]


def current(session: Session) -> str | None:
    """Return the marker that the broker should hold; `None` before the first."""
    row = session.get(BrokerMarker, _ONLY_ROW, populate_existing=True)
    return row.marker if row else None


def remember(session: Session, marker: str) -> None:
    """Record the marker that the broker has just been given."""
    values = {"id": _ONLY_ROW, "marker": marker}
    session.execute(
        insert(BrokerMarker)
        .values(values)
        .on_conflict_do_update(index_elements=["id"], set_={"marker": marker})
    )
