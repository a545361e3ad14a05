"""Analyzes one chunk: claims it, asks the model, and stores the answer exactly once."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock

import structlog

from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.grounding import Source
from chordwise.domain.states import OPEN_CHUNKS
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    InternalError,
    LeaseLostError,
    PausingError,
    ServiceUnavailableError,
    TransientError,
)
from chordwise.llm.middleware.concurrency_limited import Turn
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.question import about_part, policy_of
from chordwise.pipeline.jobs import backoff, job_results
from chordwise.pipeline.jobs.job_results import job_input, task_of
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import Lease
from chordwise.pipeline.runtime.messages import SYNTHESIZE, slice_size
from chordwise.storage import chunk_claims, chunks, jobs, leases
from chordwise.storage.chunk_claims import ClaimedChunk
from chordwise.storage.chunk_work import ChunkEnd, Outcome, Stored
from chordwise.storage.chunks import EndedChunk
from chordwise.storage.job_ends import JobEnd
from chordwise.storage.synthesis_claims import ClaimedSynthesis

log = structlog.get_logger(__name__)


class ChunkOutcome(StrEnum):
    """What a header task returns to Celery: ended (counts for the chord) or not ended.

    `UNKNOWN` means that there is no such chunk: the message was not sent by Chordwise.
    """

    ENDED = "ended"
    NOT_ENDED = "not_ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A leased chunk with its question, its source, and the ledger and turn of its calls."""

    lease: Lease
    chunk: ClaimedChunk
    task: AnalysisTask
    source: Source
    ledger: Ledger
    turn: Turn
    claims: SliceClaims


class SliceClaims:
    """Claims the chunks of one message together when the first of them starts.

    If the claim fails, it fails for all of them: a later claim that succeeded would hold chunks
    whose threads have already returned. If the message `claims_syntheses`, the last chunk of a job
    adds the claimed synthesis to `syntheses`; otherwise only the outbox has a message for it.
    """

    def __init__(
        self, context: Context, chunk_ids: Sequence[uuid.UUID], *, claims_syntheses: bool = False
    ) -> None:
        self._context = context
        self.claims_syntheses = claims_syntheses
        self._tokens = {chunk_id: uuid.uuid4() for chunk_id in chunk_ids}
        self._lock = Lock()
        self._found: Mapping[uuid.UUID, ClaimedChunk] | None = None
        self._error: Exception | None = None
        self.syntheses: deque[tuple[Lease, ClaimedSynthesis]] = deque()

    def of(self, chunk_id: uuid.UUID) -> ClaimedChunk | None:
        """Return a chunk of the message after the claim, or `None` if it does not exist."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._found is None:
                try:
                    self._found = self._claimed()
                except Exception as error:
                    self._error = error
                    raise
        return self._found.get(self._tokens[chunk_id])

    def _claimed(self) -> Mapping[uuid.UUID, ClaimedChunk]:
        claims = self._context.stores.chunks.claim(list(self._tokens.items()))
        for chunk in claims.values():
            if chunk.is_claimed:
                self._context.leases.keep(_lease_of(chunk))
        return claims


def analyze_chunk(
    context: Context, chunk_id: uuid.UUID, claims: SliceClaims | None = None
) -> ChunkOutcome:
    """Bring a chunk to an end state, unless it has ended or another worker holds its lease.

    `claims` are the claims of its message. For a chunk that has ended there is one read: no lock,
    no write, no call.

    Raises:
        ServiceUnavailableError: The database cannot be reached; recovery sends the chunk again.
    """
    claims = claims or SliceClaims(context, [chunk_id])
    chunk = claims.of(chunk_id)
    if chunk is not None and _may_be_last(context, chunk):
        chunk = _claim_last(context, chunk)
    if chunk is None:
        return ChunkOutcome.UNKNOWN
    if not chunk.is_claimed:
        is_open = chunk.status in OPEN_CHUNKS
        return ChunkOutcome.NOT_ENDED if is_open else ChunkOutcome.ENDED
    lease = _lease_of(chunk)
    with context.leases.holding(lease):
        work = _work(context, lease, chunk, claims)
        with closing(work.turn):
            return _work_on(context, work)


def _lease_of(chunk: ClaimedChunk) -> Lease:
    return Lease(job_id=chunk.job_id, chunk_id=chunk.id, token=chunk.claim_token)


def _may_be_last(context: Context, chunk: ClaimedChunk) -> bool:
    """Return whether a chunk was not claimed because its next attempt may be its last."""
    is_last = leases.is_last(chunk.attempts, context.settings.pipeline.max_attempts)
    return is_last and not chunk.is_claimed and chunk.status in OPEN_CHUNKS


def _claim_last(context: Context, chunk: ClaimedChunk) -> ClaimedChunk | None:
    """Claim a chunk for its last attempt, or quarantine it if it has had that."""
    max_attempts = context.settings.pipeline.max_attempts
    token = chunk.claim_token
    for attempt in context.database.attempts(context.lease):
        with attempt as session:
            jobs.lock(session, chunk.job_id)
            if chunk_claims.quarantine(session, chunk.id, max_attempts):
                jobs.count_down(session, [chunk.job_id], SYNTHESIZE)
                claimed = chunk_claims.find_claimed(session, [(chunk.id, token)]).get(token)
            else:
                claimed = chunk_claims.claim(session, chunk.id, token, context.lease, max_attempts)
    return claimed


def _work_on(context: Context, work: _Work) -> ChunkOutcome:
    try:
        return _analyze(context, work)
    except LeaseLostError:
        context.leases.record_loss(work.lease, "answer")
        return ChunkOutcome.NOT_ENDED
    except ServiceUnavailableError:
        raise
    except Exception as error:  # a defect ends the chunk visibly
        log.exception("chunk.defect", chunk_id=str(work.chunk.id))
        what = f"A bug in Chordwise stopped this chunk ({type(error).__name__})."
        return _fail(context, work, InternalError(what, "See the worker's log."))
    finally:
        work.ledger.flush()


def _work(context: Context, lease: Lease, chunk: ClaimedChunk, claims: SliceClaims) -> _Work:
    text = chunk.text
    if text is None:
        text = context.stores.texts.text(chunk.document_id, within=context.lease)
    task, source = about_part(task_of(chunk), text, chunk.start_char, chunk.end_char)
    return _Work(
        lease=lease,
        chunk=chunk,
        task=task,
        source=source,
        ledger=context.ledger(lease),
        turn=context.models.turn(),
        claims=claims,
    )


def _analyze(context: Context, work: _Work) -> ChunkOutcome:
    try:
        call_context = context.call_context(work.chunk, work.ledger, work.turn)
        question = Question(
            model=context.models.open(work.chunk.model, call_context),
            task=work.task,
            source=work.source,
            record_check=work.ledger.check,
            policy=policy_of(context.settings, work.lease.require),
        )
        answer = ask(question)
    except ServiceUnavailableError:
        raise  # the database, not the model: recovery sends the chunk again
    except (PausingError, ConfigurationError) as error:
        return _pause(context, work, error)
    except TransientError as error:  # waiting for a batch among them
        return _postpone(context, work, error)
    except ChordwiseError as error:
        return _fail(context, work, error)
    _end(context, work, chunks.answered(answer))
    return ChunkOutcome.ENDED


def _fail(context: Context, work: _Work, error: ChordwiseError) -> ChunkOutcome:
    _end(context, work, chunks.failed(error))
    log.warning("chunk.failed", chunk_id=str(work.chunk.id), code=error.code, what=error.what)
    return ChunkOutcome.ENDED


def _postpone(context: Context, work: _Work, error: TransientError) -> ChunkOutcome:
    settings, chunk = context.settings.pipeline, work.chunk
    if chunk.postponements >= settings.max_postponements and not error.is_throttling:
        return _fail(context, work, error)
    backoff.postpone(context, work.lease, chunk, error)
    return ChunkOutcome.NOT_ENDED


def _pause(context: Context, work: _Work, error: ChordwiseError) -> ChunkOutcome:
    backoff.pause(context, work.lease, work.chunk, error)
    return ChunkOutcome.NOT_ENDED


def _end(context: Context, work: _Work, ended: EndedChunk) -> None:
    """Store the end of a chunk and the ends of its calls.

    A paid answer waits while the database is unavailable; no other worker can claim the chunk
    during that time.
    """
    work.lease.require()
    work.turn.finish()
    chunk, synthesis = work.chunk, Lease(job_id=work.chunk.job_id)
    is_in_chord = chunk.chunk_count > slice_size(context.settings)
    claims_synthesis = work.claims.claims_syntheses and not is_in_chord
    end = ChunkEnd(
        job_id=chunk.job_id,
        chunk_id=chunk.id,
        token=work.lease.token,
        ended=ended,
        calls=work.ledger.pop_ended(),
        synthesis_token=synthesis.token if claims_synthesis else None,
    )
    stores, timeout = context.stores.chunks, context.outage_timeout
    try:
        stored = stores.end(replace(end, job_end=_job_end(context, work, ended)), timeout)
    except ServiceUnavailableError:
        raise
    except Exception:  # the answer is kept, and the synthesis reports the defect of the result
        log.exception("result.defect", job_id=str(chunk.job_id))
        stored = _end_without_job(context, work, end)
    if stored is Stored.LOST:
        raise _lease_lost()
    if isinstance(stored, ClaimedSynthesis):
        context.leases.keep(synthesis)
        work.claims.syntheses.append((synthesis, stored))


def _end_without_job(context: Context, work: _Work, end: ChunkEnd) -> Outcome:
    """Store the end of a chunk without its job's end; keep its calls if that is refused."""
    try:
        return context.stores.chunks.end(end, context.outage_timeout)
    except ServiceUnavailableError:
        raise
    except Exception:
        work.ledger.restore_ended(end.calls)
        raise


def _job_end(context: Context, work: _Work, ended: EndedChunk) -> JobEnd | None:
    """Return the end of a job with a single chunk, or `None` if a model has to be asked for it."""
    chunk = work.chunk
    if chunk.chunk_count != 1:
        return None
    job = job_input(context, chunk, work.task, work.source.text)
    part = replace(ended, start_char=chunk.start_char, end_char=chunk.end_char)
    return job_results.of_only_chunk(job, part)


def _lease_lost() -> LeaseLostError:
    return LeaseLostError("Another worker has claimed the chunk.")
