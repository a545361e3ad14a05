"""A step of a job in the hands of this worker: a leased chunk, or the synthesis of the job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.grounding import Source
from chordwise.domain.states import Lane
from chordwise.errors import LeaseLostError, ServiceUnavailableError
from chordwise.llm.limits.permits import Priority
from chordwise.llm.middleware.batched import BatchQueue
from chordwise.llm.middleware.rate_limited import Turn
from chordwise.pipeline.asking import Question
from chordwise.pipeline.asking.question import policy_of
from chordwise.pipeline.models.batch_queue import JobBatches
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.models.model_client import CallContext
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import Lease
from chordwise.storage.chunk_claims import ClaimedChunk
from chordwise.storage.chunk_work import ChunkEnd, JobEnd, Outcome, Stored
from chordwise.storage.synthesis_claims import ClaimedSynthesis

Claimed = TypeVar("Claimed", ClaimedChunk, ClaimedSynthesis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[Claimed]):
    """Claimed work with its lease, and the ledger and turn of its calls."""

    context: Context
    claimed: Claimed
    lease: Lease
    ledger: Ledger
    turn: Turn

    def question(self, task: AnalysisTask, source: Source) -> Question:
        """Return a question of this step, whose calls have its ledger, priority and cache.

        Raises:
            ConfigurationError: The model is unknown, or cannot be used as configured.
        """
        context, claimed, ledger = self.context, self.claimed, self.ledger
        completions = ledger.completions

        def batches(name: str) -> BatchQueue:
            return JobBatches(
                database=context.database,
                settings=context.settings if ledger.is_limited else None,
                job_id=claimed.job_id,
                chunk_id=ledger.chunk_id,
                model_name=name,
                max_age=completions.max_age if completions else None,
            )

        call_context = CallContext(
            ledger=ledger,
            priority=Priority(claimed.priority),
            cache=ledger.cache,
            turn=self.turn,
            batches=batches if claimed.lane == Lane.BATCH else None,
        )
        return Question(
            model=context.models.open(claimed.model, call_context),
            task=task,
            source=source,
            record_check=ledger.check,
            policy=policy_of(context.settings, self.lease.require),
        )

    def end(self, end: ChunkEnd | JobEnd) -> Outcome:
        """Store the end of the step and the ends of its calls, if the lease is still held.

        A paid answer waits while the database is unavailable; no other worker can claim the work
        during that time. If the end is refused, the ledger keeps the calls.

        Raises:
            LeaseLostError: Another worker has claimed the work.
            ServiceUnavailableError: The database was unavailable for too long.
        """
        self.lease.require()
        self.turn.finish()
        calls = self.ledger.pop_ended()
        stores, timeout = self.context.stores.chunks, self.context.outage_timeout
        try:
            stored = stores.end(replace(end, token=self.lease.token, calls=calls), timeout)
        except ServiceUnavailableError:
            raise
        except Exception:
            self.ledger.restore_ended(calls)
            raise
        if stored is Stored.LOST:
            raise LeaseLostError("Another worker has claimed the work.")
        return stored

    def record_loss(self) -> None:
        """Count that another worker has claimed the work before its answer could be stored."""
        self.context.leases.record_loss(self.lease, "answer")


@contextmanager
def working(context: Context, claimed: Claimed, lease: Lease) -> Iterator[Step[Claimed]]:
    """Hold the lease of claimed work inside the block, and store the ends of its calls after it.

    Raises:
        ServiceUnavailableError: The database cannot be reached; the lease is released later.
    """
    with context.leases.holding(lease), closing(context.models.turn()) as turn:
        ledger = ledger_of(context, claimed, lease)
        try:
            yield Step(context=context, claimed=claimed, lease=lease, ledger=ledger, turn=turn)
        finally:
            ledger.flush()


def ledger_of(context: Context, claimed: ClaimedChunk | ClaimedSynthesis, lease: Lease) -> Ledger:
    """Return the ledger of claimed work: no call starts once its lease is lost."""
    return Ledger(
        enter=context.stores.chunks.enter,
        settings=context.settings,
        is_limited=claimed.is_capped or context.settings.budget.usd_per_day is not None,
        job_id=lease.job_id,
        chunk_id=lease.chunk_id,
        token=lease.token,
        completions=context.stores.completions if claimed.use_cache else None,
    )
