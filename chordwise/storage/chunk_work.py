"""Storing what workers do with chunks: claims, ends and calls, of many threads in one transaction.

The order of locks is that of the whole schema: jobs, then chunks, then calls.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import TypeAlias

from sqlalchemy import Connection
from sqlalchemy.orm import Session, sessionmaker

from chordwise.domain.json_values import JsonObject
from chordwise.storage import chunk_leases, chunks, job_ends, jobs, model_calls
from chordwise.storage.chunk_leases import ClaimedChunk
from chordwise.storage.engine import committing_at_once, engine_of
from chordwise.storage.group_commit import GroupCommit
from chordwise.storage.job_ends import JobEnd

# How long beginnings and ends of calls wait for others: they keep a slot busy meanwhile.
_GATHER_SECONDS = 0.01

Claims: TypeAlias = Sequence[tuple[uuid.UUID, uuid.UUID]]
"""Chunks with the tokens to claim them by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkEnd:
    """The end of a chunk that is leased with `token`: what `chunks.answered` or `failed` returned.

    `calls` are the ends of its calls that are not stored yet. `job_end` is that of its job, where
    it is the only chunk and no model has to be asked for the result.
    """

    job_id: uuid.UUID
    chunk_id: uuid.UUID
    token: uuid.UUID
    values: JsonObject
    calls: Sequence[Mapping[str, object]] = ()
    job_end: JobEnd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisEnd:
    """The end of a job that is leased for its synthesis; `calls` as for a chunk."""

    job_end: JobEnd
    calls: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEntry:
    """An entry of the ledger: a call that begins, or none, and what became of earlier ones.

    A call with the `token` of a lease begins only while that is held: on the chunk of the call, or
    on the synthesis of its job where it has no chunk.
    """

    begun: Mapping[str, object] | None = None
    token: uuid.UUID | None = None
    ended: Sequence[Mapping[str, object]] = ()
    checked: Sequence[Mapping[str, object]] = ()


class ChunkWork:
    """What the threads of a worker store; safe to share between them.

    `synthesis` is the task that is promised when the last chunk of a job has ended; a job of more
    than `max_slice` chunks is a chord, whose body is that task.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        lease: timedelta,
        max_attempts: int,
        synthesis: str,
        max_slice: int,
    ) -> None:
        self._lease = lease
        self._max_attempts = max_attempts
        self._synthesis = synthesis
        self._max_slice = max_slice
        engine = engine_of(sessions)
        self._claims = GroupCommit(committing_at_once(engine), self._store_claims)
        self._ends = GroupCommit(engine.begin, self._store_ends, _GATHER_SECONDS)

    def claim(self, claims: Claims) -> Mapping[uuid.UUID, ClaimedChunk]:
        """Claim chunks, given with tokens; return those that there are, as they are now, by token.

        Raises:
            ServiceUnavailableError: The database stayed away for the length of a lease.
        """
        return self._claims.commit(claims, self._lease)

    def end(self, end: ChunkEnd | SynthesisEnd, within: timedelta) -> bool:
        """Store the end of a chunk, or of a synthesis; false when its lease is lost.

        The ends of its calls are stored with it. The job of a chunk ends with it, where that is
        given; else its open chunks are counted down, and the last one promises the synthesis.

        Raises:
            ServiceUnavailableError: The database stayed away for longer than `within`.
        """
        return self._ends.commit(end, within)

    def _store_claims(
        self, store: Connection, group: Sequence[Claims]
    ) -> Sequence[Mapping[uuid.UUID, ClaimedChunk]]:
        claims = [claim for slice_ in group for claim in slice_]
        found = chunk_leases.claim_all(store, claims, self._lease, self._max_attempts)
        return [{token: found[token] for _, token in slice_ if token in found} for slice_ in group]

    def _store_ends(
        self, store: Connection, group: Sequence[ChunkEnd | SynthesisEnd]
    ) -> Sequence[bool]:
        """Store ends; of a commit whose answer was lost they are found to be made."""
        syntheses = [end.job_end for end in group if isinstance(end, SynthesisEnd)]
        of_chunks = [end for end in group if isinstance(end, ChunkEnd)]
        if syntheses:
            locked = [end.job_id for end in syntheses] + [end.job_id for end in of_chunks]
            jobs.lock_all(store, locked)
        chunk_ids = self._end_chunks(store, of_chunks, syntheses)
        model_calls.end_all(store, [call for end in group for call in end.calls])
        job_ids = jobs.ended_by(store, [(end.job_id, end.token) for end in syntheses])
        return [
            end.chunk_id in chunk_ids
            if isinstance(end, ChunkEnd)
            else end.job_end.job_id in job_ids
            for end in group
        ]

    def _end_chunks(
        self, store: Connection, ends: Sequence[ChunkEnd], syntheses: Sequence[JobEnd]
    ) -> set[uuid.UUID]:
        rows = [
            {
                **end.values,
                "id": str(end.chunk_id),
                "job_id": str(end.job_id),
                "lease_token": str(end.token),
            }
            for end in sorted(ends, key=attrgetter("chunk_id"))
        ]
        ended = chunks.end_all(store, rows) if rows else set()
        of_only_chunks = [end.job_end for end in ends if end.job_end and end.chunk_id in ended]
        over = _end_jobs(store, [*syntheses, *of_only_chunks])
        left_open = [end.job_id for end in ends if end.chunk_id in ended and end.job_id not in over]
        jobs.count_down(store, left_open, self._synthesis, self._max_slice)
        late = [end for end in ends if end.chunk_id not in ended]
        left = chunks.left(store, [end.chunk_id for end in late]) if late else {}
        return ended | {end.chunk_id for end in late if left.get(end.chunk_id) == end.token}


def _end_jobs(store: Connection, ends: Sequence[JobEnd]) -> set[uuid.UUID]:
    if not ends:
        return set()
    with Session(store) as session:  # within the transaction of the connection
        ended = job_ends.store_all(session, ends)
        session.flush()
    return ended


class CallStore:
    """Stores entries of the ledger; safe to share between threads."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._entries = GroupCommit(
            committing_at_once(engine_of(sessions)), _store_entries, _GATHER_SECONDS
        )

    def enter(self, entry: CallEntry, within: timedelta) -> bool:
        """Store an entry; false where its call may not begin, since the lease is lost.

        The run of a lease may be cancelled as well. The ends are stored whatever the outcome.

        Raises:
            ServiceUnavailableError: The database stayed away for longer than `within`.
        """
        return self._entries.commit(entry, within)


def _store_entries(store: Connection, entries: Sequence[CallEntry]) -> Sequence[bool]:
    """Store entries, each kind in a transaction of its own: they do not depend on each other."""
    begun = [entry.begun for entry in entries if entry.begun]
    tokens = {str(each.begun["id"]): each.token for each in entries if each.begun and each.token}
    held = model_calls.begin_all(store, begun, tokens)
    model_calls.end_all(store, [call for each in entries for call in each.ended])
    model_calls.check_all(store, [call for each in entries for call in each.checked])
    return [entry.token is None or entry.token in held for entry in entries]
