"""Fan-outs: writing and sending the chunks of jobs, for many threads with few statements."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, text

from chordwise.domain.chunking import TextChunk
from chordwise.domain.json_values import JsonObject
from chordwise.settings import PipelineSettings
from chordwise.storage import learned_examples, outbox
from chordwise.storage.database import Database, Store
from chordwise.storage.group_commit import GroupCommit
from chordwise.storage.outbox import Urgency
from chordwise.storage.record import new_id

# How long a step waits for steps of other jobs; no slot is occupied meanwhile.
_GATHER_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class FanOut:
    """A job whose chunks are to be sent; `chunk_count` is null if they are not written yet.

    `options` is JSON text. `text` is null unless the chunks are to be written and it is not large.
    """

    document_id: uuid.UUID
    analysis_type: str
    options: str
    examples: Sequence[JsonObject] | None
    model: str
    chunk_count: int | None
    is_nightly: bool
    text: str | None


class FanOuts:
    """Stores the steps of fan-outs; thread-safe.

    While an attempt makes progress it is not counted again. A step waits for a lease during an
    outage; for that long the message of a fan-out in progress is not repeated. Messages
    with the task `analysis` are promised for chunks, and `synthesis` for jobs without open chunks.
    """

    def __init__(
        self,
        database: Database,
        settings: PipelineSettings,
        *,
        analysis: str,
        synthesis: str,
    ) -> None:
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._analysis = analysis
        self._synthesis = synthesis
        self._begun = GroupCommit(database.autocommit, self._begin_all, _GATHER_SECONDS)
        self._written = GroupCommit(database.transaction, self._write_all, _GATHER_SECONDS)

    def begin(self, job_id: uuid.UUID) -> FanOut | None:
        """Count an attempt to fan a job out; return `None` if the job may not be fanned out."""
        return self._begun.commit(job_id, self._lease)

    def write(self, job_id: uuid.UUID, parts: Sequence[TextChunk]) -> Sequence[uuid.UUID]:
        """Write the chunks of a job that may still be fanned out, and set the job to running.

        Existing chunks are not changed. Return the pending chunks, in order. The caller sends their
        messages, which are recorded as sent: if they are lost, they are sent again.
        """
        return self._written.commit((job_id, parts), self._lease)

    def _begin_all(
        self, store: Connection, job_ids: Sequence[uuid.UUID]
    ) -> Sequence[FanOut | None]:
        parameters = {
            "ids": list(job_ids),
            "max_attempts": self._settings.max_attempts,
            "stall_timeout": min(self._lease, timedelta(seconds=self._settings.stalled_seconds)),
            "lease": self._lease,
        }
        fan_outs = {row[0]: FanOut(*row[1:]) for row in store.execute(_BEGIN, parameters)}
        return [fan_outs.get(job_id) for job_id in job_ids]

    def _write_all(
        self, store: Connection, group: Sequence[tuple[uuid.UUID, Sequence[TextChunk]]]
    ) -> Sequence[Sequence[uuid.UUID]]:
        job_ids = [job_id for job_id, _ in group]
        locked = {row[0] for row in store.execute(_LOCK, {"ids": job_ids})}
        _insert(store, [(id_, part) for id_, parts in group if id_ in locked for part in parts])
        ids = [job_id for job_id in job_ids if job_id in locked]
        started = {row[0]: row[1] for row in store.execute(_START, {"ids": ids})} if ids else {}
        outbox.remove(store, ids)
        without = [job_id for job_id, open_chunks in started.items() if not open_chunks]
        outbox.promise(store, self._synthesis, without, reason="all chunks ended")
        pending: defaultdict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
        rows = store.execute(_PENDING, {"ids": ids}).all() if ids else []
        for job_id, chunk_id, _ in rows:
            pending[job_id].append(chunk_id)
        urgencies = {row[1]: Urgency.of_run(row[2]) for row in rows}
        outbox.record_sent(store, self._analysis, urgencies, self._settings.resend_wait)
        return [pending[job_id] for job_id in job_ids]


def _insert(store: Store, rows: Sequence[tuple[uuid.UUID, TextChunk]]) -> None:
    if rows:
        columns: Mapping[str, object] = {
            "ids": [new_id() for _ in rows],
            "jobs": [job_id for job_id, _ in rows],
            "positions": [part.position for _, part in rows],
            "starts": [part.start_char for _, part in rows],
            "ends": [part.end_char for _, part in rows],
        }
        store.execute(_INSERT, columns)


# Longer texts are read one at a time, by the thread that splits them, to bound memory use.
_SHORT_CHARACTERS = 500_000
_MAY_FAN_OUT = """
    id = ANY(CAST(:ids AS uuid[])) AND status IN ('queued', 'running') AND reused_from IS NULL
    AND NOT EXISTS (SELECT FROM runs r WHERE r.id = jobs.run_id AND r.status = 'cancelled')"""
_WAITS = """EXISTS (
    SELECT FROM jobs j WHERE j.id = outbox.id AND j.id = ANY(CAST(:ids AS uuid[]))
        AND j.status NOT IN ('paused', 'succeeded', 'partial', 'failed', 'quarantined', 'cancelled')
)"""
_COMES_ON = "j.attempts > 0 AND j.last_progress_at > clock_timestamp() - :stall_timeout"
_BEGIN = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM jobs WHERE {_MAY_FAN_OUT} AND status = 'queued'
        ORDER BY id FOR NO KEY UPDATE
    ), begun AS (
        UPDATE jobs j SET attempts = j.attempts + CAST(NOT ({_COMES_ON}) AS integer),
            last_progress_at =
                CASE WHEN {_COMES_ON} THEN j.last_progress_at ELSE clock_timestamp() END
        FROM locked
        WHERE j.id = locked.id AND j.id = ANY(CAST(:ids AS uuid[]))
            AND ({_COMES_ON} OR j.attempts < :max_attempts)
        RETURNING j.*
    ), repeated_later AS (
        UPDATE outbox SET sends = 0, due_at = clock_timestamp() + :lease
        FROM begun WHERE outbox.id = begun.id
    ), removed AS ({outbox.removal(_WAITS, has_begun="false")})
    SELECT j.id, j.document_id, j.analysis_type, CAST(j.options AS text),
        {learned_examples.OF_JOB}, j.model, j.chunk_count, r.priority = 'nightly', CASE
            WHEN j.chunk_count IS NULL AND d.character_count < {_SHORT_CHARACTERS} THEN d.text
        END
    FROM begun j JOIN documents d ON d.id = j.document_id JOIN runs r ON r.id = j.run_id
    """)
_LOCK = text(f"SELECT id FROM jobs WHERE {_MAY_FAN_OUT} ORDER BY id FOR NO KEY UPDATE")
_INSERT = text("""
    INSERT INTO chunks (id, job_id, position, start_char, end_char, status, attempts, postponements)
    SELECT new.id, job_id, position, start_char, end_char, 'pending', 0, 0
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:jobs AS uuid[]), CAST(:positions AS integer[]),
        CAST(:starts AS integer[]), CAST(:ends AS integer[])
    ) AS new (id, job_id, position, start_char, end_char)
    ON CONFLICT DO NOTHING""")
_START = text("""
    UPDATE jobs SET status = 'running', attempts = 0, last_progress_at = clock_timestamp(),
        started_at = coalesce(started_at, clock_timestamp()),
        chunk_count = counted.number, open_chunks = counted.open
    FROM (
        SELECT j.id AS started_id, count(c.id) AS number,
            count(c.id) FILTER (WHERE c.status IN ('pending', 'running', 'waiting')) AS open
        FROM jobs j
        LEFT JOIN chunks c ON c.job_id = j.id AND c.job_id = ANY(CAST(:ids AS uuid[]))
        WHERE j.id = ANY(CAST(:ids AS uuid[]))
        GROUP BY j.id
    ) AS counted
    WHERE jobs.id = counted.started_id AND jobs.id = ANY(CAST(:ids AS uuid[]))
    RETURNING jobs.id, jobs.open_chunks""")
_PENDING = text("""
    SELECT c.job_id, c.id, r.priority
    FROM chunks c JOIN jobs j ON j.id = c.job_id JOIN runs r ON r.id = j.run_id
    WHERE c.job_id = ANY(CAST(:ids AS uuid[])) AND c.status = 'pending'
    ORDER BY c.job_id, c.position""")
