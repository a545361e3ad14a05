"""The marker by which a broker that lost its memory is told from one that kept it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage.record import CreatedAt, Record

_ONLY_ROW = 1
_BEGINNING = "sending everything since "


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


def of_beginning(moment: datetime) -> str:
    """Return the marker of a broker that is being given everything, since this moment."""
    return f"{_BEGINNING}{moment.isoformat()}"


def begun_at(marker: str | None) -> datetime | None:
    """Return since when a broker with this marker is being given everything, if it is."""
    if marker is None or not marker.startswith(_BEGINNING):
        return None
    return datetime.fromisoformat(marker.removeprefix(_BEGINNING))


def remember(session: Session, marker: str) -> None:
    """Record the marker that the broker has just been given."""
    values = {"id": _ONLY_ROW, "marker": marker}
    session.execute(
        insert(BrokerMarker)
        .values(values)
        .on_conflict_do_update(index_elements=["id"], set_={"marker": marker})
    )
