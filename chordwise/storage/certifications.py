"""Certifications: the answers that may be accepted without review, and the supporting checks."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonValue
from chordwise.storage.clock import database_now
from chordwise.storage.record import Identity, Record
from chordwise.storage.results import update_reviews


class Certification(Record):
    """The outcome of the checks of a field or label; the newest one of each is in force.

    The scope is the results of `run`, or the current answers to the `question` of `profile`. The
    risk holds for the whole scope; see `domain.learning.certification`.
    """

    __tablename__ = "certifications"
    __table_args__ = (Index("ix_certifications_scope", "run", "profile", "certified_at"),)

    id: Mapped[Identity]
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"), index=True)
    run: Mapped[str]
    profile: Mapped[str]
    analysis_type: Mapped[str]
    name: Mapped[str]
    question: Mapped[str]
    seed: Mapped[str]
    verdict: Mapped[str]
    max_error: Mapped[float]
    risk: Mapped[float]
    error_bound: Mapped[float]
    must_review: Mapped[float]
    population: Mapped[int]
    accepted: Mapped[int]
    acceptable: Mapped[int]
    checks: Mapped[int]
    wrong: Mapped[int]
    accept_from: Mapped[float | None]
    check_from: Mapped[float | None]
    more_checks: Mapped[int | None]
    expected_checks: Mapped[int]
    expected_free: Mapped[int]
    to_check: Mapped[JsonValue]
    certified_at: Mapped[datetime] = mapped_column(server_default=database_now())


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceMark:
    """What is accepted of some `results`, given by their jobs.

    `values` are the jobs and paths of accepted facts, `whole` the jobs accepted as a whole. Where
    these `are_newest`, earlier answers to the same questions lose their marks, except those in a
    run that is certified itself.
    """

    results: Mapping[uuid.UUID, uuid.UUID]
    values: Collection[tuple[uuid.UUID, str]]
    whole: Collection[uuid.UUID]
    are_newest: bool


def lock(session: Session) -> None:
    """Let no other transaction store certifications or mark answers until this one ends."""
    session.execute(text("LOCK TABLE certifications IN SHARE UPDATE EXCLUSIVE MODE"))


def accept(session: Session, mark: AcceptanceMark, *, may_add: bool) -> int:
    """Mark what is accepted in facts and results, and unmark everything else there.

    Replaced results are skipped. Without `may_add` marks are only taken away. Return the number of
    results to mark as a whole.
    """
    parameters = {"results": list(mark.results.values()), "are_newest": mark.are_newest}
    jobs = session.scalars(_HOLD, parameters).all()
    accepted = {
        "jobs": jobs,
        "of": [job_id for job_id, _ in mark.values],
        "paths": [path for _, path in mark.values],
        "whole": list(mark.whole),
        "may_add": may_add,
    }
    session.execute(_MARK_FACTS, accepted)
    session.execute(_MARK_RESULTS, accepted)
    update_reviews(session, jobs)
    return len(mark.whole)


# Feedback replaces the facts of a result while the row of the result is locked.
_HOLD = text("""
    SELECT job_id FROM results
    WHERE id = ANY(CAST(:results AS uuid[]) || ARRAY(
        SELECT earlier.id
        FROM results r
        JOIN jobs j ON j.id = r.job_id
        JOIN results earlier ON earlier.document_id = r.document_id AND earlier.id <> r.id
        JOIN jobs other ON other.id = earlier.job_id AND other.options_hash = j.options_hash
        WHERE :are_newest AND r.id = ANY(CAST(:results AS uuid[]))
            AND (earlier.accepted OR EXISTS (
                SELECT FROM facts f WHERE f.job_id = earlier.job_id AND f.accepted))
            AND NOT EXISTS (SELECT FROM certifications c WHERE c.run_id = other.run_id)
    ))
    ORDER BY id FOR UPDATE""")
_MARK_FACTS = text("""
    UPDATE facts SET accepted = NOT accepted
    WHERE job_id = ANY(:jobs) AND accepted <> ((job_id, path) IN (
        SELECT value.job_id, value.path
        FROM unnest(CAST(:of AS uuid[]), CAST(:paths AS text[])) AS value (job_id, path)
    )) AND (accepted OR :may_add)""")
_MARK_RESULTS = text("""
    UPDATE results SET accepted = NOT accepted
    WHERE job_id = ANY(:jobs) AND accepted <> (job_id = ANY(:whole)) AND (accepted OR :may_add)""")
