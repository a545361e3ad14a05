"""How the runs of a schedule ended: its occurrence ends with the last of them."""

from __future__ import annotations

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import IntakeOutcome, JobStatus, RunStatus, ScheduleRunStatus
from chordwise.storage import schedule_runs
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run
from chordwise.storage.schedule_runs import End, ScheduleRun

log = structlog.get_logger(__name__)

_OVER = (RunStatus.FINISHED, RunStatus.CANCELLED)
_TAKEN_IN = (IntakeOutcome.ACCEPTED, IntakeOutcome.DUPLICATE)


def settle(session: Session) -> None:
    """End every occurrence that waits for runs which are all over."""
    for waiting in schedule_runs.waiting(session):
        ids = select(Run.id).where(Run.schedule_run_id == waiting.id)
        going_on = select(Run.id).where(Run.id.in_(ids), Run.status.not_in(_OVER))
        if session.scalar(select(going_on.exists())):
            continue
        end = _end(session, waiting)
        schedule_runs.settle(session, waiting.id, end)
        log.info("schedule.ended", schedule=waiting.schedule, status=end.status)


def _end(session: Session, waiting: ScheduleRun) -> End:
    ids = select(Run.id).where(Run.schedule_run_id == waiting.id)
    jobs = session.execute(
        select(Job.status, func.count()).where(Job.run_id.in_(ids)).group_by(Job.status)
    ).all()
    refused = session.scalar(
        select(func.count())
        .select_from(Intake)
        .where(Intake.run_id.in_(ids), Intake.outcome.not_in(_TAKEN_IN))
    )
    counts: JsonObject = {str(status): int(count) for status, count in jobs}
    outcome: JsonObject = {**(waiting.outcome or {}), "jobs": counts}
    if refused or set(counts) - {JobStatus.SUCCEEDED}:
        return End(
            status=ScheduleRunStatus.INCOMPLETE,
            code="incomplete",
            message="Something was not taken in, or has not succeeded.",
            hint="`chordwise runs RUN` says what.",
            outcome=outcome,
        )
    return End(status=ScheduleRunStatus.SUCCEEDED, outcome=outcome)
