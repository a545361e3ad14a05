"""Certifications: the answers that may be accepted without review, and the supporting checks."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ForeignKey, Index, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonValue
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record


class Certification(Record):
    """The outcome of the checks of a field or label.

    The newest row of each scope, type and name is in force. The scope is the results of `run`, or
    the current results that answer the question of `profile`, or without either all current
    results. `name` is that of a field or label; it is empty if answers are judged as a whole.
    `seed` determines the random order of the checks; it is drawn when a scope is first certified.
    At or above the score `accept_from`, `accepted` of `population` answers may be accepted. The
    share of wrong answers among them is at most `error_bound`, except with the probability `risk`,
    which holds for all fields and labels of the scope together. `checks` and `wrong` count the
    checks, in random order, of the accepted answers, else of those at or above `check_from`, else
    of all; `more_checks` is the number of missing checks, null if no number suffices. `must_review`
    is the share that needs review if nothing can be accepted. `to_check` holds the ids of the jobs
    whose answers should be checked next, in this order.
    """

    __tablename__ = "certifications"
    __table_args__ = (Index("ix_certifications_scope", "run", "profile", "certified_at"),)

    id: Mapped[Identity]
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"), index=True)
    run: Mapped[str]
    profile: Mapped[str]
    analysis_type: Mapped[str]
    name: Mapped[str]
    seed: Mapped[str]
    verdict: Mapped[str]
    max_error: Mapped[float]
    risk: Mapped[float]
    error_bound: Mapped[float]
    must_review: Mapped[float]
    population: Mapped[int]
    accepted: Mapped[int]
    checks: Mapped[int]
    wrong: Mapped[int]
    accept_from: Mapped[float | None]
    check_from: Mapped[float | None]
    more_checks: Mapped[int | None]
    to_check: Mapped[JsonValue]
    certified_at: Mapped[datetime] = mapped_column(server_default=database_now())


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted value: the path of its fact in the output of a job."""

    job_id: uuid.UUID
    path: str


def in_force(session: Session, run: str, profile: str) -> Sequence[Certification]:
    """Return the newest certification of each field and label of a scope."""
    return session.scalars(
        select(Certification)
        .where(Certification.run == run, Certification.profile == profile)
        .ext(distinct_on(Certification.analysis_type, Certification.name))
        .order_by(
            Certification.analysis_type,
            Certification.name,
            Certification.certified_at.desc(),
            Certification.id.desc(),
        )
    ).all()


def drawn_at(session: Session, run: str, profile: str) -> datetime | None:
    """Return when the order of the checks of a scope was drawn, or `None` if it was not yet."""
    of_scope = (Certification.run == run, Certification.profile == profile)
    return session.scalar(select(func.min(Certification.certified_at)).where(*of_scope))


def accept(
    session: Session,
    job_ids: Collection[uuid.UUID],
    values: Collection[Accepted],
    whole: Collection[uuid.UUID],
    *,
    may_add: bool,
) -> int:
    """Mark the accepted facts and results of jobs, and unmark all others of these jobs.

    `whole` holds the jobs whose results are accepted as a whole; return their number. Without
    `may_add`, marks are only removed.
    """
    accepted = {
        "jobs": list(job_ids),
        "of": [each.job_id for each in values],
        "paths": [each.path for each in values],
        "whole": list(whole),
        "may_add": may_add,
    }
    session.execute(_MARK_FACTS, accepted)
    session.execute(_MARK_RESULTS, accepted)
    return len(whole)


_MARK_FACTS = text("""
    UPDATE facts SET accepted = NOT accepted
    WHERE job_id = ANY(:jobs) AND accepted <> ((job_id, path) IN (
        SELECT value.job_id, value.path
        FROM unnest(CAST(:of AS uuid[]), CAST(:paths AS text[])) AS value (job_id, path)
    )) AND (accepted OR :may_add)""")
_MARK_RESULTS = text("""
    UPDATE results SET accepted = NOT accepted
    WHERE job_id = ANY(:jobs) AND accepted <> (job_id = ANY(:whole)) AND (accepted OR :may_add)""")
