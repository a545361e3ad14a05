"""Which result a person means: by a run, a job, an analysis type or a document's name."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from chordwise.errors import UsageError
from chordwise.pipeline.learning import judgeable
from chordwise.pipeline.learning.judgeable import Judgeable, Listed
from chordwise.pipeline.runs.stored_results import Wanted
from chordwise.storage import jobs, runs
from chordwise.storage.jobs import Job

_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which results are meant; `name` is that of a run, its id, or a job's id, if any."""

    name: str | None
    wanted: Wanted


def wanted(session: Session, target: Target) -> Wanted:
    """Return the results of the run that is named.

    Raises:
        UsageError: There is no such run.
    """
    run_id = runs.find(session, target.name).id if target.name else None
    return replace(target.wanted, run_id=run_id)


def one(session: Session, target: Target) -> Judgeable:
    """Return the one result that is meant.

    Raises:
        UsageError: There is no such run, no result, or more than one.
    """
    job = _job(session, target.name)
    if job is None:
        return only(session, judgeable.listed(session, wanted(session, target)))
    of_run = judgeable.listed(session, replace(target.wanted, run_id=job.run_id))
    return only(session, [result for result in of_run if result.job_id == job.id])


def only(session: Session, results: Sequence[Listed]) -> Judgeable:
    """Return the one result that was meant.

    Raises:
        UsageError: There is none, or more than one.
    """
    if not results:
        raise UsageError("There is no such result.", "`chordwise results` shows those there are.")
    if len(results) > 1:
        shown = ", ".join(f"{r.source} ({r.analysis_type})" for r in results[:_MOST_SHOWN])
        raise UsageError(
            f"{len(results):,} results fit: {shown}{', …' if len(results) > _MOST_SHOWN else ''}.",
            "Say which one with --document and --type, or give the job's id.",
        )
    for found in judgeable.read(session, results):
        return found
    raise UsageError("The result was replaced meanwhile.", "Look at it again, then say it again.")


def _job(session: Session, name: str | None) -> Job | None:
    with suppress(ValueError):
        return jobs.get(session, uuid.UUID(name or ""))
    return None
