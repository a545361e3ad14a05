"""What every use case works with: settings, database, models and messages."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import TypeAlias

from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.errors import LeaseLostError
from chordwise.pipeline.models.ledger import Ledger, completion_store
from chordwise.pipeline.models.model_client import Models, server_of
from chordwise.pipeline.runtime.leases import LeaseKeeper
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, SYNTHESIZE, Messenger
from chordwise.settings import Settings
from chordwise.storage import deliveries, schedules
from chordwise.storage.cached_completions import CompletionStore
from chordwise.storage.chunk_work import ChunkWork, store_entries
from chordwise.storage.database import Database
from chordwise.storage.documents import DocumentTexts
from chordwise.storage.fan_outs import FanOuts
from chordwise.storage.group_commit import GroupCommit
from chordwise.storage.schedules import ScheduleRun

DATABASE_TIMEOUT = timedelta(seconds=20)
"""How long a command waits for a restarting database before it reports the outage."""
Write: TypeAlias = Callable[[Callable[[Session], int]], int]
"""Runs a function in a transaction, and returns its return value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingContext:
    """The part of a context that reading and estimating need."""

    settings: Settings
    database: Database
    models: Models

    def ledgers(self, *, fresh: bool = False) -> Callable[[], Ledger]:
        """Return a function that opens ledgers for calls outside of runs.

        Only the budget of the day limits these calls. A ledger belongs to one thread. Answers are
        read from the cache unless `fresh`.
        """
        return partial(
            Ledger,
            enter=GroupCommit(self.database.transaction, store_entries).commit,
            settings=self.settings,
            is_limited=self.settings.budget.usd_per_day is not None,
            completions=None if fresh else completion_store(self.settings, self.database),
        )


def reading_context(settings: Settings, database: Database) -> ReadingContext:
    """Return a context for questions and estimates, which needs no broker."""
    models = Models(settings, server_of(settings))
    return ReadingContext(settings=settings, database=database, models=models)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The stores in which the threads of a process write together."""

    chunks: ChunkWork
    fan_outs: FanOuts
    texts: DocumentTexts
    completions: CompletionStore | None


def open_stores(settings: Settings, database: Database, together: Database | None = None) -> Stores:
    """Return the stores of a process; `together` is the database for grouped writes."""
    lease = timedelta(seconds=settings.pipeline.lease_seconds)
    together = together or database
    pipeline = settings.pipeline
    return Stores(
        chunks=ChunkWork(together, lease, pipeline.max_attempts, SYNTHESIZE),
        fan_outs=FanOuts(together, pipeline, analysis=ANALYZE_SLICE, synthesis=SYNTHESIZE),
        texts=DocumentTexts(database),
        completions=completion_store(settings, together),
    )


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

        def guarded(session: Session) -> int:
            self.guard(session)
            return change(session)

        return self.database.commit(guarded, DATABASE_TIMEOUT)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(ReadingContext):
    """One per process; safe to share between threads.

    `occurrence` is the due time of a schedule that the process executes.
    """

    stores: Stores
    messenger: Messenger
    leases: LeaseKeeper
    random: Random
    occurrence: Occurrence | None = None

    def guard(self, session: Session) -> None:
        """Check in a transaction that this process may write: that it holds its occurrence.

        Raises:
            LeaseLostError: Another process has taken the occurrence over, or it has expired.
        """
        if self.occurrence is not None:
            self.occurrence.guard(session)

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts without a heartbeat."""
        return timedelta(seconds=self.settings.pipeline.lease_seconds)

    @property
    def outage_timeout(self) -> timedelta:
        """How long a paid answer waits for an unavailable database."""
        return timedelta(seconds=self.settings.pipeline.database_outage_timeout_seconds)
