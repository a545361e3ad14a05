"""The context in which an occurrence is executed: its lease, and its resumable runs."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.errors import LeaseLostError
from chordwise.pipeline.intake.found_files import FileSource, take_in
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission, claim, open_run
from chordwise.pipeline.runtime.context import DATABASE_TIMEOUT, Context
from chordwise.settings import ScheduleSettings
from chordwise.storage import schedules
from chordwise.storage.intakes import IntakeEntry
from chordwise.storage.runs import Run


class InterruptedWorkError(Exception):
    """This process is stopping; another one continues the occurrence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An occurrence claimed with `token`; `is_stopped` returns whether this process is stopping."""

    context: Context
    settings: ScheduleSettings
    schedule_run_id: uuid.UUID
    schedule: str
    due_at: datetime
    token: uuid.UUID
    is_stopped: Callable[[], bool]

    def require_running(self) -> None:
        """Check that this process is not stopping.

        Raises:
            InterruptedWorkError: It is stopping.
        """
        if self.is_stopped():
            raise InterruptedWorkError

    def guard(self, session: Session) -> None:
        """Check that the lease is held, and lock it until the commit of the transaction.

        Raises:
            LeaseLostError: Another process has taken the occurrence over, or it has expired.
        """
        if not schedules.holds(session, self.schedule_run_id, self.token):
            raise LeaseLostError(f"The schedule {self.schedule} was taken over.")

    def write(self, change: Callable[[Session], int]) -> int:
        """Run a transaction under the lease, retried during a short outage of the database.

        Raises:
            LeaseLostError: The lease is lost; nothing was written.
        """
        for attempt in self.context.database.attempts(DATABASE_TIMEOUT):
            with attempt as session:
                self.guard(session)
                changed = change(session)
        return changed

    def run_name(self, part: str = "") -> str:
        """Return the name of a run of this occurrence; it is the same for the same `part`."""
        name = f"{self.schedule}-{self.due_at:%Y%m%d-%H%M}-{self.schedule_run_id.hex[-4:]}"
        return f"{name}-{hashlib.sha256(part.encode()).hexdigest()[:6]}" if part else name


def take_in_all(
    work: Work, options: RunOptions, source: FileSource, find: Callable[[], Sequence[IntakeEntry]]
) -> int:
    """Take in all found items as the run that `options` name; return their number.

    The run that a killed scheduler has started is resumed with its stored list. If nothing is
    found, no run is created.

    Raises:
        InterruptedWorkError: This process is stopping; the run stays open.
        ConfigurationError: The model is unknown, or its price is unknown and there is a budget.
        LeaseLostError: Another process continues the occurrence.
    """
    known = _run_named(work, options.name)
    if known is None:
        entries = find()
        if not entries:
            return 0
        submission: Submission | None = open_run(
            work.context, options, work.due_at, entries, work.guard
        )
    else:
        submission = claim(work.context, known.id, work.guard, by_force=True)
    _attach(work, options.name)
    is_stopped = work.is_stopped
    if submission and not take_in(work.context, submission, source, is_stopped=is_stopped):
        raise InterruptedWorkError
    run = _run_named(work, options.name)
    return (run.found_count if run is not None else None) or 0


def _run_named(work: Work, name: str) -> Run | None:
    with work.context.database.read() as session:
        work.guard(session)
        return session.scalars(select(Run).where(Run.name == name)).one_or_none()


def _attach(work: Work, name: str) -> None:
    mine = update(Run).where(Run.name == name).values(schedule_run_id=work.schedule_run_id)
    work.write(lambda session: len(session.scalars(mine.returning(Run.id)).all()))


Kind: TypeAlias = Callable[[Work], JsonObject]
"""A function that executes an occurrence and returns its `schedule_runs.outcome`."""
