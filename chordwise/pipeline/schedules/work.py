"""What carrying out an occurrence of a schedule works with: its lease, and runs that continue."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.errors import LeaseLostError
from chordwise.pipeline.context import Context
from chordwise.pipeline.run_options import RunOptions
from chordwise.pipeline.submit import PATIENCE, Submission, TakenIn, open_run
from chordwise.readers.reading import ReadDocument, UnreadDocument
from chordwise.settings import ScheduleSettings
from chordwise.storage import intakes, runs, schedule_runs
from chordwise.storage.engine import persistently, reaching_database
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run


class InterruptedWorkError(Exception):
    """The process has to leave; another one goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One occurrence, claimed with `token`; `is_stopped` says that this process has to leave."""

    context: Context
    settings: ScheduleSettings
    schedule_run_id: uuid.UUID
    schedule: str
    due_at: datetime
    token: uuid.UUID
    is_stopped: Callable[[], bool]

    def go_on(self) -> None:
        """Return while the process may work on.

        Raises:
            InterruptedWorkError: It has to leave.
        """
        if self.is_stopped():
            raise InterruptedWorkError

    def guard(self, session: Session) -> None:
        """Let a transaction write only while the lease is ours, and nobody take it meanwhile.

        Raises:
            LeaseLostError: Somebody else has taken the occurrence over, or it has expired.
        """
        if not schedule_runs.holds(session, self.schedule_run_id, self.token):
            raise LeaseLostError(f"The schedule {self.schedule} was taken over.")

    def write(self, change: Callable[[Session], int]) -> int:
        """Run a transaction under the lease, again while the database is away for a moment.

        Raises:
            LeaseLostError: The lease is lost; nothing was written.
            ServiceUnavailableError: The database stayed away.
        """

        def guarded(session: Session) -> int:
            self.guard(session)
            return change(session)

        return persistently(self.context.sessions, PATIENCE, guarded)

    def run_name(self, part: str = "") -> str:
        """Return the name of a run of this occurrence, always the same for the same part."""
        name = f"{self.schedule}-{self.due_at:%Y%m%d-%H%M}-{self.schedule_run_id.hex[-4:]}"
        return f"{name}-{hashlib.sha256(part.encode()).hexdigest()[:6]}" if part else name


class ContinuedSubmission(Submission):
    """Takes things in for an occurrence, but not again what a killed scheduler has taken in."""

    def __init__(self, work: Work, run_id: uuid.UUID, options: RunOptions) -> None:
        super().__init__(work.context, run_id, options.name, options)
        self._work = work
        with reaching_database(), work.context.sessions() as session:
            self._before = Counter(intakes.sources_of(session, run_id))
        self._found = self._before.total()

    def take_in_once(self, found: ReadDocument | UnreadDocument) -> None:
        """Take a thing in unless it was before.

        Raises:
            LeaseLostError: Somebody else goes on with it.
            RunCancelledError: The run is cancelled.
            ServiceUnavailableError: The database stayed away.
        """
        if self._before[found.source]:
            self._before[found.source] -= 1
        else:
            self.take_in(found)

    @property
    def found(self) -> int:
        """Return how many things the run has seen."""
        return self._found

    def close(self) -> None:
        """Declare that nothing more comes.

        Raises:
            LeaseLostError: Somebody else goes on with it.
            ServiceUnavailableError: The database stayed away.
        """

        def finish(session: Session) -> int:
            runs.finish_intake(session, self.run_id, self._found)
            return self._found

        self._work.write(finish)

    def _take_in(
        self, session: Session, intake_id: uuid.UUID, found: ReadDocument | UnreadDocument
    ) -> TakenIn:
        self._work.guard(session)
        return super()._take_in(session, intake_id, found)


def open_scheduled_run(work: Work, options: RunOptions) -> ContinuedSubmission:
    """Begin the run of this name for an occurrence, or go on with it.

    Raises:
        ConfigurationError: The model is unknown, or its price where there is a budget.
        LeaseLostError: Somebody else goes on with it.
        ServiceUnavailableError: The database cannot be reached.
    """
    with reaching_database(), work.context.sessions() as session:
        work.guard(session)
        known = session.scalar(select(Run.id).where(Run.name == options.name))
    run_id = known or new_id()
    open_run(work.context, options, work.due_at, run_id)
    mine = update(Run).where(Run.id == run_id).values(schedule_run_id=work.schedule_run_id)
    work.write(lambda session: len(session.scalars(mine.returning(Run.id)).all()))
    return ContinuedSubmission(work, run_id, options)


Kind: TypeAlias = Callable[[Work], JsonObject]
"""Carries an occurrence out; returns what it did, for `schedule_runs.outcome`."""
