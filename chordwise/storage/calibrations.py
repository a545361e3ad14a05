"""Calibrations: the measured accuracy of claimed confidence, and the judgments behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

from pydantic import TypeAdapter
from sqlalchemy import Index, column, select, table
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.calibration import ConfidenceClaim, Points
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record, copied

_POINTS = TypeAdapter(Points)
_CLAIMS = table(
    "judged_claims",
    *map(column, ("analysis_type", "provider", "model", "part", "confidence", "is_right")),
    column("document_id"),
)


class Calibration(Record):
    """A curve from claimed to calibrated confidence; the newest curve of each key is in force.

    `points` is an ascending list of pairs of claimed and calibrated confidence. `error_before` and
    `error_after` are the expected calibration errors, the latter cross-validated. At or above
    `accept_from` at most `max_error_rate` of the answers are wrong.
    """

    __tablename__ = "calibrations"
    __table_args__ = (
        Index("ix_calibrations_key", "analysis_type", "provider", "model", "part", "learnt_at"),
    )

    id: Mapped[Identity]
    analysis_type: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    part: Mapped[str]
    method: Mapped[str]
    points: Mapped[JsonValue]
    judged: Mapped[int]
    judged_right: Mapped[int]
    error_before: Mapped[float]
    error_after: Mapped[float]
    max_error_rate: Mapped[float]
    accept_from: Mapped[float | None]
    accepted_share: Mapped[float | None]
    learnt_at: Mapped[datetime] = mapped_column(server_default=database_now())


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Key:
    """The key of a calibration."""

    analysis_type: str
    part: str
    provider: str
    model: str


def claims(session: Session) -> Mapping[Key, Sequence[ConfidenceClaim]]:
    """Return all judged claims by key; each question about a document counts once."""
    groups: dict[Key, list[ConfidenceClaim]] = {}
    for row in session.execute(select(_CLAIMS)):
        claim = ConfidenceClaim(
            confidence=row.confidence, is_right=row.is_right, group=str(row.document_id)
        )
        groups.setdefault(copied(Key, row), []).append(claim)
    return {key: groups[key] for key in sorted(groups)}


def curves(session: Session, learnt_until: datetime) -> Mapping[Key, Points]:
    """Return the points of the calibrations that were in force at `learnt_until`."""
    key = [getattr(Calibration, name) for name in Key.__dataclass_fields__]
    rows = session.scalars(
        select(Calibration)
        .where(Calibration.learnt_at <= learnt_until)
        .ext(distinct_on(*key))
        .order_by(*key, Calibration.learnt_at.desc(), Calibration.id.desc())
    )
    return {copied(Key, row): _POINTS.validate_python(row.points) for row in rows}


def store(session: Session, calibration: Calibration) -> bool:
    """Store a calibration unless it equals the newest one; return whether it was stored."""
    newest = session.scalars(
        select(Calibration)
        .filter_by(**{name: getattr(calibration, name) for name in Key.__dataclass_fields__})
        .order_by(Calibration.learnt_at.desc(), Calibration.id.desc())
        .limit(1)
    ).one_or_none()
    if newest is not None and _LEARNT(newest) == _LEARNT(calibration):
        return False
    session.add(calibration)
    session.flush()
    return True


_LEARNT = attrgetter("method", "points", "judged", "judged_right", "max_error_rate", "accept_from")
