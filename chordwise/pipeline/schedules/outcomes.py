"""How the runs of a schedule ended: its occurrence ends with the last of them."""

from __future__ import annotations

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import TAKEN_IN, JobStatus, RunStatus, ScheduleRunStatus
from chordwise.storage import schedules
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run
from chordwise.storage.schedules import End, ScheduleRun

log = structlog.get_logger(__name__)

_OVER = (RunStatus.FINISHED, RunStatus.CANCELLED)
_PAUSED = "paused"


def settle(session: Session) -> None:
    """End every occurrence that waits for runs which are all over; note which of them are paused.

    One that is paused goes on waiting, and says why: it ends with its runs, or it expires.
    """
    for waiting in schedules.waiting(session):
        is_over = Run.status.in_(_OVER) & Run.finished_at.is_not(None)
        going_on = set(
            session.scalars(select(Run.status).where(Run.schedule_run_id == waiting.id, ~is_over))
        )
        if not going_on:
            end = _end(session, waiting)
            schedules.settle(session, waiting.id, end)
            log.info("schedule.ended", schedule=waiting.schedule, status=end.status)
        elif going_on != {RunStatus.PAUSED}:
            if waiting.error_code == _PAUSED:
                schedules.settle(session, waiting.id, End(status=ScheduleRunStatus.WAITING))
        elif waiting.error_code is None:
            _note_pause(session, waiting)


def _note_pause(session: Session, waiting: ScheduleRun) -> None:
    found = session.execute(
        select(Run.name, Job.error_message)
        .join(Job, Job.run_id == Run.id)
        .where(Run.schedule_run_id == waiting.id, Job.status == JobStatus.PAUSED)
        .limit(1)
    ).first()
    if found is None:  # taken up, or ended, since the run was looked at
        return
    run, reason = found
    end = End(
        status=ScheduleRunStatus.WAITING,
        code=_PAUSED,
        message=f"Its run {run} is paused: {reason}",
        hint=f"`chordwise runs {run}` says what to do, and `chordwise retry {run}` goes on.",
    )
    schedules.settle(session, waiting.id, end)
    log.warning("schedule.paused", schedule=waiting.schedule, run=run)


def _end(session: Session, waiting: ScheduleRun) -> End:
    ids = select(Run.id).where(Run.schedule_run_id == waiting.id)
    jobs = session.execute(
        select(Job.status, func.count()).where(Job.run_id.in_(ids)).group_by(Job.status)
    ).all()
    refused = session.scalar(
        select(func.count())
        .select_from(Intake)
        .where(Intake.run_id.in_(ids), Intake.outcome.not_in(TAKEN_IN))
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
