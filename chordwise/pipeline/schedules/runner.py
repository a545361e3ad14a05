"""Carrying out what schedules have started: claimed under a lease, and continued after a kill."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import ScheduleRunStatus
from chordwise.errors import ChordwiseError, LeaseLostError, ServiceUnavailableError
from chordwise.pipeline.runtime.context import PATIENCE, Context
from chordwise.pipeline.schedules.analyses import analyze, reanalyze
from chordwise.pipeline.schedules.exports import export
from chordwise.pipeline.schedules.learning import evaluate, recalibrate
from chordwise.pipeline.schedules.pruning import prune
from chordwise.pipeline.schedules.reports import report
from chordwise.pipeline.schedules.work import InterruptedWorkError, Kind, Work
from chordwise.settings import ScheduleSettings
from chordwise.settings.schedules import ScheduleKind
from chordwise.storage import schedules
from chordwise.storage.runs import Run
from chordwise.storage.schedules import End, Schedule, ScheduleRun

log = structlog.get_logger(__name__)

MOST_ATTEMPTS = 5
"""Schedulers that may be lost over an occurrence before it is given up."""
_LEAST_LEASE = timedelta(seconds=10)
_LOST_AGAIN = End(
    status=ScheduleRunStatus.FAILED,
    code="quarantined",
    message=f"{MOST_ATTEMPTS} schedulers were lost over it.",
    hint="Look into their logs and their memory; `chordwise schedules run NAME` tries again.",
)
_DEFECT = End(
    status=ScheduleRunStatus.FAILED,
    code="internal",
    message="A defect of Chordwise stopped it.",
    hint="The scheduler's log has the details (schedule.defect).",
)

KINDS: Mapping[ScheduleKind, Kind] = {
    ScheduleKind.ANALYZE: analyze,
    ScheduleKind.REANALYZE: reanalyze,
    ScheduleKind.PRUNE: prune,
    ScheduleKind.REPORT: report,
    ScheduleKind.EXPORT: export,
    ScheduleKind.EVALUATE: evaluate,
    ScheduleKind.RECALIBRATE: recalibrate,
}


class ScheduleRunner:
    """Works on one occurrence at a time; `beat` keeps its lease alive from another thread."""

    def __init__(self, context: Context, is_stopped: Callable[[], bool]) -> None:
        self._context = context
        self._is_stopped = is_stopped
        self._lease = max(context.lease, _LEAST_LEASE)
        self._current: Work | None = None

    def work(self) -> bool:
        """Carry out an occurrence that nobody is at; false where there is none.

        Raises:
            ServiceUnavailableError: The database cannot be reached; the lease runs out, and the
                occurrence is taken up again.
        """
        work = self._claim()
        if work is None:
            return False
        self._current = work
        try:
            self._carry_out(work)
        finally:
            self._current = None
        return True

    def beat(self) -> None:
        """Prolong the lease of what is being worked on.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        work = self._current
        if work is None:
            return
        with self._context.database.write() as session:
            kept = schedules.extend(session, work.schedule_run_id, work.token, self._lease)
        if not kept and self._current is work:
            log.warning("schedule.lease_lost", schedule=work.schedule)

    def _claim(self) -> Work | None:
        token = uuid.uuid4()
        with self._context.database.write() as session:
            claimed = schedules.claim(session, token, self._lease)
            if claimed is None:
                return None
            if claimed.attempts > MOST_ATTEMPTS:
                schedules.finish(session, claimed.id, token, _LOST_AGAIN)
                log.error("schedule.given_up", schedule=claimed.schedule)
                return None
            return self._work(session, claimed, token)

    def _work(self, session: Session, claimed: ScheduleRun, token: uuid.UUID) -> Work | None:
        schedule = session.get_one(Schedule, claimed.schedule_id)
        try:
            settings = ScheduleSettings.model_validate(schedule.options)
        except ValidationError:  # written by another version
            log.exception("schedule.defect", schedule=claimed.schedule)
            schedules.finish(session, claimed.id, token, _DEFECT)
            return None
        if claimed.attempts > 1:
            log.warning("schedule.taken_over", schedule=claimed.schedule, attempt=claimed.attempts)
        return Work(
            context=self._context,
            settings=settings,
            schedule_run_id=claimed.id,
            schedule=claimed.schedule,
            due_at=claimed.due_at,
            token=token,
            is_stopped=self._is_stopped,
        )

    def _carry_out(self, work: Work) -> None:
        try:
            self._finish(work, self._outcome(work, KINDS[work.settings.kind](work)))
        except InterruptedWorkError:
            self._release(work)
        except ServiceUnavailableError:
            raise
        except LeaseLostError as error:
            log.warning("schedule.lease_lost", schedule=work.schedule, reason=error.what)
        except ChordwiseError as error:
            log.warning("schedule.failed", schedule=work.schedule, reason=error.what)
            self._finish(work, _failure(error))
        except Exception:  # a defect must not be met again and again by every scheduler
            log.exception("schedule.defect", schedule=work.schedule)
            self._finish(work, _DEFECT)

    def _outcome(self, work: Work, outcome: JsonObject) -> End:
        """Return the end of what is done, or the wait for the runs that it has begun."""
        begun = select(Run.id).where(Run.schedule_run_id == work.schedule_run_id).exists()
        with self._context.database.read() as session:
            waits = session.scalar(select(begun))
        status = ScheduleRunStatus.WAITING if waits else ScheduleRunStatus.SUCCEEDED
        return End(status=status, outcome=outcome)

    def _finish(self, work: Work, end: End) -> None:
        for attempt in self._context.database.attempts(PATIENCE):
            with attempt as session:
                finished = schedules.finish(session, work.schedule_run_id, work.token, end)
        if finished:
            log.info("schedule.done", schedule=work.schedule, status=end.status)

    def _release(self, work: Work) -> None:
        with self._context.database.write() as session:
            schedules.release(session, work.schedule_run_id, work.token)
        log.info("schedule.handed_back", schedule=work.schedule)


def _failure(error: ChordwiseError) -> End:
    return End(
        status=ScheduleRunStatus.FAILED, code=error.code, message=error.what, hint=error.hint
    )
