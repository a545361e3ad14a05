"""What a run waits for in the batch lane: its batches, how they stand, and until when."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonValue
from chordwise.domain.lanes import AWAITED_REQUESTS, BatchRequestStatus
from chordwise.domain.states import UNFINISHED_JOBS

# A question that follows another waits for the batch of that one.
_WAITS = """
SELECT
    b.id AS batch_id, min(r.call ->> 'provider') AS provider, min(r.call ->> 'model') AS model,
    b.provider_id, coalesce(b.status, 'gathering') AS status, b.provider_status,
    count(*) AS questions, coalesce(b.request_count, 0) AS request_count, b.counts,
    coalesce(b.submitted_at, b.created_at, min(r.created_at)) AS since,
    min(j.batch_until) AS until, b.expires_at, b.poll_at AS next_look_at, b.error_message AS error
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
    """A batch that a run waits for; without a `batch_id`, questions that are still gathered.

    `questions` are those of the run, `request_count` all in the batch, and `done` those of them
    that the provider has dealt with, as far as it says. `provider_id` is its name of the batch,
    `since` when it was handed in, and after `until` what has no answer is asked online. `error` is
    why it could not be handed in or looked at the last time.
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
    next_look_at: datetime | None = field(compare=False)
    error: str | None


def of_run(session: Session, run_id: uuid.UUID) -> Sequence[BatchWait]:
    """Return what a run waits for, the oldest first; nothing where it waits for no batch."""
    known = {
        "run_id": run_id,
        "following": BatchRequestStatus.FOLLOWING.value,
        "unfinished": [status.value for status in UNFINISHED_JOBS],
        "awaited": [status.value for status in AWAITED_REQUESTS],
    }
    rows = [dict(row) for row in session.execute(text(_WAITS), known).mappings()]
    return tuple(BatchWait(done=_done(row.pop("counts")), **row) for row in rows)


def _done(counts: Mapping[str, JsonValue] | None) -> int:
    """Return how many questions a provider has dealt with, in whichever words it counts."""
    return sum(
        number
        for name, number in (counts or {}).items()
        if name not in _NOT_DONE and isinstance(number, int)
    )
