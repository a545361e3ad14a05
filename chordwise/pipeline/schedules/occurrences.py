"""Definition of schedules, and exactly one occurrence for each due time.

An occurrence is executed under a lease; another process resumes it after a crash.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import structlog
from psycopg import Connection
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chordwise.domain import due_times
from chordwise.domain.failure_backoff import FailureBackoff
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import TAKEN_IN, JobStatus, RunStatus, ScheduleRunStatus
from chordwise.errors import (
    ChordwiseError,
    ExitCode,
    LeaseLostError,
    ServiceUnavailableError,
    UsageError,
)
from chordwise.pipeline.runtime.context import DATABASE_TIMEOUT, Context, Occurrence
from chordwise.relations.relation import Relation, Row
from chordwise.settings import ScheduleSettings, Settings
from chordwise.settings.schedules import CatchUp, reason
from chordwise.storage import clock, leases, schedules
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run
from chordwise.storage.schedules import End, Schedule, ScheduleOrigin, ScheduleRun, Trigger

log = structlog.get_logger(__name__)
SCHEDULES = Relation(
    query="""SELECT name, run, cron, time_zone, next_due_at, origin, folder, catch_up,
    expires_after_hours
FROM schedules""",
    filters={"enabled": "enabled = %(enabled)s"},
    order="name",
)
OCCURRENCES = Relation(
    query="""SELECT
    schedule, run, due_at, trigger, status,
    ARRAY(SELECT r.name FROM runs AS r WHERE r.schedule_run_id = o.id ORDER BY r.id) AS runs,
    outcome, error_code, error_message, hint, started_at, finished_at
FROM schedule_runs AS o""",
    filters={"schedule": "schedule = %(schedule)s"},
    order="due_at DESC",
)
Clock: TypeAlias = Callable[[Session], datetime]
"""Returns the current time; by default that of the database."""
ON_TIME = timedelta(minutes=10)
"""The delay after which a due time counts as missed, as no scheduler was running."""
DEFECT_HINT = "Another version wrote it. Update this version, or define the schedule again."
_DUE = End(status=ScheduleRunStatus.DUE)
_STILL_RUNNING = End(
    status=ScheduleRunStatus.SKIPPED,
    code="still_running",
    message="The previous occurrence has not ended.",
    hint="`chordwise schedules history` shows it.",
)
_MISSED = End(
    status=ScheduleRunStatus.SKIPPED,
    code="missed",
    message="No scheduler was running when it was due.",
    hint='catch_up = "once" runs it later.',
)


def tick(
    context: Context, read_clock: Clock = clock.read, failures: FailureBackoff | None = None
) -> int:
    """End and expire unfinished occurrences, then start the due ones; return how many were started.

    Each due time is handled in one transaction, which stores the occurrence and the next due time.
    Two concurrent ticks, or a tick that is killed, start nothing twice. With `failures`, the defect
    of an invalid schedule is logged once, not at every tick.
    """
    with context.database.write() as session:
        settle(session)
        for expired in schedules.expire(session, read_clock(session)):
            log.warning("schedule.expired", schedule=expired.schedule, due_at=str(expired.due_at))
    started = 0
    broken: set[uuid.UUID] = set()
    while True:
        with context.database.write() as session:
            now = read_clock(session)
            schedule = schedules.next_due(session, now, broken)
            if schedule is None:
                return started
            try:
                started += _start_due(session, schedule, now)
            except ValueError as error:  # a row of another version, or an unknown time zone
                broken.add(schedule.id)
                if failures is None or failures.record(schedule.id, reason(error), now.timestamp()):
                    log.error("schedule.defect", schedule=schedule.name, reason=reason(error))  # noqa: TRY400 - the reason suffices


def synchronize(context: Context, read_clock: Clock = clock.read) -> None:
    """Store the schedules of the configuration, and disable those that it no longer contains."""
    settings, configured = context.settings, context.settings.schedules
    with context.database.write() as session:
        now = read_clock(session)
        for name in sorted(configured):
            if _define_configured(session, settings, name, now):
                log.info("schedule.defined", schedule=name, cron=configured[name].cron)
        for name in schedules.disable_others(session, configured.keys()):
            log.info("schedule.disabled", schedule=name)


def _define_configured(session: Session, settings: Settings, name: str, now: datetime) -> bool:
    schedule, origin = settings.schedules[name], ScheduleOrigin.CONFIGURATION
    return define(session, name, schedule, settings.base_folder, origin, now)


def define(
    session: Session,
    name: str,
    settings: ScheduleSettings,
    folder: Path,
    origin: ScheduleOrigin,
    now: datetime,
) -> bool:
    """Create or change a schedule, which runs in `folder`; return whether it changed.

    If its times are unchanged, it keeps its due time, so that a missed one is caught up. Otherwise
    it is next due after `now`.

    Raises:
        UsageError: The configuration contains a schedule with this name.
    """
    values = {**settings.model_dump(mode="json"), "folder": str(folder)}
    schedules.insert_new(session, name, origin, values)
    schedule = schedules.of_name(session, name)
    if schedule is None:
        raise UsageError(f"The schedule {name} was removed in the meantime.", "Try again.")
    if schedule.enabled and schedule.origin != origin and origin is ScheduleOrigin.DATABASE:
        raise UsageError(
            f"The configuration has a schedule “{name}”.",
            "Change it there, or choose another name.",
        )
    was_enabled, times = schedule.enabled, (schedule.cron, schedule.time_zone)
    schedule.origin = origin
    if was_enabled and all(getattr(schedule, key) == value for key, value in values.items()):
        return False
    for key, value in values.items():
        setattr(schedule, key, value)
    schedule.enabled, schedule.changed_at = True, now
    if not was_enabled or times != (settings.cron, settings.time_zone):
        schedule.next_due_at = due_times.next_due(settings.cron, settings.zone, now)
    return True


def settings_of(schedule: Schedule) -> ScheduleSettings:
    """Return the settings of a stored schedule.

    Raises:
        ValueError: This version cannot use them.
    """
    return ScheduleSettings.model_validate({name: getattr(schedule, name) for name in _NAMES})


_NAMES = tuple(ScheduleSettings.model_fields)


def remove(session: Session, name: str) -> None:
    """Disable a schedule that is defined in the database; its history is kept.

    Raises:
        UsageError: It does not exist, or it is defined in the configuration.
    """
    schedule = require(session, name)
    if schedule.origin == ScheduleOrigin.CONFIGURATION:
        raise UsageError(
            f"The schedule “{name}” is in the configuration.", "Remove it there: chordwise.toml."
        )
    schedule.enabled, schedule.next_due_at = False, None
    schedule.changed_at = clock.read(session)


def require(session: Session, name: str) -> Schedule:
    """Return an enabled schedule, locked.

    Raises:
        UsageError: It does not exist or is disabled.
    """
    schedule = schedules.of_name(session, name)
    if schedule is None or not schedule.enabled:
        raise unknown(name)
    return schedule


def unknown(name: str) -> UsageError:
    """Return the error for a name that no schedule has."""
    hint = "`chordwise schedules list` lists the schedules."
    return UsageError(f"There is no schedule “{name}”.", hint)


def defect_of(schedule: Schedule) -> str | None:
    """Return why this version cannot use the options of a schedule; `None` if it can."""
    return _defect({name: getattr(schedule, name) for name in _NAMES})


def _defect(values: Mapping[str, object]) -> str | None:
    try:
        ScheduleSettings.model_validate(values)
    except ValueError as error:
        return reason(error)
    return None


def start_now(session: Session, name: str, now: datetime) -> None:
    """Add an occurrence that is due at `now`; the next due time is unchanged.

    Raises:
        UsageError: The schedule does not exist, is invalid, or has an unfinished occurrence.
    """
    schedule = require(session, name)
    if defect := defect_of(schedule):
        raise UsageError(f"The schedule “{name}” cannot be read: {defect}.", DEFECT_HINT)
    if schedules.unfinished(session, schedule.id) is not None:
        raise UsageError(
            f"The schedule “{name}” is running.",
            f"`chordwise schedules history {name}` shows its progress.",
        )
    expires_at = _expiry(settings_of(schedule), now)
    schedules.add(session, schedule, _DUE, now, Trigger.COMMAND, expires_at)


def run_now(session: Session, settings: Settings, name: str) -> datetime:
    """Add an occurrence that is due now and return its due time; the next due time is unchanged.

    A schedule of the configuration that no scheduler has stored yet is defined first.

    Raises:
        UsageError: The schedule does not exist, is invalid, or has an unfinished occurrence.
    """
    now = clock.read(session)
    if name in settings.schedules:
        _define_configured(session, settings, name, now)
    start_now(session, name, now)
    return now


def _start_due(session: Session, schedule: Schedule, now: datetime) -> bool:
    """Store the occurrence and the next due time of a locked, due schedule."""
    settings = settings_of(schedule)
    first = schedule.next_due_at or now
    due_at = due_times.latest_due(settings.cron, settings.zone, first, now)
    schedule.next_due_at = due_times.next_due(settings.cron, settings.zone, now)
    is_missed = now - due_at > ON_TIME
    trigger = Trigger.CATCH_UP if is_missed or due_at > first else Trigger.CLOCK
    refusal = None
    if is_missed and settings.catch_up is CatchUp.NONE:
        refusal = _MISSED
    elif schedules.unfinished(session, schedule.id) is not None:
        refusal = _STILL_RUNNING
    end = refusal or _DUE
    added = schedules.add(session, schedule, end, due_at, trigger, _expiry(settings, now))
    event = "schedule.skipped" if refusal else "schedule.started"
    log.info(event, schedule=schedule.name, due_at=str(due_at), trigger=trigger)
    return added and refusal is None


def _expiry(settings: ScheduleSettings, now: datetime) -> datetime:
    return now + timedelta(hours=settings.expires_after_hours)


_OVER = (RunStatus.FINISHED, RunStatus.CANCELLED)
_PAUSED = "paused"


def settle(session: Session) -> None:
    """End each occurrence whose runs have all ended; record whether its remaining runs are paused.

    An occurrence with paused runs continues to wait, with the reason, until its runs end or it
    expires.
    """
    for waiting in schedules.waiting(session):
        is_over = Run.status.in_(_OVER) & Run.finished_at.is_not(None)
        statuses = set(
            session.scalars(select(Run.status).where(Run.schedule_run_id == waiting.id, ~is_over))
        )
        if not statuses:
            end = _end_of(session, waiting)
            schedules.settle(session, waiting.id, end)
            log.info("schedule.ended", schedule=waiting.schedule, status=end.status)
        elif statuses != {RunStatus.PAUSED}:
            if waiting.error_code == _PAUSED:
                schedules.settle(session, waiting.id, End(status=ScheduleRunStatus.WAITING))
        elif waiting.error_code is None:
            _record_pause(session, waiting)


def _record_pause(session: Session, waiting: ScheduleRun) -> None:
    row = session.execute(
        select(Run.name, Job.error_message)
        .join(Job, Job.run_id == Run.id)
        .where(Run.schedule_run_id == waiting.id, Job.status == JobStatus.PAUSED)
        .limit(1)
    ).first()
    if row is None:  # resumed or ended since the first query
        return
    run, reason = row
    end = End(
        status=ScheduleRunStatus.WAITING,
        code=_PAUSED,
        message=f"Its run {run} is paused: {reason}",
        hint=f"`chordwise runs {run}` shows what to do; then run `chordwise continue {run}`.",
    )
    schedules.settle(session, waiting.id, end)
    log.warning("schedule.paused", schedule=waiting.schedule, run=run)


def _end_of(session: Session, waiting: ScheduleRun) -> End:
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
            message="An item was not taken in, or a job has not succeeded.",
            hint="`chordwise runs RUN` lists the failures.",
            outcome=outcome,
        )
    return End(status=ScheduleRunStatus.SUCCEEDED, outcome=outcome)


def listed(connection: Connection) -> list[Row]:
    """Return the enabled schedules; `defect` is set if this version cannot use the options."""
    rows = SCHEDULES.read(connection, {"enabled": True})
    return [{**row, "defect": _defect({name: row[name] for name in _NAMES})} for row in rows]


MAX_ATTEMPTS = 5
"""The number of attempts, each ended by the loss of its scheduler, before quarantine."""
_QUARANTINED = End(
    status=ScheduleRunStatus.FAILED,
    code="quarantined",
    message=f"{MAX_ATTEMPTS} schedulers were lost while they executed it.",
    hint="Check their logs and their memory; `chordwise schedules run NAME` tries again.",
)
_DEFECT = End(
    status=ScheduleRunStatus.FAILED,
    code="internal",
    message="A bug in Chordwise stopped it.",
    hint="The scheduler's log has the details (schedule.defect).",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEnd:
    """The exit code of a command, and the end of what it has printed."""

    exit_code: int
    output: str


_Claimed: TypeAlias = tuple[Occurrence, Path, Sequence[str]]
Execute: TypeAlias = Callable[[Occurrence, Path, Sequence[str]], CommandEnd]
"""Runs the words of a command line in a folder, under an occurrence, until it ends or SIGINT."""


class ScheduleRunner:
    """Executes one occurrence at a time; one whose lease is lost is interrupted."""

    def __init__(self, context: Context, execute: Execute, is_stopped: Callable[[], bool]) -> None:
        self._context = context
        self._execute = execute
        self._is_stopped = is_stopped
        self._current: Occurrence | None = None

    def work(self) -> bool:
        """Claim and execute one occurrence; return false if there is none.

        Raises:
            ServiceUnavailableError: The database is unavailable. The lease expires, and a process
                resumes the occurrence.
        """
        claimed = self._claim()
        if claimed is None:
            return False
        self._current = occurrence = claimed[0]
        token = occurrence.token
        self._context.leases.keep_token(ScheduleRun, token, lambda: self._interrupt_lost(token))
        try:
            self._conclude(*claimed)
        finally:
            self._current = None
            self._context.leases.drop_token(token)
        return True

    def _interrupt_lost(self, token: uuid.UUID) -> None:
        if self._current is not None and self._current.token == token:
            log.warning("schedule.lease_lost", schedule=self._current.schedule)
            self.interrupt()

    def interrupt(self) -> None:
        """Interrupt the current command as Ctrl-C does, if any."""
        if self._current is not None:
            os.kill(os.getpid(), signal.SIGINT)

    def _claim(self) -> _Claimed | None:
        token = uuid.uuid4()
        with self._context.database.write() as session:
            claimed = schedules.claim(session, token, self._context.lease)
            if claimed is None:
                return None
            if claimed.attempts > MAX_ATTEMPTS:
                schedules.finish(session, claimed.id, token, _QUARANTINED)
                log.error("schedule.abandoned", schedule=claimed.schedule)
                return None
            return self._read(session, claimed, token)

    def _read(self, session: Session, claimed: ScheduleRun, token: uuid.UUID) -> _Claimed | None:
        schedule = session.get_one(Schedule, claimed.schedule_id)
        try:
            words = settings_of(schedule).words
        except ValueError:  # written by another version
            log.exception("schedule.defect", schedule=claimed.schedule)
            schedules.finish(session, claimed.id, token, _DEFECT)
            return None
        if claimed.attempts > 1:
            log.warning("schedule.taken_over", schedule=claimed.schedule, attempt=claimed.attempts)
        occurrence = Occurrence(
            database=self._context.database,
            id=claimed.id,
            schedule=claimed.schedule,
            due_at=claimed.due_at,
            token=token,
            is_resumed=claimed.attempts > 1,
        )
        due_words = [word.replace("{due}", occurrence.due) for word in words]
        return occurrence, Path(schedule.folder), due_words

    def _conclude(self, occurrence: Occurrence, folder: Path, words: Sequence[str]) -> None:
        name = occurrence.schedule
        try:
            ends = [
                self._execute(occurrence, folder, line) for line in self._lines(occurrence, words)
            ]
            if self._is_stopped():
                raise KeyboardInterrupt  # noqa: TRY301 - the command ended early and in order
            self._finish(occurrence, self._end(occurrence, ends))
        except KeyboardInterrupt:
            with self._context.database.write() as session:
                leases.release(session, ScheduleRun, occurrence.id, occurrence.token)
            log.info("schedule.released", schedule=name)
        except ServiceUnavailableError:
            raise
        except LeaseLostError as error:
            log.warning("schedule.lease_lost", schedule=name, reason=error.what)
        except ChordwiseError as error:
            log.warning("schedule.failed", schedule=name, reason=error.what)
            failed = ScheduleRunStatus.FAILED
            end = End(status=failed, code=error.code, message=error.what, hint=error.hint)
            self._finish(occurrence, end)
        except Exception:  # retries by other schedulers would meet the same defect
            log.exception("schedule.defect", schedule=name)
            self._finish(occurrence, _DEFECT)

    def _lines(self, occurrence: Occurrence, words: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yield the command, or those that continue the runs which an earlier process started."""
        of_occurrence = select(Run).where(Run.schedule_run_id == occurrence.id).order_by(Run.id)
        with self._context.database.read() as session:
            runs = session.scalars(of_occurrence).all()
        if not runs:
            yield words
        for run in runs:
            if run.intake_finished_at is None and run.status != RunStatus.CANCELLED:
                yield "continue", run.name

    def _end(self, occurrence: Occurrence, ends: Sequence[CommandEnd]) -> End:
        """Return the end of the occurrence; it waits for the runs that its command has started."""
        begun = select(Run.id).where(Run.schedule_run_id == occurrence.id).exists()
        with self._context.database.read() as session:
            waits = session.scalar(select(begun))
        exit_code = max((end.exit_code for end in ends), default=ExitCode.SUCCESS)
        output = "\n".join(end.output for end in ends)
        printed: JsonObject = {"output": output} if output else {}
        outcome: JsonObject = {**(occurrence.outcome() or {}), **printed}
        if exit_code not in (ExitCode.SUCCESS, ExitCode.INCOMPLETE):
            return End(
                status=ScheduleRunStatus.FAILED,
                code="usage",
                message=f"The command ended with the exit code {exit_code}.",
                hint="The outcome has its output; run the command in a terminal.",
                outcome=outcome,
            )
        if waits:
            return End(status=ScheduleRunStatus.WAITING, outcome=outcome)
        if exit_code == ExitCode.SUCCESS:
            return End(status=ScheduleRunStatus.SUCCEEDED, outcome=outcome)
        return End(
            status=ScheduleRunStatus.INCOMPLETE,
            code="incomplete",
            message="The command is not complete (exit code 3).",
            hint="The outcome has its output.",
            outcome=outcome,
        )

    def _finish(self, occurrence: Occurrence, end: End) -> None:
        for attempt in self._context.database.attempts(DATABASE_TIMEOUT):
            with attempt as session:
                finished = schedules.finish(session, occurrence.id, occurrence.token, end)
        if finished:
            log.info("schedule.done", schedule=occurrence.schedule, status=end.status)
