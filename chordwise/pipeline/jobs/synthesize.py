"""Synthesizes a job: exactly one result, after all of its chunks have ended."""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import partial
from typing import Literal

import structlog
from sqlalchemy.orm import Session

from chordwise.domain import grounding
from chordwise.domain.grounding import Source
from chordwise.domain.states import WORKING_JOBS, ChunkStatus, JobStatus
from chordwise.errors import ChordwiseError, ModelError
from chordwise.pipeline.asking.critique import examine, unexamined
from chordwise.pipeline.asking.merge import Synthesizer
from chordwise.pipeline.jobs import job_results
from chordwise.pipeline.jobs.job_results import job_input, task_of
from chordwise.pipeline.jobs.step import Step, working
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.leases import Lease
from chordwise.storage import chunks, claims, jobs
from chordwise.storage.chunk_work import JobEnd
from chordwise.storage.claims import ClaimedSynthesis
from chordwise.storage.jobs import JobFailure

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

    def fail(error: ChordwiseError) -> None:
        failure = JobFailure(code=error.code, message=error.what, hint=error.hint)
        _end(step, JobEnd(job_id=claimed.job_id, status=JobStatus.FAILED, failure=failure))

    with working(context, claimed, lease) as step:
        step.perform(partial(_synthesize, step), fail)


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
        return claims.find_synthesis(session, lease.job_id, lease.token) or False
    max_attempts = context.settings.pipeline.max_attempts
    if not claims.is_last(job.attempts, max_attempts):
        return False
    if not claims.may_claim(session, lease.job_id, job.attempts, max_attempts):
        return False
    claim, below = (lease.job_id, lease.token), job.attempts + 1
    claimed = claims.claim_syntheses(session, [claim], context.lease, below)
    return claimed.get(lease.token, False)


def _synthesize(step: Step[ClaimedSynthesis]) -> None:
    job_id, parts = step.claimed.job_id, step.claimed.parts
    if step.claimed.attempts > step.context.settings.pipeline.max_attempts:
        _end(step, JobEnd(job_id=job_id, status=JobStatus.QUARANTINED, failure=_LOST))
    elif not any(part.status == ChunkStatus.SUCCEEDED for part in parts):
        _end(step, job_results.without_result(job_id, parts))
    else:
        _end(step, _end_with_result(step))  # the answers are freed before it is stored


def _end_with_result(step: Step[ClaimedSynthesis]) -> JobEnd:
    """Return the end of a job with an answer, which joins those of its chunks.

    After the last postponement, answers that the model cannot join are merged by rule, and an
    answer that it cannot examine is kept.
    """
    context, job = step.context, step.claimed
    text = context.stores.texts.text(job.document_id, within=context.lease)
    source = Source(text)
    parts = [
        replace(part, answer=part.answer and grounding.regrounded(part.answer, source))
        for part in job.parts
    ]
    succeeded = [part for part in parts if part.status == ChunkStatus.SUCCEEDED]
    answers = [chunks.answer_of(part) for part in succeeded]
    synthesizer = Synthesizer(document=step.question(task_of(job), source))
    try:
        synthesis = synthesizer.synthesize(answers)
    except ModelError as error:
        if not step.is_given_up(error):
            raise
        synthesis = synthesizer.merged(answers, error)
    try:
        span = (succeeded[0].start_char, succeeded[0].end_char)
        examined = examine(synthesizer, synthesis, span)
    except ModelError as error:
        if not step.is_given_up(error):
            raise
        examined = unexamined(synthesis.answer, synthesizer.task, error)
    inputs = job_input(context, job, synthesizer.task, text)
    return job_results.with_result(inputs, parts, synthesis, examined)


_LOST = JobFailure(
    code="worker_lost",
    message="The worker was lost repeatedly during the synthesis.",
    hint="Look at the worker's log; `chordwise continue RUN` tries again.",
)


def _end(step: Step[ClaimedSynthesis], end: JobEnd) -> None:
    step.end(end)
    log.info("job.ended", job_id=str(step.claimed.job_id), status=end.status)
