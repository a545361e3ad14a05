"""The due time of a schedule that this process executes, and its lease."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.errors import LeaseLostError
from chordwise.pipeline.runtime.context import DATABASE_TIMEOUT
from chordwise.storage import deliveries, schedules
from chordwise.storage.database import Database
from chordwise.storage.schedules import ScheduleRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """An occurrence claimed with `token`; every command of a schedule writes under its lease.

    `is_resumed`: an earlier process was killed while it executed this occurrence.
    """

    database: Database
    id: uuid.UUID
    schedule: str
    due_at: datetime
    token: uuid.UUID
    is_resumed: bool

    @property
    def due(self) -> str:
        """The due time in UTC, as in names of files and runs."""
        return f"{self.due_at:%Y%m%d-%H%M}"

    @property
    def run_name(self) -> str:
        """The name of the run that the command starts, unless the command names it."""
        return f"{self.schedule}-{self.due}-{self.id.hex[-4:]}"

    def guard(self, session: Session) -> None:
        """Check that the lease is held, and lock it until the commit of the transaction.

        Raises:
            LeaseLostError: Another process has taken the occurrence over, or it has expired.
        """
        if not schedules.holds(session, self.id, self.token):
            raise LeaseLostError(f"The schedule {self.schedule} was taken over.")

    def write(self, change: Callable[[Session], int]) -> int:
        """Run a transaction under the lease, retried during a short outage of the database.

        Raises:
            LeaseLostError: The lease is lost; nothing was written.
        """
        for attempt in self.database.attempts(DATABASE_TIMEOUT):
            with attempt as session:
                self.guard(session)
                changed = change(session)
        return changed

    def outcome(self) -> JsonObject | None:
        """Return what the command has recorded, also in an earlier process."""
        with self.database.read() as session:
            return session.get_one(ScheduleRun, self.id).outcome

    def last_success(self, session: Session) -> datetime | None:
        """Return the due time of the last occurrence of this schedule that succeeded."""
        return schedules.last_success(session, self.schedule, self.due_at)

    def record(self, outcome: JsonObject, event: str = "") -> None:
        """Record what the command has done; `event` also sends it to the webhook, once.

        Raises:
            LeaseLostError: The lease is lost; nothing was written.
        """
        self.write(lambda session: self.record_in(session, outcome, event))

    def record_in(self, session: Session, outcome: JsonObject, event: str = "") -> int:
        """Record as `record` does, in a transaction that holds the lease."""
        session.get_one(ScheduleRun, self.id).outcome = outcome
        if event:
            content: JsonObject = {"schedule": self.schedule, **outcome}
            deliveries.announce(session, event, content=content, occurrence_id=self.id)
        return 1
