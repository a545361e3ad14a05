"""Analyzes one chunk: claims it, asks the model, and stores the answer exactly once."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock

import structlog
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.grounding import Source
from chordwise.domain.states import OPEN_CHUNKS
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    LeaseLostError,
    PausingError,
    ServiceUnavailableError,
    TransientError,
)
from chordwise.pipeline.asking import ask
from chordwise.pipeline.asking.question import about_part
from chordwise.pipeline.jobs import job_results
from chordwise.pipeline.jobs.job_results import job_input, task_of
from chordwise.pipeline.jobs.step import Step, working
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import Lease
from chordwise.pipeline.runtime.messages import SYNTHESIZE, slice_size
from chordwise.storage import chunks, jobs
from chordwise.storage.chunk_work import ChunkEnd, JobEnd
from chordwise.storage.chunks import EndedChunk
from chordwise.storage.claims import (
    ClaimedChunk,
    ClaimedSynthesis,
    claim_chunk,
    find_chunks,
    is_last,
    quarantine,
)

log = structlog.get_logger(__name__)


class ChunkOutcome(StrEnum):
    """What a header task returns to Celery: ended (counts for the chord) or not ended.

    `UNKNOWN` means that there is no such chunk: the message was not sent by Chordwise.
    """

    ENDED = "ended"
    NOT_ENDED = "not_ended"
    UNKNOWN = "unknown"


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
        self._chunks: Mapping[uuid.UUID, ClaimedChunk] | None = None
        self._error: Exception | None = None
        self.syntheses: deque[tuple[Lease, ClaimedSynthesis]] = deque()

    def of(self, chunk_id: uuid.UUID) -> ClaimedChunk | None:
        """Return a chunk of the message after the claim, or `None` if it does not exist."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._chunks is None:
                try:
                    claims = self._context.stores.chunks.claim(list(self._tokens.items()))
                    for chunk in claims.values():
                        if chunk.is_claimed:
                            self._context.leases.keep(_lease_of(chunk))
                    self._chunks = claims
                except Exception as error:
                    self._error = error
                    raise
        return self._chunks.get(self._tokens[chunk_id])


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
    if chunk is not None and not chunk.is_claimed and chunk.status in OPEN_CHUNKS:
        chunk = _claim_last(context, chunk)
    if chunk is None:
        return ChunkOutcome.UNKNOWN
    if not chunk.is_claimed:
        is_open = chunk.status in OPEN_CHUNKS
        return ChunkOutcome.NOT_ENDED if is_open else ChunkOutcome.ENDED
    with working(context, chunk, _lease_of(chunk)) as step:
        text = chunk.text
        if text is None:
            text = context.stores.texts.text(chunk.document_id, within=context.lease)
        task, source = about_part(task_of(chunk), Source(text), chunk.start_char, chunk.end_char)
        analysis = _Analysis(step=step, task=task, source=source, claims=claims)
        has_ended = step.perform(analysis.work, analysis.fail)
        return ChunkOutcome.ENDED if has_ended else ChunkOutcome.NOT_ENDED


def _lease_of(chunk: ClaimedChunk) -> Lease:
    return Lease(job_id=chunk.job_id, chunk_id=chunk.id, token=chunk.claim_token)


def _claim_last(context: Context, chunk: ClaimedChunk) -> ClaimedChunk | None:
    """Claim a chunk if this is its last attempt, or quarantine it if it has had that."""
    max_attempts, token = context.settings.pipeline.max_attempts, chunk.claim_token
    if not is_last(chunk.attempts, max_attempts):
        return chunk

    def claim(session: Session) -> ClaimedChunk | None:
        jobs.lock(session, chunk.job_id)
        if not quarantine(session, chunk.id, max_attempts):
            return claim_chunk(session, chunk.id, token, context.lease, max_attempts)
        jobs.count_down(session, [chunk.job_id], SYNTHESIZE)
        return find_chunks(session, [(chunk.id, token)]).get(token)

    return context.database.commit(claim, context.lease)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Analysis:
    """The analysis of a leased chunk: its question, its source, and the claims of its message."""

    step: Step[ClaimedChunk]
    task: AnalysisTask
    source: Source
    claims: SliceClaims

    def work(self) -> None:
        try:
            answer = ask(self.step.question(self.task, self.source))
        except (ServiceUnavailableError, PausingError, ConfigurationError):
            raise
        except ChordwiseError as error:
            if isinstance(error, TransientError) and not self.step.is_given_up(error):
                raise
            self.fail(error)
        else:
            self._end(chunks.answered(answer))

    def fail(self, error: ChordwiseError) -> None:
        self._end(chunks.failed(error))
        chunk_id = str(self.step.claimed.id)
        log.warning("chunk.failed", chunk_id=chunk_id, code=error.code, what=error.what)

    def _end(self, ended: EndedChunk) -> None:
        step, chunk = self.step, self.step.claimed
        step.turn.finish()  # before the result is computed
        synthesis = Lease(job_id=chunk.job_id)
        is_in_chord = chunk.chunk_count > slice_size(step.context.settings)
        claims_synthesis = self.claims.claims_syntheses and not is_in_chord
        end = ChunkEnd(
            job_id=chunk.job_id,
            chunk_id=chunk.id,
            token=step.lease.token,
            ended=ended,
            synthesis_token=synthesis.token if claims_synthesis else None,
        )
        try:
            stored = step.end(replace(end, job_end=self._job_end(ended)))
        except (LeaseLostError, ServiceUnavailableError):
            raise
        except Exception:  # the answer is kept, and the synthesis reports the defect of the result
            log.exception("result.defect", job_id=str(chunk.job_id))
            stored = step.end(end)
        if isinstance(stored, ClaimedSynthesis):
            step.context.leases.keep(synthesis)
            self.claims.syntheses.append((synthesis, stored))

    def _job_end(self, ended: EndedChunk) -> JobEnd | None:
        """Return the end of a job with one chunk, or `None` if a model has to be asked for it."""
        chunk = self.step.claimed
        if chunk.chunk_count != 1:
            return None
        job = job_input(self.step.context, chunk, self.task, self.source.text)
        part = replace(ended, start_char=chunk.start_char, end_char=chunk.end_char)
        return job_results.of_only_chunk(job, part)
