"""What every use case works with: settings, database, models and messages."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import Protocol

from chordwise.domain.states import JobStatus, Lane
from chordwise.llm.limits.permits import Priority
from chordwise.llm.middleware.batched import BatchQueue
from chordwise.llm.middleware.budgeted import Unlimited
from chordwise.llm.middleware.concurrency_limited import Turn
from chordwise.pipeline.models import answer_cache
from chordwise.pipeline.models.batch_queue import JobBatches
from chordwise.pipeline.models.budgets import JobBudget, Reservations
from chordwise.pipeline.models.client import Asking, Models
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.runtime.leases import LeaseKeeper
from chordwise.pipeline.runtime.messages import SYNTHESIZE, Messenger
from chordwise.settings import Settings
from chordwise.storage.chunk_work import ChunkWork
from chordwise.storage.database import Database
from chordwise.storage.documents import DocumentTexts
from chordwise.storage.fan_outs import FanOuts
from chordwise.storage.jobs import Walk

_WALKED = (JobStatus.RUNNING, JobStatus.WAITING, JobStatus.SYNTHESIZING)
PATIENCE = timedelta(seconds=20)
"""How long a person waits for a database that restarts, before being told."""


class ReadingContext(Protocol):
    """The part of a context that reading and estimating need."""

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        ...

    @property
    def database(self) -> Database:
        """Return the database."""
        ...

    @property
    def models(self) -> Models:
        """Return the models."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where the threads of a process store their work together."""

    chunks: ChunkWork
    fan_outs: FanOuts
    reservations: Reservations
    texts: DocumentTexts


def open_stores(settings: Settings, database: Database, together: Database | None = None) -> Stores:
    """Return the stores of a process; `together` is for what its threads store together."""
    lease = timedelta(seconds=settings.pipeline.lease_seconds)
    together = together or database
    pipeline = settings.pipeline
    patience = timedelta(seconds=min(pipeline.lease_seconds, pipeline.stalled_seconds))
    return Stores(
        chunks=ChunkWork(together, lease, pipeline.max_attempts, SYNTHESIZE),
        fan_outs=FanOuts(together, pipeline.max_attempts, patience, lease, SYNTHESIZE),
        reservations=Reservations(settings, database),
        texts=DocumentTexts(database),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The chunk, or the synthesis of a job (no chunk), for which models are asked.

    Nothing is asked once the lease of `token` is lost. The rest are options of its run; it
    `is_capped` where its budget was limited when the work was claimed.
    """

    job_id: uuid.UUID
    chunk_id: uuid.UUID | None
    token: uuid.UUID
    priority: str
    lane: str
    use_cache: bool
    is_capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One per process; safe to share between threads.

    `walks` are how far recovery has come among the jobs that may wait for a synthesis.
    """

    settings: Settings
    database: Database
    stores: Stores
    models: Models
    messenger: Messenger
    leases: LeaseKeeper
    random: Random
    walks: Sequence[Walk] = field(default_factory=lambda: tuple(map(Walk, _WALKED)))

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts without a heartbeat."""
        return timedelta(seconds=self.settings.pipeline.lease_seconds)

    @property
    def outage(self) -> timedelta:
        """How long what has been paid for waits for a database that is away."""
        return timedelta(seconds=self.settings.pipeline.database_outage_timeout_seconds)

    def ledger(self, owner: Owner) -> Ledger:
        """Return the ledger of a chunk or a synthesis."""
        return Ledger(
            enter=self.stores.chunks.enter,
            patience=self.outage,
            job_id=owner.job_id,
            chunk_id=owner.chunk_id,
            token=owner.token,
            discard=partial(answer_cache.discard, self.database),
        )

    def asking(self, owner: Owner, ledger: Ledger, turn: Turn) -> Asking:
        """Return how models are asked for a chunk or a synthesis: its budget, urgency and cache."""
        budget = JobBudget(reservations=self.stores.reservations, job_id=owner.job_id)
        stored = answer_cache.stored_completions(
            self.settings, self.database, owner.chunk_id or owner.job_id
        )
        cache = stored if owner.use_cache else None
        is_limited = owner.is_capped or self.settings.budget.usd_per_day is not None

        def batches(name: str) -> BatchQueue:
            return JobBatches(
                database=self.database,
                budget=budget,
                job_id=owner.job_id,
                chunk_id=owner.chunk_id,
                model_name=name,
                max_age=cache.max_age if cache else None,
            )

        return Asking(
            ledger=ledger,
            budget=budget if is_limited else Unlimited(),
            priority=Priority(owner.priority),
            cache=cache,
            turn=turn,
            batches=batches if owner.lane == Lane.BATCH else None,
        )
