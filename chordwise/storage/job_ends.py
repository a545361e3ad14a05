"""Ends of jobs: final states and results, for many jobs at once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from chordwise.domain.states import JobStatus
from chordwise.storage import jobs, results, runs
from chordwise.storage.jobs import JobFailure
from chordwise.storage.results import NewResult


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """The end of a job; `result` is null if it has none, and `failure` if nothing is missing.

    `token` is that of its synthesis, without which the job ends with its only chunk. `calls` are
    the ends of its calls that are not stored yet.
    """

    job_id: uuid.UUID
    status: JobStatus
    failure: JobFailure | None = None
    result: NewResult | None = None
    token: uuid.UUID | None = None
    calls: Sequence[Mapping[str, object]] = ()


def store_all(session: Session, ends: Sequence[JobEnd]) -> set[uuid.UUID]:
    """End locked jobs, store their results and settle their runs; return the jobs that have ended.

    A job is not changed if another worker holds its synthesis, or if it would end with its only
    chunk and is paused, queued, ended or cancelled.
    """
    if not ends:
        return set()
    ended = jobs.end_all(session, [_row(end) for end in ends])
    results.save_all(
        session, [end.result for end in ends if end.result is not None and end.job_id in ended]
    )
    for run_id in sorted(set(ended.values())):
        runs.settle(session, run_id)
    return set(ended)


def _row(end: JobEnd) -> dict[str, str | None]:
    failure = end.failure
    return {
        "id": str(end.job_id),
        "status": end.status,
        "error_code": failure.code if failure else None,
        "error_message": failure.message if failure else None,
        "hint": (failure.hint or None) if failure else None,
        "lease_token": str(end.token) if end.token else None,
    }
