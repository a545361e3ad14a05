"""How far a run has come, and how long the rest will take: what waiting commands show."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chordwise.domain.lanes import Lane
from chordwise.domain.states import UNFINISHED_JOBS, JobStatus, RunStatus
from chordwise.pipeline.runs import batch_waits
from chordwise.pipeline.runs.batch_waits import BatchWait
from chordwise.storage import intakes
from chordwise.storage.jobs import Job
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.runs import Run

_WINDOW_SECONDS = 60.0
_LEAST_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """The jobs of a run; `unsplit` are those whose chunks are not known yet."""

    documents: int = 0
    documents_done: int = 0
    total: int = 0
    done: int = 0
    succeeded: int = 0
    paused: int = 0
    waiting: int = 0
    unsplit: int = 0

    @property
    def failed(self) -> int:
        """Ended without a complete answer."""
        return self.done - self.succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCounts:
    """The model calls of a run; `unpriced` have no known price, and `cost_usd` sums the others.

    `extractive` are those that the built-in extractive model answered, `failed` those without an
    answer.
    """

    total: int = 0
    extractive: int = 0
    tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A run at one moment; equal to another one if nothing has moved in between.

    `trouble` says why the newest call that has ended has failed; it is empty where it has not. One
    that `is_interrupted` has found more than it has taken in, and no process is taking in for it.
    """

    status: RunStatus
    is_taking_in: bool
    jobs: JobCounts
    chunks: int
    chunks_done: int
    calls: CallCounts
    trouble: str = ""
    batches: Sequence[BatchWait] = ()
    is_interrupted: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing happens any more without a person."""
        if self.status is RunStatus.CANCELLED:
            return self.jobs.done == self.jobs.total  # the jobs are cancelled after their run
        is_idle = self.jobs.total - self.jobs.done == self.jobs.paused
        return self.status is not RunStatus.OPEN or (self.is_interrupted and is_idle)

    @property
    def chunks_open(self) -> float:
        """Chunks still to come, those of jobs that are not split yet estimated by the mean."""
        split = self.jobs.total - self.jobs.unsplit
        mean = self.chunks / split if split and self.chunks else 1.0
        return self.chunks - self.chunks_done + self.jobs.unsplit * mean


class Pace:
    """The speed of a run over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Progress]] = deque()

    def note(self, seconds: float, progress: Progress) -> None:
        """Take down a progress; `seconds` are those of a steady clock."""
        self._seen.append((seconds, progress))
        while seconds - self._seen[0][0] > _WINDOW_SECONDS:
            self._seen.popleft()

    def documents_per_minute(self) -> float | None:
        """Return the documents done in a minute; `None` while there is too little to tell."""
        gained = [progress.jobs.documents_done for _, progress in self._seen]
        return self._per_second(gained, 60)

    def remaining(self) -> timedelta | None:
        """Return the time that the open chunks will take; `None` while it cannot be told."""
        speed = self._per_second([progress.chunks_done for _, progress in self._seen], 1)
        if not speed or self._seen[-1][1].is_taking_in:
            return None
        return timedelta(seconds=self._seen[-1][1].chunks_open / speed)

    def _per_second(self, counts: list[int], times: int) -> float | None:
        elapsed = self._seen[-1][0] - self._seen[0][0] if self._seen else 0.0
        if elapsed < _LEAST_SECONDS:
            return None
        return times * (counts[-1] - counts[0]) / elapsed


def read(session: Session, run_id: uuid.UUID) -> Progress:
    """Return how far a run has come."""
    run, is_interrupted = session.execute(
        select(Run, intakes.is_interrupted()).where(Run.id == run_id)
    ).one()
    chunks, calls = _chunks(session, run_id), _calls(session, run)
    return Progress(
        status=RunStatus(run.status),
        is_taking_in=run.intake_finished_at is None and not is_interrupted,
        is_interrupted=is_interrupted,
        jobs=_jobs(session, run),
        chunks=chunks[0],
        chunks_done=chunks[1],
        calls=calls,
        trouble=_trouble(session, run_id) if calls.failed else "",
        batches=batch_waits.of_run(session, run_id) if run.lane == Lane.BATCH else (),
    )


def _jobs(session: Session, run: Run) -> JobCounts:
    """Return the counts; each accepted intake has a job of each type, whatever became of them."""
    counted = select(Job.status, func.count()).where(Job.run_id == run.id).group_by(Job.status)
    states = Counter(dict(session.execute(counted).all()))
    unfinished = (
        select(func.count().filter(Job.chunk_count.is_(None)).label("unsplit"))
        .where(Job.run_id == run.id, Job.status.in_(UNFINISHED_JOBS))
        .group_by(Job.intake_id)
        .subquery()
    )
    unfinished_documents, unsplit = session.execute(
        select(func.count(), func.coalesce(func.sum(unfinished.c.unsplit), 0))
    ).one()
    documents = -(-states.total() // run.type_count)
    return JobCounts(
        documents=documents,
        documents_done=documents - unfinished_documents,
        total=states.total(),
        done=states.total() - sum(states[each] for each in UNFINISHED_JOBS),
        succeeded=states[JobStatus.SUCCEEDED],
        paused=states[JobStatus.PAUSED],
        waiting=states[JobStatus.WAITING],
        unsplit=int(unsplit),
    )


def _chunks(session: Session, run_id: uuid.UUID) -> tuple[int, int]:
    """Return how many chunks there are and how many have ended, as the jobs count them."""
    left = func.sum(Job.open_chunks).filter(Job.status.in_(UNFINISHED_JOBS))
    counted = select(func.sum(Job.chunk_count), left)
    planned, open_ = session.execute(counted.where(Job.run_id == run_id)).one()
    return planned or 0, (planned or 0) - (open_ or 0)


def _calls(session: Session, run: Run) -> CallCounts:
    """Return the sums; a call that has not ended in a run that has was cut off, and may cost."""
    is_over = ModelCall.finished_at.is_not(None) | (run.status != RunStatus.OPEN)
    tokens = func.coalesce(ModelCall.input_tokens, 0) + func.coalesce(ModelCall.output_tokens, 0)
    row = session.execute(
        select(
            func.count(),
            func.count().filter(~ModelCall.language_model),
            func.coalesce(func.sum(tokens), 0),
            func.sum(ModelCall.cost_usd),
            func.count().filter(ModelCall.cost_usd.is_(None) & is_over),
            func.count().filter(ModelCall.error_code.is_not(None)),
        )
        .join(Job, Job.id == ModelCall.job_id)
        .where(Job.run_id == run.id)
    ).one()
    return CallCounts(
        total=row[0],
        extractive=row[1],
        tokens=int(row[2]),
        cost_usd=row[3] or Decimal(0),
        unpriced=row[4],
        failed=row[5],
    )


def _trouble(session: Session, run_id: uuid.UUID) -> str:
    """Return why the newest call, of those that have ended, has failed, or nothing."""
    newest = (
        select(ModelCall.error_message)
        .join(Job, Job.id == ModelCall.job_id)
        .where(Job.run_id == run_id, ModelCall.finished_at.is_not(None))
        .order_by(ModelCall.id.desc())  # in the order of their beginnings, by which they are found
        .limit(1)
    )
    return session.scalar(newest) or ""
