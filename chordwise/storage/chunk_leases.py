"""Leases on chunks: acquired with a claim, extended by heartbeats, released, or taken over."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from sqlalchemy import ColumnElement, and_, case, exists, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import ChunkStatus, JobStatus
from chordwise.errors import TransientError
from chordwise.storage import clock, learned_examples
from chordwise.storage.chunks import Chunk, held, leave
from chordwise.storage.clock import LEASES_MAY_EXPIRE
from chordwise.storage.database import Store
from chordwise.storage.jobs import Job
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.postgresql import Lock


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
    )
    {_SELECT}
        coalesce(claimed.status, c.status), coalesce(claimed.attempts, c.attempts),
        coalesce(claimed.lease_token, c.lease_token)
    {_FROM_WANTED} LEFT JOIN claimed ON claimed.id = c.id WHERE {_NAMED}""")  # noqa: S608 - fixed names
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
    named = {**arrays_of(claims), "lease": lease, "below": below}
    return {row[1]: ClaimedChunk(*row) for row in store.execute(_CLAIM, named)}


def find_claimed(store: Store, claims: Claims) -> dict[uuid.UUID, ClaimedChunk]:
    """Return the current state of chunks, by the tokens of the attempts to claim them."""
    return {row[1]: ClaimedChunk(*row) for row in store.execute(_FIND, arrays_of(claims))}


def arrays_of(claims: Claims) -> dict[str, object]:
    """Return claims as the parameters of a statement."""
    return {"ids": [each[0] for each in claims], "tokens": [each[1] for each in claims]}


def claim(
    session: Session, chunk_id: uuid.UUID, token: uuid.UUID, lease: timedelta, max_attempts: int
) -> ClaimedChunk | None:
    """Claim a chunk as `claim_all` does, including for its last attempt; its job row is locked.

    If another last attempt is in progress, the chunk is not claimed. `sent_at` is then cleared,
    since the message has been consumed.
    """
    claims = [(chunk_id, token)]
    found = find_claimed(session, claims).get(token)
    if found is None or found.is_claimed:
        return found
    if may_claim(session, found.attempts, max_attempts):
        return claim_all(session, claims, lease, max_attempts).get(token)
    is_pending = and_(Chunk.id == chunk_id, Chunk.status == ChunkStatus.PENDING)
    session.execute(update(Chunk).where(is_pending).values(sent_at=None))
    return found


def extend(session: Session, tokens: Collection[uuid.UUID], lease: timedelta) -> set[uuid.UUID]:
    """Extend leases; return the tokens of those that were still held.

    The chunks are locked in the order of their ids, as in `chunks.end_all`.
    """
    is_held = and_(Chunk.lease_token.in_(tokens), Chunk.status == ChunkStatus.RUNNING)
    held = select(Chunk.id).where(is_held).order_by(Chunk.id).with_for_update(key_share=True)
    statement = (
        update(Chunk)
        .where(Chunk.id.in_(held), is_held)
        .values(lease_until=clock.now_plus(lease))
        .returning(Chunk.lease_token)
    )
    return {token for token in session.scalars(statement) if token is not None}


def postpone(
    session: Session, chunk_id: uuid.UUID, token: uuid.UUID, delay: timedelta, error: TransientError
) -> bool:
    """Postpone a chunk until a due time; the attempt does not count.

    The postponement counts unless `error.is_throttling`: the chunk then only waits for its turn.
    """
    return leave(
        session,
        held(chunk_id, token),
        status=ChunkStatus.WAITING,
        due_at=clock.now_plus(delay),
        attempts=Chunk.attempts - 1,
        postponements=Chunk.postponements + int(not error.is_throttling),
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
        finished_at=None,
    )


def release(session: Session, chunk_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Release an unfinished chunk; the attempt does not count."""
    return _release(session, chunk_id, token, Chunk.attempts - 1)


def abandon(session: Session, chunk_id: uuid.UUID, token: uuid.UUID) -> bool:
    """Release a chunk that could not be finished; the attempt counts if a model was called.

    Otherwise a database that fails after each answer would cause unlimited paid calls.
    """
    asked = exists().where(ModelCall.chunk_id == Chunk.id, ModelCall.started_at >= Chunk.started_at)
    attempts = case((asked, Chunk.attempts), else_=Chunk.attempts - 1)
    return _release(session, chunk_id, token, attempts)


def _release(
    session: Session, chunk_id: uuid.UUID, token: uuid.UUID, attempts: ColumnElement[int]
) -> bool:
    status = ChunkStatus.PENDING
    unleased = {"lease_token": None, "finished_at": None}
    return leave(session, held(chunk_id, token), status=status, attempts=attempts, **unleased)


def quarantine(session: Session, chunk_id: uuid.UUID, attempts: int) -> bool:
    """Quarantine a chunk whose worker was lost too often; false if it is claimed or ended."""
    return leave(
        session,
        and_(Chunk.id == chunk_id, Chunk.attempts >= attempts, text(_claimable("chunks"))),
        status=ChunkStatus.QUARANTINED,
        lease_token=None,
        error_code="worker_lost",
        error_message=f"The worker was lost {attempts} times while it processed this chunk.",
        hint="Look at the worker's log; `chordwise continue RUN` tries again.",
    )


def is_last(attempts: int, max_attempts: int) -> bool:
    """Return whether the next attempt is the last one; a first attempt never is."""
    return attempts >= attempts_before_last(max_attempts)


def attempts_before_last(max_attempts: int) -> int:
    """Return the number of attempts after which the next one is the last; at least one."""
    return max(1, max_attempts - 1)


def may_claim(session: Session, attempts: int, max_attempts: int) -> bool:
    """Return whether work with this number of attempts may be claimed now.

    For a last attempt, a lock prevents other last attempts until the transaction ends.
    """
    if not is_last(attempts, max_attempts):
        return True
    session.execute(text(Lock.LAST_ATTEMPT.statement()))
    return not session.scalar(select(is_last_attempt_running(max_attempts)))


def is_last_attempt_running(max_attempts: int) -> ColumnElement[bool]:
    """Return the condition that a last attempt is in progress under a valid lease."""
    chunk, job = aliased(Chunk), aliased(Job)
    last = max(2, max_attempts)
    now = clock.database_now()
    return or_(
        exists().where(
            chunk.status == ChunkStatus.RUNNING, chunk.attempts >= last, chunk.lease_until > now
        ),
        exists().where(
            job.status == JobStatus.SYNTHESIZING, job.attempts >= last, job.lease_until > now
        ),
    )
