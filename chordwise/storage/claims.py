"""Claims of steps under leases, and the ends of their attempts.

A step is a chunk, or a synthesis: that of a job whose chunks have all ended.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from sqlalchemy import TextClause, and_, case, exists, or_, select, text
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import ChunkStatus
from chordwise.errors import ChordwiseError, TransientError
from chordwise.storage import chunks, clock, learned_examples, leases, outbox
from chordwise.storage.chunks import Chunk, EndedChunk
from chordwise.storage.clock import LEASES_MAY_EXPIRE
from chordwise.storage.database import Store
from chordwise.storage.jobs import Job
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.postgresql import Lock
from chordwise.storage.record import update_rows

Work: TypeAlias = type[Chunk] | type[Job]
"""The table of the work: a chunk, or a job whose synthesis is meant."""
Claims: TypeAlias = Sequence[tuple[uuid.UUID, uuid.UUID]]
"""Pairs of the id of a chunk, or of a job to be synthesized, and the token to claim it with."""

_LAST_ATTEMPT_WAIT = timedelta(seconds=5)
"""How long a last attempt waits while another one is in progress."""


@dataclass(frozen=True, slots=True)
class ClaimedStep:
    """What each step has of its job and run.

    `options` is JSON text. The step `is_capped` if the budget of the run is limited.
    """

    job_id: uuid.UUID
    document_id: uuid.UUID
    analysis_type: str
    options: str
    examples: Sequence[JsonObject] | None
    model: str
    priority: str
    lane: str
    use_cache: bool
    is_capped: bool
    has_places: bool
    postponements: int
    attempts: int


@dataclass(frozen=True, slots=True)
class ClaimedChunk(ClaimedStep):
    """A chunk after an attempt to claim it.

    It is claimed if it is running with the `claim_token` of the attempt. `text` is that of the
    document if the chunk covers all of it, else null.
    """

    id: uuid.UUID
    claim_token: uuid.UUID
    start_char: int
    end_char: int
    chunk_count: int
    text: str | None
    status: str
    lease_token: uuid.UUID | None

    @property
    def is_claimed(self) -> bool:
        """Whether the attempt succeeded."""
        return self.lease_token == self.claim_token and self.status == ChunkStatus.RUNNING


@dataclass(frozen=True, slots=True)
class ClaimedSynthesis(ClaimedStep):
    """A job that is claimed for its synthesis, with its chunks."""

    parts: Sequence[EndedChunk]


_CLAIM = """claim AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS claim (id, token)
    )"""
_OF_JOB = f"""
    SELECT claim.token, j.id, j.document_id, j.analysis_type, CAST(j.options AS text),
        {learned_examples.OF_JOB}, j.model, r.priority, r.lane, r.use_cache, EXISTS (
            SELECT FROM budgets b WHERE b.scope = concat('run:', r.id) AND b.cap_usd IS NOT NULL
        ), d.places IS NOT NULL"""
_JOINED = """
    JOIN documents d ON d.id = j.document_id
    JOIN runs r ON r.id = j.run_id"""
# Repeated beside each join, so that the planner finds chunks by id whatever its statistics say.
_BY_ID = "c.id = ANY(CAST(:ids AS uuid[]))"
_SELECT_CHUNKS = f"""{_OF_JOB}, c.postponements, coalesce(claimed.attempts, c.attempts),
        c.id, claim.token, c.start_char, c.end_char, j.chunk_count,
        CASE WHEN c.start_char = 0 AND c.end_char = d.character_count THEN d.text END,
        coalesce(claimed.status, c.status), coalesce(claimed.lease_token, c.lease_token)
    FROM claim JOIN chunks c ON c.id = claim.id
    JOIN jobs j ON j.id = c.job_id{_JOINED}
    LEFT JOIN claimed ON claimed.id = c.id WHERE {_BY_ID}"""


def _claimable(chunk: str) -> str:
    return f"""(
    {chunk}.status = 'pending'
    OR {chunk}.status = 'waiting' AND {chunk}.due_at <= clock_timestamp()
    OR {chunk}.status = 'running' AND {chunk}.lease_until < clock_timestamp()
        AND {LEASES_MAY_EXPIRE}
)"""


_CHUNK_WAITS = """EXISTS (
    SELECT FROM chunks c JOIN jobs j ON j.id = c.job_id
    WHERE c.id = outbox.id AND c.id = ANY(CAST(:ids AS uuid[]))
        AND c.status IN ('pending', 'waiting') AND j.status IN ('running', 'waiting')
)"""
_CLAIM_CHUNKS = text(f"""
    WITH {_CLAIM}, marked AS (
        UPDATE jobs SET status = 'running', due_at = NULL,
            error_code = NULL, error_message = NULL, hint = NULL
        WHERE status = 'waiting' AND id IN (
            SELECT c.job_id FROM chunks c WHERE {_BY_ID} AND {_claimable("c")}
        )
        RETURNING id
    ), free AS (
        SELECT c.id, claim.token
        FROM claim JOIN chunks c ON c.id = claim.id
        JOIN jobs j ON j.id = c.job_id
        JOIN runs r ON r.id = j.run_id
        WHERE (SELECT count(*) >= 0 FROM marked)  -- the jobs first, as everywhere
            AND {_BY_ID} AND {_claimable("c")} AND c.attempts < :below
            AND j.status IN ('running', 'waiting') AND r.status <> 'cancelled'
        ORDER BY c.id
        FOR NO KEY UPDATE OF c
    ), claimed AS (
        UPDATE chunks c SET status = 'running', attempts = c.attempts + 1, due_at = NULL,
            lease_token = free.token, lease_until = clock_timestamp() + :lease,
            started_at = clock_timestamp()
        FROM free WHERE c.id = free.id AND {_BY_ID}
        RETURNING c.id, c.status, c.attempts, c.lease_token
    ), removed AS ({outbox.removal(_CHUNK_WAITS)})
    {_SELECT_CHUNKS}""")
_FIND_CHUNKS = text(f"""
    WITH {_CLAIM}, claimed AS (SELECT * FROM chunks WHERE false)
    {_SELECT_CHUNKS}""")


def claim_chunks(
    store: Store, claims: Claims, lease: timedelta, below: int
) -> dict[uuid.UUID, ClaimedChunk]:
    """Claim chunks, and count the attempts; return the chunks that exist, by token.

    A chunk is not claimed if it has ended, is not due or is leased, or if it has been attempted
    `below` times. A claim that was already made with its token remains valid.
    """
    rows = store.execute(_CLAIM_CHUNKS, {**_arrays_of(claims), "lease": lease, "below": below})
    return {token: ClaimedChunk(*columns) for token, *columns in rows}


def find_chunks(store: Store, claims: Claims) -> dict[uuid.UUID, ClaimedChunk]:
    """Return the current state of chunks, by the tokens of the attempts to claim them."""
    rows = store.execute(_FIND_CHUNKS, _arrays_of(claims))
    return {token: ClaimedChunk(*columns) for token, *columns in rows}


def _arrays_of(claims: Claims) -> dict[str, object]:
    return {"ids": [pair[0] for pair in claims], "tokens": [pair[1] for pair in claims]}


def claim_chunk(
    session: Session, chunk_id: uuid.UUID, token: uuid.UUID, lease: timedelta, max_attempts: int
) -> ClaimedChunk | None:
    """Claim a chunk, including for its last attempt; its job row is locked.

    If another last attempt is in progress, the chunk is not claimed, and its message is deferred.
    """
    claims = [(chunk_id, token)]
    chunk = find_chunks(session, claims).get(token)
    if chunk is None or chunk.is_claimed:
        return chunk
    if may_claim(session, chunk_id, chunk.attempts, max_attempts):
        return claim_chunks(session, claims, lease, max_attempts).get(token)
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


_SELECT_SYNTHESES = f"""{_OF_JOB}, j.postponements, j.attempts, (
            SELECT json_agg(part ORDER BY position)
            FROM (SELECT {", ".join(chunks.COLUMNS)} FROM chunks WHERE job_id = j.id) AS part
        )
    FROM claim JOIN claimed j ON j.id = claim.id{_JOINED}"""
_SYNTHESIS_WAITS = """EXISTS (
    SELECT FROM jobs j WHERE j.id = outbox.id AND j.id = ANY(CAST(:ids AS uuid[]))
        AND j.status IN ('queued', 'running', 'waiting')
)"""
_CLAIM_SYNTHESES = text(f"""
    WITH {_CLAIM}, free AS (
        SELECT j.id, claim.token
        FROM claim JOIN jobs j ON j.id = claim.id JOIN runs r ON r.id = j.run_id
        WHERE j.id = ANY(CAST(:ids AS uuid[])) AND r.status <> 'cancelled'
            AND j.attempts < :below AND j.chunk_count IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM chunks c
                WHERE c.job_id = j.id AND c.job_id = ANY(CAST(:ids AS uuid[]))
                    AND c.status IN ('pending', 'running', 'waiting')
            )
            AND (
                j.status = 'running'
                OR j.status = 'waiting' AND (j.due_at IS NULL OR j.due_at <= clock_timestamp())
                OR j.status = 'synthesizing' AND j.lease_until < clock_timestamp()
                    AND {LEASES_MAY_EXPIRE}
            )
        ORDER BY j.id
        FOR NO KEY UPDATE OF j
    ), claimed AS (
        UPDATE jobs j SET status = 'synthesizing', attempts = j.attempts + 1,
            lease_token = free.token, lease_until = clock_timestamp() + :lease,
            last_progress_at = clock_timestamp()
        FROM free WHERE j.id = free.id AND j.id = ANY(CAST(:ids AS uuid[]))
        RETURNING j.*
    ), removed AS ({outbox.removal(_SYNTHESIS_WAITS)})
    {_SELECT_SYNTHESES}""")
_FIND_SYNTHESES = text(f"""
    WITH {_CLAIM}, claimed AS (
        SELECT j.* FROM claim JOIN jobs j ON j.id = claim.id AND j.lease_token = claim.token
        WHERE j.status = 'synthesizing'
    )
    {_SELECT_SYNTHESES}""")


def claim_syntheses(
    store: Store, claims: Claims, lease: timedelta, below: int
) -> Mapping[uuid.UUID, ClaimedSynthesis]:
    """Claim the syntheses of jobs, and count the attempts; return the claimed ones by token.

    A job is not claimed while chunks are open, after its end, while another lease is valid, if the
    run is cancelled, or if its synthesis has been attempted `below` times.
    """
    parameters = {**_arrays_of(claims), "lease": lease, "below": below}
    return _syntheses(store, _CLAIM_SYNTHESES, parameters)


def find_synthesis(store: Store, job_id: uuid.UUID, token: uuid.UUID) -> ClaimedSynthesis | None:
    """Return a job if its synthesis is claimed with this token, else `None`."""
    return _syntheses(store, _FIND_SYNTHESES, _arrays_of([(job_id, token)])).get(token)


def _syntheses(
    store: Store, statement: TextClause, parameters: Mapping[str, object]
) -> Mapping[uuid.UUID, ClaimedSynthesis]:
    syntheses = {}
    for token, *columns, parts in store.execute(statement, parameters):
        columns.append([EndedChunk(**part) for part in parts or ()])
        syntheses[token] = ClaimedSynthesis(*columns)
    return syntheses


def postpone(
    session: Session,
    table: Work,
    id_: uuid.UUID,
    token: uuid.UUID,
    delay: timedelta,
    error: ChordwiseError,
) -> bool:
    """Postpone work until a due time; the attempt does not count. False if the lease is lost.

    The postponement counts unless `error.is_throttling`: the work then only waits for its turn.
    """
    is_throttling = isinstance(error, TransientError) and error.is_throttling
    return update_rows(
        session,
        table,
        table.is_held(id_, token),
        status=ChunkStatus.WAITING,  # the same word for jobs
        due_at=clock.now_plus(delay),
        attempts=table.attempts - 1,
        postponements=table.postponements + int(not is_throttling),
        error_code=error.code,
        error_message=error.what,
        hint=error.hint or None,
        lease_until=None,
        finished_at=None,
    )


def abandon(session: Session, table: Work, id_: uuid.UUID, token: uuid.UUID) -> bool:
    """Release work that could not be finished; the attempt counts if a model was called.

    Otherwise a database that fails after each answer would cause unlimited paid calls.
    """
    if table is Chunk:
        of_work = (ModelCall.chunk_id == Chunk.id) & (ModelCall.started_at >= Chunk.started_at)
    else:
        of_synthesis = (ModelCall.job_id == Job.id) & ModelCall.chunk_id.is_(None)
        of_work = of_synthesis & (ModelCall.started_at >= Job.last_progress_at)
    attempts = case((exists().where(of_work), table.attempts), else_=table.attempts - 1)
    return leases.release(session, table, id_, token, attempts)


def is_last(attempts: int, max_attempts: int) -> bool:
    """Return whether the next attempt is the last one; a first attempt never is."""
    return attempts >= attempts_before_last(max_attempts)


def attempts_before_last(max_attempts: int) -> int:
    """Return the number of attempts after which the next one is the last; at least one."""
    return max(1, max_attempts - 1)


def may_claim(session: Session, id_: uuid.UUID, attempts: int, max_attempts: int) -> bool:
    """Return whether work with this number of attempts may be claimed now.

    For a last attempt, a lock prevents other last attempts until the transaction ends; while one is
    in progress, the message of this work is deferred.
    """
    if not is_last(attempts, max_attempts):
        return True
    session.execute(text(Lock.LAST_ATTEMPT.statement()))
    last, now = max(2, max_attempts), clock.database_now()
    in_progress = [
        exists().where(work.is_at_work(), work.attempts >= last, work.lease_until > now)
        for work in (Job, Chunk)
    ]
    if not session.scalar(select(or_(*in_progress))):
        return True
    outbox.defer(session, [id_], _LAST_ATTEMPT_WAIT)
    return False
