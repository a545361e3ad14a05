"""Synthesizes a job: exactly one result, after all of its chunks have ended."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

import structlog
from sqlalchemy.orm import Session

from chordwise.domain import grounding
from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source
from chordwise.domain.states import WORKING_JOBS, ChunkStatus, JobStatus
from chordwise.errors import (
    AwaitingBatchError,
    ConfigurationError,
    LeaseLostError,
    ModelError,
    PausingError,
    ServiceUnavailableError,
    TransientError,
)
from chordwise.llm.middleware.concurrency_limited import Turn
from chordwise.pipeline.asking import Question
from chordwise.pipeline.asking.assessment import AssessedAnswer
from chordwise.pipeline.asking.critique import examine, unexamined
from chordwise.pipeline.asking.merge import Synthesis, Synthesizer
from chordwise.pipeline.asking.question import policy_of
from chordwise.pipeline.jobs import backoff, job_results
from chordwise.pipeline.jobs.job_results import job_input, task_of
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import Lease
from chordwise.storage import chunks, jobs, leases, outbox, synthesis_claims
from chordwise.storage.chunk_work import Stored
from chordwise.storage.job_ends import JobEnd
from chordwise.storage.jobs import JobFailure
from chordwise.storage.synthesis_claims import ClaimedSynthesis

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A leased synthesis with the ledger and turn of its calls."""

    lease: Lease
    job: ClaimedSynthesis
    ledger: Ledger
    turn: Turn


def synthesize(context: Context, job_id: uuid.UUID) -> bool:
    """Write the result and end state of a job, unless chunks are open or it has ended.

    Returns whether there is such a job. For a job that has ended there is one read: no lock, no
    write.

    Raises:
        ServiceUnavailableError: The database cannot be reached; recovery repeats it.
    """
    lease = Lease(job_id=job_id)
    claimed: ClaimedSynthesis | Literal[False] | None
    claimed = context.stores.chunks.claim_synthesis(job_id, lease.token)
    if claimed is None:
        for attempt in context.database.attempts(context.lease):
            with attempt as session:
                claimed = _claim_last(context, session, lease)
    if isinstance(claimed, ClaimedSynthesis):
        synthesize_claimed(context, lease, claimed)
    return claimed is not None


def synthesize_claimed(context: Context, lease: Lease, claimed: ClaimedSynthesis) -> None:
    """Write the result and end state of a job whose synthesis is claimed with this lease.

    Raises:
        ServiceUnavailableError: The database cannot be reached; recovery repeats it.
    """
    work = _Work(lease=lease, job=claimed, ledger=context.ledger(lease), turn=context.models.turn())
    with context.leases.holding(lease), closing(work.turn):
        try:
            _synthesize(context, work)
        except LeaseLostError:
            context.leases.record_loss(work.lease, "answer")
        except ServiceUnavailableError:
            raise
        except Exception as error:  # a defect ends the job visibly
            job_id = work.job.job_id
            log.exception("synthesis.defect", job_id=str(job_id))
            what = f"A bug in Chordwise stopped the synthesis ({type(error).__name__})."
            failure = JobFailure(code="internal", message=what, hint="See the worker's log.")
            _end(context, work, JobEnd(job_id=job_id, status=JobStatus.FAILED, failure=failure))
        finally:
            work.ledger.flush()


def _claim_last(
    context: Context, session: Session, lease: Lease
) -> ClaimedSynthesis | Literal[False] | None:
    """Claim a synthesis for its last attempt, or return the claim of an earlier commit.

    False if there is nothing to do, `None` if there is no such job.
    """
    status = jobs.status_of(session, lease.job_id)
    if status not in WORKING_JOBS:
        return None if status is None else False
    job = jobs.lock(session, lease.job_id)
    if job is None:
        return None
    if job.lease_token == lease.token:
        return synthesis_claims.find_claimed(session, lease.job_id, lease.token) or False
    max_attempts = context.settings.pipeline.max_attempts
    if not leases.is_last(job.attempts, max_attempts):
        return False
    if not leases.may_claim(session, job.attempts, max_attempts):
        outbox.defer(session, [lease.job_id], leases.LAST_ATTEMPT_WAIT)
        return False
    claims, below = [(lease.job_id, lease.token)], job.attempts + 1
    claimed = synthesis_claims.claim_all(session, claims, context.lease, below)
    return claimed.get(lease.token, False)


def _synthesize(context: Context, work: _Work) -> None:
    job_id, parts = work.job.job_id, work.job.parts
    if work.job.attempts > context.settings.pipeline.max_attempts:
        _end(context, work, JobEnd(job_id=job_id, status=JobStatus.QUARANTINED, failure=_LOST))
    elif not any(part.status == ChunkStatus.SUCCEEDED for part in parts):
        _end(context, work, job_results.without_result(job_id, parts))
    elif (end := _synthesize_document(context, work)) is not None:
        _end(context, work, end)  # the answers are freed before it is stored


def _synthesize_document(context: Context, work: _Work) -> JobEnd | None:
    """Return the end of a job with an answer; `None` if it has to wait."""
    job, text = work.job, context.stores.texts.text(work.job.document_id, within=context.lease)
    source = Source(text)
    parts = [
        replace(part, answer=part.answer and grounding.regrounded(part.answer, source))
        for part in job.parts
    ]
    answers = [chunks.answer_of(part) for part in parts if part.status == ChunkStatus.SUCCEEDED]
    call_context = context.call_context(job, work.ledger, work.turn)
    try:
        document = Question(
            model=context.models.open(job.model, call_context),
            task=task_of(job),
            source=source,
            record_check=work.ledger.check,
            policy=policy_of(context.settings, work.lease.require),
        )
        synthesizer = Synthesizer(document=document)
        synthesis = _synthesized(context, synthesizer, answers, job)
        examined = _examined(context, synthesizer, synthesis, job)
    except (PausingError, ConfigurationError) as error:
        backoff.pause(context, work.lease, job, error)
    except (ModelError, AwaitingBatchError) as error:
        backoff.postpone(context, work.lease, job, error)
    else:
        inputs = job_input(context, job, synthesizer.task, text)
        return job_results.with_result(inputs, parts, synthesis, examined)
    return None


def _synthesized(
    context: Context, synthesizer: Synthesizer, answers: Sequence[Answer], job: ClaimedSynthesis
) -> Synthesis:
    """Join the answers; after the last postponement, merge by rule what the model cannot join."""
    try:
        return synthesizer.synthesize(answers)
    except ModelError as error:
        if _is_final(context, job, error):
            return synthesizer.merged(answers, error)
        raise


def _examined(
    context: Context, synthesizer: Synthesizer, synthesis: Synthesis, job: ClaimedSynthesis
) -> AssessedAnswer:
    """Have the answer examined; after the last postponement, keep it unexamined."""
    first = next(part for part in job.parts if part.status == ChunkStatus.SUCCEEDED)
    try:
        return examine(synthesizer, synthesis, (first.start_char, first.end_char))
    except ModelError as error:
        if _is_final(context, job, error):
            return unexamined(synthesis.answer, synthesizer.task, error)
        raise


def _is_final(context: Context, job: ClaimedSynthesis, error: ModelError) -> bool:
    """Return whether all postponements are used up by errors other than throttling."""
    last = job.postponements >= context.settings.pipeline.max_postponements
    return last and isinstance(error, TransientError) and not error.is_throttling


_LOST = JobFailure(
    code="worker_lost",
    message="The worker was lost repeatedly during the synthesis.",
    hint="Look at the worker's log; `chordwise continue RUN` tries again.",
)


def _end(context: Context, work: _Work, end: JobEnd) -> None:
    """Store result, end state and the run's status in one transaction, if the lease holds."""
    lease = work.lease
    lease.require()
    work.turn.finish()
    calls = work.ledger.pop_ended()
    ended = replace(end, token=lease.token, calls=calls)
    try:
        stored = context.stores.chunks.end(ended, context.outage_timeout)
    except ServiceUnavailableError:
        raise
    except Exception:
        work.ledger.restore_ended(calls)
        raise
    if stored is Stored.LOST:
        raise LeaseLostError("Another worker has claimed the synthesis.")
    log.info("job.ended", job_id=str(lease.job_id), status=end.status)
