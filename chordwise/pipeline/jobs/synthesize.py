"""Synthesizes a job: exactly one result, after all of its chunks have ended."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
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
from chordwise.pipeline.asking.assessment import AssessedAnswer
from chordwise.pipeline.asking.critique import examine, unexamined
from chordwise.pipeline.asking.merge import Synthesis, Synthesizer
from chordwise.pipeline.jobs import backoff, job_results
from chordwise.pipeline.jobs.job_results import job_input, task_of
from chordwise.pipeline.jobs.step import Step, working
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import Lease
from chordwise.storage import attempts, chunks, jobs, outbox, synthesis_claims
from chordwise.storage.chunk_work import JobEnd
from chordwise.storage.jobs import JobFailure
from chordwise.storage.synthesis_claims import ClaimedSynthesis

log = structlog.get_logger(__name__)


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
    with working(context, claimed, lease) as step:
        try:
            _synthesize(step)
        except LeaseLostError:
            step.record_loss()
        except ServiceUnavailableError:
            raise
        except Exception as error:  # a defect ends the job visibly
            log.exception("synthesis.defect", job_id=str(claimed.job_id))
            what = f"A bug in Chordwise stopped the synthesis ({type(error).__name__})."
            failure = JobFailure(code="internal", message=what, hint="See the worker's log.")
            _end(step, JobEnd(job_id=claimed.job_id, status=JobStatus.FAILED, failure=failure))


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
    if not attempts.is_last(job.attempts, max_attempts):
        return False
    if not attempts.may_claim(session, job.attempts, max_attempts):
        outbox.defer(session, [lease.job_id], attempts.LAST_ATTEMPT_WAIT)
        return False
    claims, below = [(lease.job_id, lease.token)], job.attempts + 1
    claimed = synthesis_claims.claim_all(session, claims, context.lease, below)
    return claimed.get(lease.token, False)


def _synthesize(step: Step[ClaimedSynthesis]) -> None:
    job_id, parts = step.claimed.job_id, step.claimed.parts
    if step.claimed.attempts > step.context.settings.pipeline.max_attempts:
        _end(step, JobEnd(job_id=job_id, status=JobStatus.QUARANTINED, failure=_LOST))
    elif not any(part.status == ChunkStatus.SUCCEEDED for part in parts):
        _end(step, job_results.without_result(job_id, parts))
    elif (end := _synthesize_document(step)) is not None:
        _end(step, end)  # the answers are freed before it is stored


def _synthesize_document(step: Step[ClaimedSynthesis]) -> JobEnd | None:
    """Return the end of a job with an answer; `None` if it has to wait."""
    context, job = step.context, step.claimed
    text = context.stores.texts.text(job.document_id, within=context.lease)
    source = Source(text)
    parts = [
        replace(part, answer=part.answer and grounding.regrounded(part.answer, source))
        for part in job.parts
    ]
    answers = [chunks.answer_of(part) for part in parts if part.status == ChunkStatus.SUCCEEDED]
    try:
        synthesizer = Synthesizer(document=step.question(task_of(job), source))
        synthesis = _synthesized(context, synthesizer, answers, job)
        examined = _examined(context, synthesizer, synthesis, job)
    except (PausingError, ConfigurationError) as error:
        backoff.pause(step, error)
    except (ModelError, AwaitingBatchError) as error:
        backoff.postpone(step, error)
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


def _end(step: Step[ClaimedSynthesis], end: JobEnd) -> None:
    step.end(end)
    log.info("job.ended", job_id=str(step.claimed.job_id), status=end.status)
