"""Claims of syntheses: jobs whose chunks have all ended, each claimed under a lease."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import TextClause, text

from chordwise.domain.json_values import JsonObject
from chordwise.storage import chunks, learned_examples, outbox
from chordwise.storage.chunk_claims import IS_CAPPED, WANTED, Claims, arrays_of
from chordwise.storage.chunks import EndedChunk
from chordwise.storage.clock import LEASES_MAY_EXPIRE
from chordwise.storage.database import Store


@dataclass(frozen=True, slots=True)
class ClaimedSynthesis:
    """A job that is claimed for its synthesis, with data of its run and document, and its chunks.

    `options` is JSON text. The job `is_capped` if the budget of its run is limited.
    """

    parts: Sequence[EndedChunk]
    job_id: uuid.UUID
    document_id: uuid.UUID
    analysis_type: str
    options: str
    examples: Sequence[JsonObject] | None
    model: str
    attempts: int
    postponements: int
    priority: str
    lane: str
    use_cache: bool
    is_capped: bool
    has_places: bool


_SELECT = f"""
    SELECT wanted.token, j.id, j.document_id, j.analysis_type, CAST(j.options AS text),
        {learned_examples.OF_JOB}, j.model, j.attempts, j.postponements, r.priority, r.lane,
        r.use_cache, {IS_CAPPED},
        EXISTS (SELECT FROM documents d WHERE d.id = j.document_id AND d.places IS NOT NULL), (
            SELECT json_agg(part ORDER BY position)
            FROM (SELECT {", ".join(chunks.COLUMNS)} FROM chunks WHERE job_id = j.id) AS part
        )"""
_WAITS = """EXISTS (
    SELECT FROM jobs j WHERE j.id = outbox.id AND j.id = ANY(CAST(:ids AS uuid[]))
        AND j.status IN ('queued', 'running', 'waiting')
)"""
_CLAIM = text(f"""
    WITH {WANTED}, free AS (
        SELECT j.id, wanted.token
        FROM wanted JOIN jobs j ON j.id = wanted.id JOIN runs r ON r.id = j.run_id
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
    ), removed AS ({outbox.removal(_WAITS)})
    {_SELECT} FROM wanted JOIN claimed j ON j.id = wanted.id
    JOIN runs r ON r.id = j.run_id""")
_FIND = text(f"""
    WITH {WANTED}
    {_SELECT} FROM wanted JOIN jobs j ON j.id = wanted.id AND j.lease_token = wanted.token
    JOIN runs r ON r.id = j.run_id WHERE j.status = 'synthesizing'""")


def claim_all(
    store: Store, claims: Claims, lease: timedelta, below: int
) -> Mapping[uuid.UUID, ClaimedSynthesis]:
    """Claim the syntheses of jobs, and count the attempts; return the claimed ones by token.

    A job is not claimed while chunks are open, after its end, while another lease is valid, if the
    run is cancelled, or if its synthesis has been attempted `below` times.
    """
    parameters = {**arrays_of(claims), "lease": lease, "below": below}
    return _by_token(store, _CLAIM, parameters)


def find_claimed(store: Store, job_id: uuid.UUID, token: uuid.UUID) -> ClaimedSynthesis | None:
    """Return a job if its synthesis is claimed with this token, else `None`."""
    return _by_token(store, _FIND, arrays_of([(job_id, token)])).get(token)


def _by_token(
    store: Store, statement: TextClause, parameters: Mapping[str, object]
) -> Mapping[uuid.UUID, ClaimedSynthesis]:
    syntheses = {}
    for token, *columns, parts in store.execute(statement, parameters):
        ended = [EndedChunk(**part) for part in parts or ()]
        syntheses[token] = ClaimedSynthesis(ended, *columns)
    return syntheses
