"""Storage of the work on chunks: claims, ends and calls of many threads in one transaction.

Locks are taken in the order of the whole schema: jobs, then chunks, calls, and accounts.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from operator import attrgetter
from typing import TypeAlias

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonValue
from chordwise.domain.states import JobStatus
from chordwise.errors import ChordwiseError, LeaseLostError
from chordwise.storage import (
    budgets,
    chunks,
    jobs,
    model_calls,
    results,
    runs,
)
from chordwise.storage.budgets import Reservation
from chordwise.storage.chunks import EndedChunk
from chordwise.storage.claims import (
    ClaimedChunk,
    ClaimedSynthesis,
    Claims,
    attempts_before_last,
    claim_chunks,
    claim_syntheses,
    find_synthesis,
)
from chordwise.storage.database import Database
from chordwise.storage.group_commit import GroupCommit
from chordwise.storage.jobs import JobFailure
from chordwise.storage.results import NewResult

# A promised synthesis is due after this time; normally the process that ended the last chunk has
# claimed it, or the body of the chord has begun it by then.
_SYNTHESIS_DELAY = timedelta(seconds=5)
# How long the beginning or end of a call waits for others, extended while more arrive. A slot stays
# occupied meanwhile.
_GATHER_SECONDS = 0.016


class Stored(Enum):
    """The outcome of storing an item; `LOST`: the lease is lost, and nothing was stored."""

    LOST = "lost"
    STORED = "stored"


Outcome: TypeAlias = Stored | ClaimedSynthesis | ChordwiseError
"""The outcome of storing an item: a claimed synthesis if a chunk was the last one of its job, or
the reason why a call may not begin.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """The end of a job; `result` is null if it has none, and `failure` if nothing is missing.

    `token` is that of its synthesis, without which the job ends with its only chunk. `calls` are
    the ends of its calls that are not stored yet.
    """

    job_id: uuid.UUID
    status: JobStatus
    failure: JobFailure | None = None
    result: NewResult | None = None
    token: uuid.UUID | None = None
    calls: Sequence[Mapping[str, object]] = ()

    @property
    def row(self) -> Mapping[str, JsonValue]:
        """The row for `jobs.end_all`."""
        failure = self.failure
        return {
            "id": str(self.job_id),
            "status": self.status,
            "error_code": failure.code if failure else None,
            "error_message": failure.message if failure else None,
            "hint": (failure.hint or None) if failure else None,
            "lease_token": str(self.token) if self.token else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkEnd:
    """The end of a chunk that is leased with `token`.

    `calls` are the ends of its calls that are not stored yet. `job_end` is the end of its job, if
    the job has only this chunk and its result needs no further model call. Otherwise the last chunk
    claims the synthesis with `synthesis_token`, unless that is `None`.
    """

    job_id: uuid.UUID
    chunk_id: uuid.UUID
    token: uuid.UUID
    ended: EndedChunk
    calls: Sequence[Mapping[str, object]] = ()
    job_end: JobEnd | None = None
    synthesis_token: uuid.UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEntry:
    """An entry of the ledger: optionally a call that begins, and the outcomes of earlier calls.

    The rows of calls that were not made (`withdrawn`) are deleted. A call with the `token` of a
    lease begins only while that lease is held, on its chunk or on the synthesis of its job; a call
    with a `reservation` only if the accounts grant it. It may take `lasts`.
    """

    begun: Mapping[str, object] | None = None
    token: uuid.UUID | None = None
    reservation: Reservation | None = None
    lasts: timedelta | None = None
    ended: Sequence[Mapping[str, object]] = ()
    checked: Sequence[Mapping[str, object]] = ()
    withdrawn: Sequence[uuid.UUID] = ()


class ChunkWork:
    """Stores the claims, ends and calls of the threads of a worker; thread-safe.

    Ends and ledger entries share transactions, since a call usually begins when another one has
    just ended. The task `synthesis` is promised when the last chunk of a job has ended, due some
    seconds later: normally the synthesis has begun by then.
    """

    def __init__(
        self, database: Database, lease: timedelta, max_attempts: int, synthesis: str
    ) -> None:
        self._lease = lease
        self._below = attempts_before_last(max_attempts)
        self._synthesis = synthesis
        self._claims = GroupCommit(database.autocommit, self._store_claims)
        self._synthesis_claims = GroupCommit(database.autocommit, self._store_synthesis_claims)
        self._work = GroupCommit(database.transaction, self._store, _GATHER_SECONDS)
        self._long_results = GroupCommit(database.transaction, self._store_long_results)

    def claim(self, claims: Claims) -> Mapping[uuid.UUID, ClaimedChunk]:
        """Claim chunks by pairs of id and token; return the current state of those found, by token.

        Raises:
            ServiceUnavailableError: The database was unavailable for the length of a lease.
        """
        return self._claims.commit(claims, self._lease)

    def claim_synthesis(self, job_id: uuid.UUID, token: uuid.UUID) -> ClaimedSynthesis | None:
        """Claim the synthesis of a job; `None` if it is not claimable, or only as the last attempt.

        Raises:
            ServiceUnavailableError: The database was unavailable for the length of a lease.
        """
        return self._synthesis_claims.commit((job_id, token), self._lease)

    def enter(self, entry: CallEntry, within: timedelta) -> ChordwiseError | None:
        """Store a ledger entry; return the reason if its call may not begin.

        The lease is lost, the run is cancelled, or a budget does not cover the call. The ends are
        stored in either case.

        Raises:
            ServiceUnavailableError: The database was unavailable for longer than `within`.
        """
        outcome = self._work.commit(entry, within)
        return outcome if isinstance(outcome, ChordwiseError) else None

    def end(self, end: ChunkEnd | JobEnd, within: timedelta) -> Outcome:
        """Store the end of a chunk, or of a job that is leased for its synthesis, and of its calls.

        The job ends too if its end is given. Otherwise the last chunk queues the synthesis, and
        claims it with a `synthesis_token`, unless the attempt is the last one; it is returned.

        Raises:
            ServiceUnavailableError: The database was unavailable for longer than `within`.
            LeaseLostError: The lease is lost, and the result is long.
        """
        if isinstance(end, JobEnd) and end.result is not None and end.result.more_facts:
            # It does not delay other threads.
            return self._long_results.commit(end, within)
        return self._work.commit(end, within)

    def _store_claims(
        self, store: Connection, group: Sequence[Claims]
    ) -> Sequence[Mapping[uuid.UUID, ClaimedChunk]]:
        claims = [claim for slice_ in group for claim in slice_]
        claimed = claim_chunks(store, claims, self._lease, self._below)
        return [
            {token: claimed[token] for _, token in slice_ if token in claimed} for slice_ in group
        ]

    def _store_synthesis_claims(
        self, store: Connection, group: Claims
    ) -> Sequence[ClaimedSynthesis | None]:
        syntheses = claim_syntheses(store, group, self._lease, self._below)
        return [syntheses.get(token) for _, token in group]

    def _store_long_results(self, store: Connection, group: Sequence[JobEnd]) -> Sequence[Outcome]:
        """Store long results, and only then lock and end their jobs; all or nothing."""
        over = jobs.ended_by(store, [(end.job_id, end.token) for end in group])
        left = [end for end in group if end.job_id not in over]
        with Session(store) as session:
            if len(jobs.lock_existing(session, [end.job_id for end in left])) < len(left):
                raise LeaseLostError("The document was forgotten.")
            results.save_all(session, [end.result for end in left if end.result])
            session.flush()
        outcomes = self._store(store, [replace(end, result=None) for end in group])
        if Stored.LOST in outcomes:
            raise LeaseLostError("Another worker has claimed the synthesis.")
        return outcomes

    def _store(
        self, store: Connection, group: Sequence[CallEntry | ChunkEnd | JobEnd]
    ) -> Sequence[Outcome]:
        entries = [item for item in group if isinstance(item, CallEntry)]
        of_chunks = [item for item in group if isinstance(item, ChunkEnd)]
        syntheses = [item for item in group if isinstance(item, JobEnd)]
        ended = self._end_chunks(store, of_chunks, syntheses, entries)
        calls = [call for end in of_chunks for call in end.calls]
        calls += [call for end in syntheses for call in end.calls]
        begun = iter(store_entries(store, entries, calls))
        claims = [(end.job_id, end.token) for end in syntheses]
        job_ids = jobs.ended_by(store, claims) if claims else set()

        def outcome(item: CallEntry | ChunkEnd | JobEnd) -> Outcome:
            match item:
                case CallEntry():
                    return next(begun) or Stored.STORED
                case ChunkEnd():
                    return ended.get(item.chunk_id, Stored.LOST)
                case JobEnd():
                    return Stored.STORED if item.job_id in job_ids else Stored.LOST

        return [outcome(item) for item in group]

    def _end_chunks(
        self,
        store: Connection,
        ends: Sequence[ChunkEnd],
        syntheses: Sequence[JobEnd],
        entries: Sequence[CallEntry],
    ) -> Mapping[uuid.UUID, Outcome]:
        beginning = [entry.begun for entry in entries if entry.begun and entry.token]
        synthesizing = [_id(begun, "job_id") for begun in beginning if not begun["chunk_id"]]
        if syntheses or synthesizing:
            ending = [*(end.job_id for end in syntheses), *(end.job_id for end in ends)]
            jobs.lock_all(store, [*ending, *synthesizing])
        pairs = [
            (end.ended, {"id": end.chunk_id, "job_id": end.job_id, "lease_token": end.token})
            for end in sorted(ends, key=attrgetter("chunk_id"))
        ]
        analyzing = [_id(begun, "chunk_id") for begun in beginning if begun["chunk_id"]]
        ended = chunks.end_all(store, pairs, analyzing) if pairs else set()
        of_only_chunks = [end.job_end for end in ends if end.job_end and end.chunk_id in ended]
        over = _end_jobs(store, [*syntheses, *of_only_chunks])
        left_open = [end for end in ends if end.chunk_id in ended and end.job_id not in over]
        job_ids = [end.job_id for end in left_open]
        last: dict[uuid.UUID, ChunkEnd] = {}
        if left_open:
            without = jobs.count_down(store, job_ids, self._synthesis, _SYNTHESIS_DELAY)
            last = {end.job_id: end for end in left_open if end.job_id in without}
        late = [end for end in ends if end.chunk_id not in ended]
        tokens = chunks.last_tokens(store, [end.chunk_id for end in late]) if late else {}
        stored = [end for end in late if tokens.get(end.chunk_id) == end.token]
        outcomes: dict[uuid.UUID, Outcome] = dict.fromkeys(ended, Stored.STORED)
        outcomes |= {end.chunk_id: _stored_before(store, end) for end in stored}
        outcomes |= self._claimed(store, last)
        return outcomes

    def _claimed(
        self, store: Connection, last: Mapping[uuid.UUID, ChunkEnd]
    ) -> Mapping[uuid.UUID, ClaimedSynthesis]:
        claims = [
            (job_id, end.synthesis_token) for job_id, end in last.items() if end.synthesis_token
        ]
        if not claims:
            return {}
        syntheses = claim_syntheses(store, claims, self._lease, self._below)
        return {last[claimed.job_id].chunk_id: claimed for claimed in syntheses.values()}


def _stored_before(store: Connection, end: ChunkEnd) -> Outcome:
    """Return the outcome of an end whose commit was not confirmed."""
    if end.synthesis_token is None:
        return Stored.STORED
    return find_synthesis(store, end.job_id, end.synthesis_token) or Stored.STORED


def _id(begun: Mapping[str, object], name: str) -> uuid.UUID:
    return uuid.UUID(str(begun[name]))


def _end_jobs(store: Connection, ends: Sequence[JobEnd]) -> set[uuid.UUID]:
    """End locked jobs, store their results and settle their runs; return the jobs that have ended.

    A job is not changed if another worker holds its synthesis, or if it would end with its only
    chunk and is paused, queued, ended or cancelled.
    """
    if not ends:
        return set()
    with Session(store) as session:  # within the transaction of the connection
        ended = jobs.end_all(session, [end.row for end in ends])
        results.save_all(session, [e.result for e in ends if e.result and e.job_id in ended])
        for run_id in sorted(set(ended.values())):
            runs.settle(session, run_id)
        session.flush()
    return set(ended)


def store_entries(
    store: Connection, entries: Sequence[CallEntry], ended: Sequence[Mapping[str, object]] = ()
) -> Sequence[ChordwiseError | None]:
    """Store entries and the ends of other calls; return why the call of each may not begin."""
    bookings = model_calls.end_all(
        store, [*ended, *(call for entry in entries for call in entry.ended)]
    )
    beginning = {str(entry.begun["id"]): entry for entry in entries if entry.begun}
    reserved, refusals = model_calls.begin_all(
        store,
        [entry.begun for entry in beginning.values() if entry.begun],
        {id_: entry.token for id_, entry in beginning.items() if entry.token},
        {id_: entry.lasts.total_seconds() for id_, entry in beginning.items() if entry.lasts},
    )
    model_calls.check_all(store, [call for entry in entries for call in entry.checked])
    withdrawn = [call_id for entry in entries for call_id in entry.withdrawn]
    bookings += model_calls.delete_all(store, withdrawn)
    reservations = {id_: entry.reservation for id_, entry in beginning.items() if entry.reservation}
    refused = budgets.book(store, bookings, reserved, reservations)
    model_calls.delete_all(store, refused)
    refusals |= refused
    return [refusals.get(str(entry.begun["id"])) if entry.begun else None for entry in entries]
