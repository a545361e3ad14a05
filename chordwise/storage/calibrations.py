"""Calibrations: the measured accuracy of claimed confidence, and the judgments behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from operator import attrgetter

from pydantic import TypeAdapter
from sqlalchemy import Index, column, select, table
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonValue, as_json, as_object
from chordwise.domain.learning import statistics
from chordwise.domain.learning.statistics import Acceptance, ConfidenceClaim, Curve, Points
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record, copied
from chordwise.storage.results import update_reviews_of

_POINTS = TypeAdapter(Points)
_CLAIMS = table(
    "judged_claims",
    *map(column, ("analysis_type", "provider", "model", "part", "confidence", "is_right")),
    column("document_id"),
)


class Calibration(Record):
    """A curve from claimed to calibrated confidence; the newest curve of each key is in force."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What the judgments of a key teach; `curve` and `acceptance` are `None` if there are too few.

    At most the allowed share of the answers in `acceptance` is wrong.
    """

    key: Key
    judged: int
    judged_right: int
    curve: Curve | None
    acceptance: Acceptance | None


def learn(
    claims_by_key: Mapping[Key, Sequence[ConfidenceClaim]], max_error_rate: float
) -> Sequence[Lesson]:
    """Learn a calibration of each model's claims, per analysis type and part.

    Raises:
        ConfigurationError: scikit-learn is not installed.
    """
    statistics.require_scikit_learn()
    return [
        Lesson(
            key=key,
            judged=len(judged),
            judged_right=sum(claim.is_right for claim in judged),
            curve=statistics.learn(judged) if statistics.is_enough(judged) else None,
            acceptance=statistics.acceptance(judged, max_error_rate)
            if statistics.is_enough(judged)
            else None,
        )
        for key, judged in claims_by_key.items()
    ]


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


def store(session: Session, lessons: Sequence[Lesson], max_error_rate: float) -> int:
    """Store the learned calibrations, which puts them into force, unless they equal the newest.

    Returns how many were stored.
    """
    stored = 0
    for lesson in lessons:
        key, accepted = lesson.key, lesson.acceptance
        if lesson.curve is None:
            continue
        calibration = Calibration(
            **asdict(key),
            **as_object(as_json(lesson.curve)),
            max_error_rate=max_error_rate,
            accept_from=accepted.accept_from if accepted else None,
            accepted_share=accepted.share if accepted else None,
        )
        newest = session.scalars(
            select(Calibration)
            .filter_by(**asdict(key))
            .order_by(Calibration.learnt_at.desc(), Calibration.id.desc())
            .limit(1)
        ).one_or_none()
        if newest is None or _LEARNT(newest) != _LEARNT(calibration):
            session.add(calibration)
            session.flush()
            update_reviews_of(session, key.analysis_type, key.provider, key.model)
            stored += 1
    return stored


_LEARNT = attrgetter("method", "points", "judged", "judged_right", "max_error_rate", "accept_from")
