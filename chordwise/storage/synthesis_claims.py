"""Claims of syntheses: jobs whose chunks have all ended, each taken under a lease."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from sqlalchemy import TextClause, text

from chordwise.storage import chunks
from chordwise.storage.chunks import EndedChunk
from chordwise.storage.clock import HOLDERS_HAVE_COME
from chordwise.storage.database import Store


@dataclass(frozen=True, slots=True)
class ClaimedSynthesis:
    """A job that is claimed for its synthesis, with what is known of its run, and its chunks.

    `options` is JSON text; the job `is_capped` where the budget of its run is limited.
    """

    parts: Sequence[EndedChunk]
    job_id: uuid.UUID
    document_id: uuid.UUID
    analysis_type: str
    options: str
    model: str
    attempts: int
    postponements: int
    priority: str
    lane: str
    use_cache: bool
    is_capped: bool


_SELECT = f"""
    SELECT wanted.token, j.id, j.document_id, j.analysis_type, CAST(j.options AS text), j.model,
        j.attempts, j.postponements, r.priority, r.lane, r.use_cache, EXISTS (
            SELECT FROM budgets b WHERE b.scope = concat('run:', r.id) AND b.cap_usd IS NOT NULL
        ), (
            SELECT json_agg(part ORDER BY position)
            FROM (SELECT {", ".join(chunks.COLUMNS)} FROM chunks WHERE job_id = j.id) AS part
        )"""  # noqa: S608 - names of our own
_WANTED = """
    wanted AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS wanted (id, token)
    )"""
_CLAIM = text(f"""
    WITH {_WANTED}, free AS (
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
                    AND {HOLDERS_HAVE_COME}
            )
        ORDER BY j.id
        FOR NO KEY UPDATE OF j
    ), claimed AS (
        UPDATE jobs j SET status = 'synthesizing', attempts = j.attempts + 1,
            lease_token = free.token, lease_until = clock_timestamp() + :lease,
            last_progress_at = clock_timestamp()
        FROM free WHERE j.id = free.id AND j.id = ANY(CAST(:ids AS uuid[]))
        RETURNING j.*
    )
    {_SELECT} FROM wanted JOIN claimed j ON j.id = wanted.id
    JOIN runs r ON r.id = j.run_id""")  # noqa: S608 - names of our own
_LOOK = text(f"""
    WITH {_WANTED}
    {_SELECT} FROM wanted JOIN jobs j ON j.id = wanted.id AND j.lease_token = wanted.token
    JOIN runs r ON r.id = j.run_id WHERE j.status = 'synthesizing'""")

Claims: TypeAlias = Sequence[tuple[uuid.UUID, uuid.UUID]]
"""Jobs with the tokens to claim their syntheses by."""


def claim_all(
    store: Store, claims: Claims, lease: timedelta, below: int
) -> Mapping[uuid.UUID, ClaimedSynthesis]:
    """Take the syntheses of jobs, counting the attempt; return those that are taken, by token.

    A job is not taken while chunks are open, after its end, while another lease lives, where the
    run is cancelled, and where its synthesis has been attempted `below` times.
    """
    named = {**_arrays(claims), "lease": lease, "below": below}
    return _found(store, _CLAIM, named)


def look(store: Store, job_id: uuid.UUID, token: uuid.UUID) -> ClaimedSynthesis | None:
    """Return a job if its synthesis is claimed with this token."""
    return _found(store, _LOOK, _arrays([(job_id, token)])).get(token)


def _arrays(claims: Claims) -> dict[str, object]:
    return {"ids": [each[0] for each in claims], "tokens": [each[1] for each in claims]}


def _found(
    store: Store, statement: TextClause, named: Mapping[str, object]
) -> Mapping[uuid.UUID, ClaimedSynthesis]:
    found = {}
    for token, *columns, parts in store.execute(statement, named):
        ended = [EndedChunk(**part) for part in parts or ()]
        found[token] = ClaimedSynthesis(ended, *columns)
    return found
