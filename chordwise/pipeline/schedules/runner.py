"""Execution of occurrences under a lease; another process resumes them after a crash."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import RunStatus, ScheduleRunStatus
from chordwise.errors import ChordwiseError, ExitCode, LeaseLostError, ServiceUnavailableError
from chordwise.pipeline.runtime.context import DATABASE_TIMEOUT, Context, Occurrence
from chordwise.pipeline.schedules.occurrences import settings_of
from chordwise.storage import leases, schedules
from chordwise.storage.runs import Run
from chordwise.storage.schedules import End, Schedule, ScheduleRun

log = structlog.get_logger(__name__)

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
