"""The progress of a run and an estimate of its remaining time, for commands that wait."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from psycopg import Connection

from chordwise.domain.identifiers import first_id
from chordwise.domain.states import (
    AWAITED_REQUESTS,
    UNFINISHED_JOBS,
    BatchRequestStatus,
    JobStatus,
    Lane,
    RunStatus,
)
from chordwise.relations.relation import Relation, rows

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


def read(connection: Connection, run_id: uuid.UUID) -> Progress:
    """Return the progress of a run."""
    progress = read_jobs(connection, run_id)
    chunks = _CHUNKS.one(connection, {"run_id": run_id, "unfinished": _UNFINISHED})
    is_over = progress.status is not RunStatus.OPEN
    calls = rows(connection, _CALLS, {"run_id": run_id, "is_over": is_over})[0]
    progress = replace(
        progress,
        chunks=chunks["planned"],
        chunks_done=chunks["planned"] - chunks["left"],
        calls=CallCounts(**calls),
    )
    if progress.calls.failed and not progress.is_over:
        return replace(progress, last_error=_last_error(connection, run_id))
    return progress


def read_jobs(connection: Connection, run_id: uuid.UUID) -> Progress:
    """Return the progress without chunks and calls: summing a hundred thousand of them is slow."""
    run = _RUN.one(connection, {"run_id": run_id})
    return Progress(
        status=RunStatus(run["status"]),
        is_taking_in=run["is_taking_in"],
        is_interrupted=run["is_interrupted"],
        jobs=_jobs(connection, run_id, run["type_count"]),
        batches=of_run(connection, run_id) if run["lane"] == Lane.BATCH else (),
    )


_UNFINISHED = [status.value for status in UNFINISHED_JOBS]
_RUN = Relation(
    query=f"""SELECT status, lane, type_count, is_interrupted,
    intake_finished_at IS NULL AND NOT is_interrupted AS is_taking_in
FROM (
    SELECT *,
        intake_finished_at IS NULL AND status <> '{RunStatus.CANCELLED}'
        AND (lease_until IS NULL OR lease_until <= clock_timestamp())
        AND NOT EXISTS (
            SELECT FROM listed_files WHERE run_id = runs.id AND status <> 'listed'
        ) AS is_interrupted
    FROM runs
) AS run""",
    filters={"run_id": "id = %(run_id)s"},
)
# One statement counts everything, since an intake may add jobs meanwhile.
_JOBS = """
WITH unfinished AS (
    SELECT count(*) FILTER (WHERE chunk_count IS NULL) AS unsplit
    FROM jobs WHERE run_id = %(run_id)s AND status = ANY(%(unfinished)s)
    GROUP BY intake_id
)
SELECT
    status, count(*) AS jobs,
    (SELECT count(*) FROM unfinished) AS unfinished_documents,
    (SELECT coalesce(sum(unsplit), 0)::integer FROM unfinished) AS unsplit
FROM jobs WHERE run_id = %(run_id)s
GROUP BY status
"""


def _jobs(connection: Connection, run_id: uuid.UUID, type_count: int) -> JobCounts:
    """Return the counts; each accepted intake has one job per analysis type."""
    counts = rows(connection, _JOBS, {"run_id": run_id, "unfinished": _UNFINISHED})
    states = Counter({row["status"]: row["jobs"] for row in counts})
    documents = -(-states.total() // type_count)
    return JobCounts(
        documents=documents,
        documents_done=documents - (counts[0]["unfinished_documents"] if counts else 0),
        total=states.total(),
        done=states.total() - sum(states[status] for status in UNFINISHED_JOBS),
        succeeded=states[JobStatus.SUCCEEDED],
        paused=states[JobStatus.PAUSED],
        waiting=states[JobStatus.WAITING],
        unsplit=counts[0]["unsplit"] if counts else 0,
    )


# Of all chunks and of those that have not ended, from the counters of the jobs.
_CHUNKS = Relation(
    query="""SELECT
    coalesce(sum(chunk_count), 0)::integer AS planned,
    coalesce(sum(open_chunks) FILTER (WHERE status = ANY(%(unfinished)s)), 0)::integer AS left
FROM jobs""",
    filters={"run_id": "run_id = %(run_id)s"},
)
# Unfinished calls of a finished run may be billed, so they are unpriced.
_CALLS = """
SELECT
    count(*) AS total,
    count(*) FILTER (WHERE NOT language_model) AS extractive,
    coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0)::bigint AS tokens,
    coalesce(sum(cost_usd), 0) AS cost_usd,
    count(*) FILTER (
        WHERE cost_usd IS NULL AND (finished_at IS NOT NULL OR %(is_over)s)
    ) AS unpriced,
    count(*) FILTER (WHERE error_code IS NOT NULL) AS failed
FROM (
    SELECT c.* FROM model_calls AS c INNER JOIN jobs AS j ON j.id = c.job_id
    WHERE j.run_id = %(run_id)s
    UNION ALL
    SELECT * FROM model_calls WHERE run_id = %(run_id)s
) AS calls
"""
# The error of the newest call that has ended: the primary key is in this order. The later calls of
# other runs are skipped, which may be many if this run is idle.
_LAST_ERROR = """
SELECT coalesce(c.error_message, '') AS message
FROM model_calls AS c INNER JOIN jobs AS j ON j.id = c.job_id
WHERE j.run_id = %(run_id)s AND c.finished_at IS NOT NULL AND c.id < %(until)s
ORDER BY c.id DESC LIMIT 1
"""
_MOVED_AT = "SELECT max(last_progress_at) AS moved_at FROM jobs WHERE run_id = %(run_id)s"
# The maximum time from the last progress of a run's jobs to the start of a call.
_LATEST_CALL = timedelta(days=1)


def _last_error(connection: Connection, run_id: uuid.UUID) -> str:
    moved_at = rows(connection, _MOVED_AT, {"run_id": run_id})[0]["moved_at"]
    if moved_at is None:
        return ""
    until = first_id(moved_at + _LATEST_CALL)
    newest = rows(connection, _LAST_ERROR, {"run_id": run_id, "until": until})
    return str(newest[0]["message"]) if newest else ""


# A question that follows an identical one waits for the batch of that one.
_WAITS = """
SELECT
    b.id AS batch_id, min(r.call ->> 'provider') AS provider, min(r.call ->> 'model') AS model,
    b.provider_id, coalesce(b.status, 'gathering') AS status, b.provider_status,
    count(*) AS questions, coalesce(b.request_count, 0) AS request_count, (
        SELECT coalesce(sum(value::int), 0)::int FROM jsonb_each(b.counts)
        WHERE key NOT IN ('total', 'processing') AND jsonb_typeof(value) = 'number'
    ) AS done,
    coalesce(b.submitted_at, b.created_at, min(r.created_at)) AS since,
    min(j.batch_until) AS until, b.expires_at, b.poll_at AS next_poll_at, b.error_message AS error
FROM batch_requests AS r
INNER JOIN jobs AS j ON j.id = r.job_id
LEFT JOIN batch_requests AS leader
    ON r.status = %(following)s AND leader.key = r.key AND leader.leads
LEFT JOIN batches AS b ON b.id = coalesce(leader.batch_id, r.batch_id)
WHERE j.run_id = %(run_id)s AND j.status = ANY(%(unfinished)s) AND r.status = ANY(%(awaited)s)
GROUP BY b.id, r.model_name
ORDER BY since, b.id
"""


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


def of_run(connection: Connection, run_id: uuid.UUID) -> Sequence[BatchWait]:
    """Return the batches that a run waits for, oldest first."""
    values = {
        "run_id": run_id,
        "following": BatchRequestStatus.FOLLOWING.value,
        "unfinished": _UNFINISHED,
        "awaited": [status.value for status in AWAITED_REQUESTS],
    }
    return tuple(BatchWait(**wait) for wait in rows(connection, _WAITS, values))
