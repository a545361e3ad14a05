"""Analyzing one chunk: claim it, ask the model, store the answer, and never twice."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog
from sqlalchemy.orm import Session

from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source
from chordwise.domain.states import OPEN_CHUNKS
from chordwise.domain.tasks import AnalysisTask
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    InternalError,
    LeaseLostError,
    PausingError,
    ServiceUnavailableError,
    TransientError,
)
from chordwise.pipeline.asking.answers import policy_of
from chordwise.pipeline.asking.questions import question_of
from chordwise.pipeline.asking.votes import ask
from chordwise.pipeline.jobs import backoff
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import Lease
from chordwise.pipeline.runtime.messages import SYNTHESIZE
from chordwise.storage import chunk_leases, chunks, documents, jobs, outbox
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job

log = structlog.get_logger(__name__)


class ChunkOutcome(StrEnum):
    """What a header task tells Celery: ended (it counts for the chord), or not (it must not).

    `UNKNOWN` says that the message names no chunk of ours: somebody else has written it.
    """

    ENDED = "ended"
    NOT_ENDED = "not_ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A chunk that is ours until the lease runs out, with what is needed to analyze it."""

    lease: Lease
    chunk_id: uuid.UUID
    start_char: int
    postponements: int
    model: str
    task: AnalysisTask


def analyze_chunk(context: Context, job_id: uuid.UUID, chunk_id: uuid.UUID) -> ChunkOutcome:
    """Bring a chunk to an end state, unless it is there already or somebody else is at it.

    Finished work costs a look: no lock, no write, no call.

    Raises:
        ServiceUnavailableError: The database cannot be reached; the chunk is taken up again.
    """
    found = backoff.store(context, lambda s: chunks.status_of(s, job_id, chunk_id))
    if found is None:
        return ChunkOutcome.UNKNOWN
    if found not in OPEN_CHUNKS:
        return ChunkOutcome.ENDED
    lease = Lease(job_id=job_id, chunk_id=chunk_id)
    chunk = backoff.store(context, lambda session: _claim(context, session, lease, chunk_id))
    if chunk is None:
        return backoff.store(context, lambda s: _outcome_of_others(s, job_id, chunk_id))
    with context.leases.holding(lease):
        return _work_on(context, lease, chunk)


def _work_on(context: Context, lease: Lease, chunk: Chunk) -> ChunkOutcome:
    claimed = backoff.store(context, lambda session: _read(session, lease, chunk))
    try:
        return _analyze(context, claimed)
    except LeaseLostError:
        context.leases.note_lost(lease, "answer")
        return ChunkOutcome.NOT_ENDED
    except ServiceUnavailableError:
        raise
    except Exception as error:  # a defect of ours ends the chunk, and visibly
        log.exception("chunk.defect", chunk_id=str(chunk.id))
        what = f"A defect of Chordwise stopped this chunk ({type(error).__name__})."
        return _fail(context, claimed, InternalError(what, "The worker's log has the details."))


def end_if_last(session: Session, job_id: uuid.UUID) -> None:
    """After a chunk has ended or was put off: promise the synthesis if it was the last to end."""
    jobs.note_progress(session, job_id)
    if chunks.open_ids(session, job_id):
        jobs.mark_waiting(session, job_id)
    else:
        outbox.put(session, SYNTHESIZE, job_id, reason="last chunk ended")


def _claim(context: Context, session: Session, lease: Lease, chunk_id: uuid.UUID) -> Chunk | None:
    jobs.lock(session, lease.job_id)
    most_attempts = context.settings.pipeline.max_attempts
    if chunk_leases.quarantine(session, chunk_id, most_attempts):
        end_if_last(session, lease.job_id)
        return None
    chunk = chunk_leases.claim(session, chunk_id, lease.token, context.lease, most_attempts)
    if chunk is not None:
        jobs.mark_running(session, lease.job_id)
    return chunk


def _read(session: Session, lease: Lease, chunk: Chunk) -> Claimed:
    """Read what there is to analyze, after the claim: nobody waits for it behind our lock."""
    job = session.get_one(Job, lease.job_id)
    text = documents.part_of(session, job.document_id, chunk.start_char, chunk.end_char)
    return Claimed(
        lease=lease,
        chunk_id=chunk.id,
        start_char=chunk.start_char,
        postponements=chunk.postponements,
        model=job.model,
        task=question_of(job, text),
    )


def _outcome_of_others(session: Session, job_id: uuid.UUID, chunk_id: uuid.UUID) -> ChunkOutcome:
    ended = chunks.status_of(session, job_id, chunk_id) not in OPEN_CHUNKS
    return ChunkOutcome.ENDED if ended else ChunkOutcome.NOT_ENDED


def _analyze(context: Context, claimed: Claimed) -> ChunkOutcome:
    try:
        lease = claimed.lease
        model = context.models.open(claimed.model, lease.job_id, claimed.chunk_id, lease.token)
        source = Source(claimed.task.text, offset=claimed.start_char)
        policy = policy_of(context.settings, claimed.lease.require)
        answer = ask(model, claimed.task, source, context.models.judge, policy)
    except ServiceUnavailableError:
        raise  # the ledger's database, not the model: recovery takes the chunk up again
    except (PausingError, ConfigurationError) as error:
        return _pause(context, claimed, error)
    except TransientError as error:  # waiting for a batch among them
        return _postpone(context, claimed, error)
    except ChordwiseError as error:
        return _fail(context, claimed, error)
    return _succeed(context, claimed, answer)


def _succeed(context: Context, claimed: Claimed, answer: Answer) -> ChunkOutcome:
    token = claimed.lease.token
    _leave(context, claimed, lambda s: chunks.succeed(s, claimed.chunk_id, token, answer))
    return ChunkOutcome.ENDED


def _fail(context: Context, claimed: Claimed, error: ChordwiseError) -> ChunkOutcome:
    token = claimed.lease.token
    _leave(context, claimed, lambda s: chunks.fail(s, claimed.chunk_id, token, error))
    log.warning("chunk.failed", chunk_id=str(claimed.chunk_id), code=error.code, what=error.what)
    return ChunkOutcome.ENDED


def _postpone(context: Context, claimed: Claimed, error: TransientError) -> ChunkOutcome:
    settings = context.settings.pipeline
    if claimed.postponements >= settings.max_postponements and not error.is_throttling:
        return _fail(context, claimed, error)
    delay = backoff.postponement(settings, claimed.postponements, error, context.random)

    def write(session: Session) -> bool:
        return chunk_leases.postpone(session, claimed.chunk_id, claimed.lease.token, delay, error)

    _leave(context, claimed, write)
    log.info("chunk.postponed", chunk_id=str(claimed.chunk_id), code=error.code, delay=str(delay))
    return ChunkOutcome.NOT_ENDED


def _pause(context: Context, claimed: Claimed, error: ChordwiseError) -> ChunkOutcome:
    backoff.store(context, lambda s: chunk_leases.release(s, claimed.chunk_id, claimed.lease.token))
    backoff.pause(context, claimed.lease.job_id, error)
    return ChunkOutcome.NOT_ENDED


def _leave(context: Context, claimed: Claimed, write: Callable[[Session], bool]) -> None:
    """Store what became of a chunk; the job's row is locked first, so that the last one is known.

    An answer that has been paid for waits as long as the database is away: nobody else can take
    the chunk over as long.

    Raises:
        LeaseLostError: Somebody else has taken the chunk over.
    """
    claimed.lease.require()

    def write_and_look(session: Session) -> None:
        jobs.lock(session, claimed.lease.job_id)
        if write(session):
            end_if_last(session, claimed.lease.job_id)
        elif not chunks.has_left(session, claimed.chunk_id, claimed.lease.token):
            raise LeaseLostError("Somebody else has taken the chunk over.")

    backoff.store_answer(context, write_and_look)
