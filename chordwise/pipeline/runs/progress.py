"""The progress of a run and an estimate of its remaining time, for commands that wait."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonValue
from chordwise.domain.states import (
    AWAITED_REQUESTS,
    UNFINISHED_JOBS,
    BatchRequestStatus,
    JobStatus,
    Lane,
    RunStatus,
)
from chordwise.storage import intakes
from chordwise.storage.jobs import Job, calls_of
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.record import copied, first_id
from chordwise.storage.runs import Run

_WINDOW_SECONDS = 60.0
_MIN_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """The jobs of a run; `unsplit` is the number of jobs whose chunks are not known yet."""

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
        """The number of jobs that ended without a complete answer."""
        return self.done - self.succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCounts:
    """The model calls of a run; `unpriced` have no known cost, and `cost_usd` sums the others.

    The built-in model answered `extractive` calls; `failed` calls have no answer.
    """

    total: int = 0
    extractive: int = 0
    tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a run; two are equal if nothing changed in between.

    `last_error` is the error of the newest call that has ended; it is empty if that call succeeded,
    and once the run is over. `is_interrupted` means that the run has found more items than it has
    taken in, and no process continues its intake.
    """

    status: RunStatus
    is_taking_in: bool
    jobs: JobCounts
    chunks: int = 0
    chunks_done: int = 0
    calls: CallCounts = CallCounts()
    last_error: str = ""
    batches: Sequence[BatchWait] = ()
    is_interrupted: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the run will not progress any further without intervention."""
        if self.status is RunStatus.CANCELLED:
            return self.jobs.done == self.jobs.total  # the jobs are cancelled after their run
        is_idle = self.jobs.total - self.jobs.done == self.jobs.paused
        return self.status is not RunStatus.OPEN or (self.is_interrupted and is_idle)

    @property
    def chunks_open(self) -> float:
        """The number of remaining chunks; jobs that are not split yet count with the mean."""
        split = self.jobs.total - self.jobs.unsplit
        mean = self.chunks / split if split and self.chunks else 1.0
        return self.chunks - self.chunks_done + self.jobs.unsplit * mean


class Pace:
    """The speed of a run over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Progress]] = deque()

    def record(self, seconds: float, progress: Progress) -> None:
        """Record a progress; `seconds` are those of a monotonic clock."""
        if self._seen and progress.jobs.done < self._seen[-1][1].jobs.done:
            self._seen.clear()  # a retry has reopened jobs
        self._seen.append((seconds, progress))
        while seconds - self._seen[0][0] > _WINDOW_SECONDS:
            self._seen.popleft()

    def documents_per_minute(self) -> float | None:
        """Return the documents done per minute; `None` after less than three seconds."""
        gained = [progress.jobs.documents_done for _, progress in self._seen]
        return self._per_second(gained, 60)

    def remaining(self) -> timedelta | None:
        """Return the estimated time for the remaining chunks; `None` while it is unknown."""
        speed = self._per_second([progress.chunks_done for _, progress in self._seen], 1)
        if not speed or self._seen[-1][1].is_taking_in:
            return None
        return timedelta(seconds=self._seen[-1][1].chunks_open / speed)

    def _per_second(self, counts: list[int], times: int) -> float | None:
        elapsed = self._seen[-1][0] - self._seen[0][0] if self._seen else 0.0
        if elapsed < _MIN_SECONDS:
            return None
        return times * (counts[-1] - counts[0]) / elapsed


def read(session: Session, run_id: uuid.UUID) -> Progress:
    """Return the progress of a run."""
    found = read_jobs(session, run_id)
    chunks, chunks_done = _chunks(session, run_id)
    calls = _calls(session, run_id, found.status)
    found = replace(found, chunks=chunks, chunks_done=chunks_done, calls=calls)
    if found.calls.failed and not found.is_over:
        return replace(found, last_error=_last_error(session, run_id))
    return found


def read_jobs(session: Session, run_id: uuid.UUID) -> Progress:
    """Return the progress without chunks and calls: summing a hundred thousand of them is slow."""
    run, is_interrupted = session.execute(
        select(Run, intakes.is_interrupted()).where(Run.id == run_id)
    ).one()
    return Progress(
        status=RunStatus(run.status),
        is_taking_in=run.intake_finished_at is None and not is_interrupted,
        is_interrupted=is_interrupted,
        jobs=_jobs(session, run),
        batches=of_run(session, run_id) if run.lane == Lane.BATCH else (),
    )


def _jobs(session: Session, run: Run) -> JobCounts:
    """Return the counts; each accepted intake has one job per analysis type.

    One statement counts everything, since an intake may add jobs meanwhile.
    """
    unfinished = (
        select(func.count().filter(Job.chunk_count.is_(None)).label("unsplit"))
        .where(Job.run_id == run.id, Job.status.in_(UNFINISHED_JOBS))
        .group_by(Job.intake_id)
        .cte()
    )
    of_unfinished = (func.count(), func.coalesce(func.sum(unfinished.c.unsplit), 0))
    counts = (select(each).select_from(unfinished).scalar_subquery() for each in of_unfinished)
    counted = select(Job.status, func.count(), *counts).where(Job.run_id == run.id)
    rows = session.execute(counted.group_by(Job.status)).all()
    states = Counter({row[0]: row[1] for row in rows})
    unfinished_documents, unsplit = rows[0][2:] if rows else (0, 0)
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
    """Return the numbers of all chunks and of those that have ended, from the jobs' counters."""
    left = func.sum(Job.open_chunks).filter(Job.status.in_(UNFINISHED_JOBS))
    counted = select(func.sum(Job.chunk_count), left)
    planned, open_ = session.execute(counted.where(Job.run_id == run_id)).one()
    return planned or 0, (planned or 0) - (open_ or 0)


def _calls(session: Session, run_id: uuid.UUID, status: RunStatus) -> CallCounts:
    """Return the sums; unfinished calls of a finished run may be billed, so they are unpriced."""
    call = calls_of(run_id)
    is_over = call.finished_at.is_not(None) | (status is not RunStatus.OPEN)
    tokens = func.coalesce(call.input_tokens, 0) + func.coalesce(call.output_tokens, 0)
    row = session.execute(
        select(
            func.count().label("total"),
            func.count().filter(~call.language_model).label("extractive"),
            func.coalesce(func.sum(tokens), 0).label("tokens"),
            func.sum(call.cost_usd).label("cost_usd"),
            func.count().filter(call.cost_usd.is_(None) & is_over).label("unpriced"),
            func.count().filter(call.error_code.is_not(None)).label("failed"),
        )
    ).one()
    cost_usd = row.cost_usd or Decimal(0)
    return copied(CallCounts, row, tokens=int(row.tokens), cost_usd=cost_usd)


def _last_error(session: Session, run_id: uuid.UUID) -> str:
    """Return the error message of the newest call that has ended; empty if it succeeded."""
    moved_at = session.scalar(select(func.max(Job.last_progress_at)).where(Job.run_id == run_id))
    if moved_at is None:
        return ""
    newest = (
        select(ModelCall.error_message)
        .join(Job, Job.id == ModelCall.job_id)
        .where(
            Job.run_id == run_id,
            ModelCall.finished_at.is_not(None),
            # Skip the later calls of other runs, which may be many if this run is idle.
            ModelCall.id < first_id(moved_at + _LATEST_CALL),
        )
        .order_by(ModelCall.id.desc())  # the primary key is in this order
        .limit(1)
    )
    return session.scalar(newest) or ""


# The maximum time from the last progress of a run's jobs to the start of a call.
_LATEST_CALL = timedelta(days=1)


# A question that follows an identical one waits for the batch of that one.
_WAITS = """
SELECT
    b.id AS batch_id, min(r.call ->> 'provider') AS provider, min(r.call ->> 'model') AS model,
    b.provider_id, coalesce(b.status, 'gathering') AS status, b.provider_status,
    count(*) AS questions, coalesce(b.request_count, 0) AS request_count, b.counts,
    coalesce(b.submitted_at, b.created_at, min(r.created_at)) AS since,
    min(j.batch_until) AS until, b.expires_at, b.poll_at AS next_poll_at, b.error_message AS error
FROM batch_requests AS r
INNER JOIN jobs AS j ON j.id = r.job_id
LEFT JOIN batch_requests AS leader
    ON r.status = :following AND leader.key = r.key AND leader.leads
LEFT JOIN batches AS b ON b.id = coalesce(leader.batch_id, r.batch_id)
WHERE j.run_id = :run_id AND j.status = ANY(:unfinished) AND r.status = ANY(:awaited)
GROUP BY b.id, r.model_name
ORDER BY since, b.id
"""
_NOT_DONE = ("total", "processing")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWait:
    """A batch that a run waits for; without a `batch_id`, questions that are not submitted yet.

    `questions` is the number of questions of the run, `request_count` that of all in the batch, and
    `done` the number of those that the provider reports as processed. `provider_id` is the
    provider's id of the batch, `since` the time of its submission; after `until`, unanswered
    questions are asked online. `error` is the reason why the last submission or poll failed.
    """

    batch_id: uuid.UUID | None
    provider: str
    model: str
    provider_id: str | None
    status: str
    provider_status: str | None
    questions: int
    request_count: int
    done: int
    since: datetime
    until: datetime | None
    expires_at: datetime | None
    next_poll_at: datetime | None = field(compare=False)
    error: str | None


def of_run(session: Session, run_id: uuid.UUID) -> Sequence[BatchWait]:
    """Return the batches that a run waits for, oldest first."""
    known = {
        "run_id": run_id,
        "following": BatchRequestStatus.FOLLOWING.value,
        "unfinished": [status.value for status in UNFINISHED_JOBS],
        "awaited": [status.value for status in AWAITED_REQUESTS],
    }
    rows = [dict(row) for row in session.execute(text(_WAITS), known).mappings()]
    return tuple(BatchWait(done=_done(row.pop("counts")), **row) for row in rows)


def _done(counts: Mapping[str, JsonValue] | None) -> int:
    """Return the number of processed questions from a provider's own counts."""
    return sum(
        number
        for name, number in (counts or {}).items()
        if name not in _NOT_DONE and isinstance(number, int)
    )
