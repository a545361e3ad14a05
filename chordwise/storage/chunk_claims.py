"""Claims of chunks under leases, and the end of chunks whose workers are lost too often."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from sqlalchemy import and_, text
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import ChunkStatus
from chordwise.storage import attempts, clock, learned_examples, outbox
from chordwise.storage.chunks import Chunk
from chordwise.storage.clock import LEASES_MAY_EXPIRE
from chordwise.storage.database import Store
from chordwise.storage.record import update_rows


@dataclass(frozen=True, slots=True)
class ClaimedChunk:
    """A chunk after an attempt to claim it, with its job, document and run.

    The chunk is claimed if it is running with the `claim_token` of the attempt. `options` is JSON
    text. `text` is that of the document if the chunk covers all of it, else null.
    """

    id: uuid.UUID
    claim_token: uuid.UUID
    job_id: uuid.UUID
    postponements: int
    start_char: int
    end_char: int
    chunk_count: int
    character_count: int
    analysis_type: str
    options: str
    examples: Sequence[JsonObject] | None
    model: str
    document_id: uuid.UUID
    text: str | None
    has_places: bool
    priority: str
    lane: str
    use_cache: bool
    is_capped: bool
    status: str
    attempts: int
    lease_token: uuid.UUID | None

    @property
    def is_claimed(self) -> bool:
        """Whether the attempt succeeded."""
        return self.lease_token == self.claim_token and self.status == ChunkStatus.RUNNING


WANTED = """wanted AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS wanted (id, token)
    )"""
"""The SQL for claims as a table."""
IS_CAPPED = """EXISTS (
        SELECT FROM budgets b WHERE b.scope = concat('run:', r.id) AND b.cap_usd IS NOT NULL
    )"""
"""The SQL for whether the budget of a run `r` is limited."""
_SELECT = f"""
    SELECT c.id, wanted.token, c.job_id, c.postponements, c.start_char, c.end_char,
        j.chunk_count, d.character_count, j.analysis_type, CAST(j.options AS text),
        {learned_examples.OF_JOB}, j.model, j.document_id,
        CASE WHEN c.start_char = 0 AND c.end_char = d.character_count THEN d.text END,
        d.places IS NOT NULL, r.priority, r.lane, r.use_cache, {IS_CAPPED},"""
_FROM_WANTED = """
    FROM wanted JOIN chunks c ON c.id = wanted.id
    JOIN jobs j ON j.id = c.job_id
    JOIN documents d ON d.id = j.document_id
    JOIN runs r ON r.id = j.run_id"""
# Repeated beside each join, so that the planner finds chunks by id whatever its statistics say.
_NAMED = "c.id = ANY(CAST(:ids AS uuid[]))"


def _claimable(chunk: str) -> str:
    return f"""(
    {chunk}.status = 'pending'
    OR {chunk}.status = 'waiting' AND {chunk}.due_at <= clock_timestamp()
    OR {chunk}.status = 'running' AND {chunk}.lease_until < clock_timestamp()
        AND {LEASES_MAY_EXPIRE}
)"""


_WAITS = """EXISTS (
    SELECT FROM chunks c JOIN jobs j ON j.id = c.job_id
    WHERE c.id = outbox.id AND c.id = ANY(CAST(:ids AS uuid[]))
        AND c.status IN ('pending', 'waiting') AND j.status IN ('running', 'waiting')
)"""
_CLAIM = text(f"""
    WITH {WANTED}, marked AS (
        UPDATE jobs SET status = 'running', due_at = NULL,
            error_code = NULL, error_message = NULL, hint = NULL
        WHERE status = 'waiting' AND id IN (
            SELECT c.job_id FROM chunks c WHERE {_NAMED} AND {_claimable("c")}
        )
        RETURNING id
    ), free AS (
        SELECT c.id, wanted.token
        FROM wanted JOIN chunks c ON c.id = wanted.id
        JOIN jobs j ON j.id = c.job_id
        JOIN runs r ON r.id = j.run_id
        WHERE (SELECT count(*) >= 0 FROM marked)  -- the jobs first, as everywhere
            AND {_NAMED} AND {_claimable("c")} AND c.attempts < :below
            AND j.status IN ('running', 'waiting') AND r.status <> 'cancelled'
        ORDER BY c.id
        FOR NO KEY UPDATE OF c
    ), claimed AS (
        UPDATE chunks c SET status = 'running', attempts = c.attempts + 1, due_at = NULL,
            lease_token = free.token, lease_until = clock_timestamp() + :lease,
            started_at = clock_timestamp()
        FROM free WHERE c.id = free.id AND {_NAMED}
        RETURNING c.id, c.status, c.attempts, c.lease_token
    ), removed AS ({outbox.removal(_WAITS)})
    {_SELECT}
        coalesce(claimed.status, c.status), coalesce(claimed.attempts, c.attempts),
        coalesce(claimed.lease_token, c.lease_token)
    {_FROM_WANTED} LEFT JOIN claimed ON claimed.id = c.id WHERE {_NAMED}""")
_FIND = text(f"""
    WITH {WANTED}
    {_SELECT} c.status, c.attempts, c.lease_token {_FROM_WANTED} WHERE {_NAMED}""")


Claims: TypeAlias = Sequence[tuple[uuid.UUID, uuid.UUID]]
"""Pairs of the id of a chunk, or of a job to be synthesized, and the token to claim it with."""


def claim_all(
    store: Store, claims: Claims, lease: timedelta, below: int
) -> dict[uuid.UUID, ClaimedChunk]:
    """Claim chunks by pairs of id and token; return the chunks that exist, by token.

    A chunk is not claimed if it has ended, is not due or is leased, or if it has been attempted
    `below` times. A claim that was already made with its token remains valid.
    """
    parameters = {**arrays_of(claims), "lease": lease, "below": below}
    return {row[1]: ClaimedChunk(*row) for row in store.execute(_CLAIM, parameters)}


def find_claimed(store: Store, claims: Claims) -> dict[uuid.UUID, ClaimedChunk]:
    """Return the current state of chunks, by the tokens of the attempts to claim them."""
    return {row[1]: ClaimedChunk(*row) for row in store.execute(_FIND, arrays_of(claims))}


def arrays_of(claims: Claims) -> dict[str, object]:
    """Return claims as the parameters of a statement."""
    return {"ids": [pair[0] for pair in claims], "tokens": [pair[1] for pair in claims]}


def claim(
    session: Session, chunk_id: uuid.UUID, token: uuid.UUID, lease: timedelta, max_attempts: int
) -> ClaimedChunk | None:
    """Claim a chunk as `claim_all` does, including for its last attempt; its job row is locked.

    If another last attempt is in progress, the chunk is not claimed, and its message is deferred.
    """
    claims = [(chunk_id, token)]
    chunk = find_claimed(session, claims).get(token)
    if chunk is None or chunk.is_claimed:
        return chunk
    if attempts.may_claim(session, chunk.attempts, max_attempts):
        return claim_all(session, claims, lease, max_attempts).get(token)
    outbox.defer(session, [chunk_id], attempts.LAST_ATTEMPT_WAIT)
    return chunk


def quarantine(session: Session, chunk_id: uuid.UUID, attempts: int) -> bool:
    """Quarantine a chunk whose worker was lost too often; false if it is claimed or ended."""
    return update_rows(
        session,
        Chunk,
        and_(Chunk.id == chunk_id, Chunk.attempts >= attempts, text(_claimable("chunks"))),
        status=ChunkStatus.QUARANTINED,
        lease_token=None,
        lease_until=None,
        finished_at=clock.database_now(),
        error_code="worker_lost",
        error_message=f"The worker was lost {attempts} times while it processed this chunk.",
        hint="Look at the worker's log; `chordwise continue RUN` tries again.",
    )
