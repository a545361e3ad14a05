"""What every use case works with: settings, database, models and messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy.orm import Session

from chordwise.domain.states import Lane
from chordwise.llm.limits.permits import Priority
from chordwise.llm.middleware.batched import BatchQueue
from chordwise.llm.middleware.concurrency_limited import Turn
from chordwise.pipeline.models import answer_cache
from chordwise.pipeline.models.batch_queue import JobBatches
from chordwise.pipeline.models.budgets import JobBudget, Reservations
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.models.model_client import CallContext, Models
from chordwise.pipeline.runtime.leases import Lease, LeaseKeeper
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, SYNTHESIZE, Messenger
from chordwise.settings import Settings
from chordwise.storage.cached_completions import CompletionStore
from chordwise.storage.chunk_claims import ClaimedChunk
from chordwise.storage.chunk_work import ChunkWork
from chordwise.storage.database import Database
from chordwise.storage.documents import DocumentTexts
from chordwise.storage.fan_outs import FanOuts
from chordwise.storage.synthesis_claims import ClaimedSynthesis

if TYPE_CHECKING:
    from chordwise.pipeline.runtime.occurrence import Occurrence

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The stores in which the threads of a process write together."""

    chunks: ChunkWork
    fan_outs: FanOuts
    reservations: Reservations
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
        reservations=Reservations(settings, database),
        texts=DocumentTexts(database),
        completions=answer_cache.completion_store(settings, together),
    )


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

    def ledger(self, lease: Lease) -> Ledger:
        """Return the ledger of a chunk or synthesis: no call starts once its lease is lost."""
        return Ledger(
            enter=self.stores.chunks.enter,
            timeout=self.outage_timeout,
            job_id=lease.job_id,
            chunk_id=lease.chunk_id,
            token=lease.token,
            discard=partial(answer_cache.discard, self.database),
        )

    def call_context(
        self, claimed: ClaimedChunk | ClaimedSynthesis, ledger: Ledger, turn: Turn
    ) -> CallContext:
        """Return how models are asked for a chunk or synthesis: its budget, priority and cache."""
        job_id, chunk_id = claimed.job_id, ledger.chunk_id
        budget = JobBudget(reservations=self.stores.reservations, job_id=job_id)
        completions = self.stores.completions if claimed.use_cache else None
        cache = answer_cache.stored_completions(self.settings, completions, chunk_id or job_id)
        is_limited = claimed.is_capped or self.settings.budget.usd_per_day is not None

        def batches(name: str) -> BatchQueue:
            return JobBatches(
                database=self.database,
                budget=budget,
                job_id=job_id,
                chunk_id=chunk_id,
                model_name=name,
                max_age=completions.max_age if completions else None,
            )

        return CallContext(
            ledger=ledger,
            budget=budget if is_limited else None,
            priority=Priority(claimed.priority),
            cache=cache,
            turn=turn,
            batches=batches if claimed.lane == Lane.BATCH else None,
        )
