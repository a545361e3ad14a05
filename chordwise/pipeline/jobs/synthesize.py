"""Synthesizing a job: exactly one result, once all chunks of the job have ended."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

import structlog
from sqlalchemy.orm import Session

from chordwise.domain.answers import Answer
from chordwise.domain.grounding import Source
from chordwise.domain.states import WORKING_JOBS, ChunkStatus, JobStatus
from chordwise.domain.tasks import AnalysisTask, AnalysisType, Stage, options_from
from chordwise.errors import (
    AwaitingBatchError,
    ChordwiseError,
    ConfigurationError,
    LeaseLostError,
    ModelError,
    PausingError,
    ServiceUnavailableError,
    TransientError,
)
from chordwise.llm.middleware.queued import Turn
from chordwise.pipeline.asking import Question
from chordwise.pipeline.asking.critique import Examined, examine, unexamined
from chordwise.pipeline.asking.merge import Integration, Integrator
from chordwise.pipeline.asking.question import policy_of
from chordwise.pipeline.jobs import backoff, job_results
from chordwise.pipeline.jobs.job_results import AskedJob
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.runtime.context import Context, Owner
from chordwise.pipeline.runtime.leases import Lease
from chordwise.storage import budgets, chunks, jobs, last_attempts
from chordwise.storage.chunk_work import SynthesisEnd
from chordwise.storage.chunks import Chunk
from chordwise.storage.job_ends import JobEnd
from chordwise.storage.jobs import Job, JobFailure
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A synthesis that is leased, the chunks that it joins, and ledger and turn of its calls."""

    lease: Lease
    job: Job
    parts: Sequence[Chunk]
    owner: Owner
    ledger: Ledger
    turn: Turn


def synthesize(context: Context, job_id: uuid.UUID) -> bool:
    """Write the job's result and end state, unless chunks are open or it is done already.

    Returns whether there is such a job. Finished work costs a look: no lock, no write.

    Raises:
        ServiceUnavailableError: The database cannot be reached; recovery repeats it.
    """
    lease = Lease(job_id=job_id)
    work = backoff.store(context, lambda session: _claim(context, session, lease))
    if isinstance(work, _Work):
        _work_on(context, work)
    return work is not None


def _work_on(context: Context, work: _Work) -> None:
    with context.leases.holding(work.lease), closing(work.turn):
        try:
            _synthesize(context, work)
        except LeaseLostError:
            context.leases.note_lost(work.lease, "answer")
        except ServiceUnavailableError:
            raise
        except Exception as error:  # a defect of ours ends the job, and visibly
            job_id = work.job.id
            log.exception("synthesis.defect", job_id=str(job_id))
            what = f"A defect of Chordwise stopped the synthesis ({type(error).__name__})."
            failure = JobFailure(code="internal", message=what, hint="See the worker's log.")
            _end(context, work, JobEnd(job_id=job_id, status=JobStatus.FAILED, failure=failure))
        finally:
            work.ledger.flush()


def _claim(context: Context, session: Session, lease: Lease) -> _Work | Literal[False] | None:
    """Claim a synthesis; false where there is nothing to do, `None` where there is no such job."""
    below = last_attempts.first_last(context.settings.pipeline.max_attempts)
    job = jobs.claim_synthesis(session, lease.job_id, lease.token, context.lease, below)
    if job is None:
        status = jobs.status_of(session, lease.job_id)
        if status not in WORKING_JOBS:
            return None if status is None else False
        job = _claim_last(context, session, lease)
    if job is None:
        return False
    run = session.get_one(Run, job.run_id)
    owner = Owner(
        job_id=job.id,
        chunk_id=None,
        token=lease.token,
        priority=run.priority,
        lane=run.lane,
        use_cache=run.use_cache,
        is_capped=budgets.is_capped(session, run.id),
    )
    parts = chunks.of_job(session, job.id)
    return _Work(
        lease=lease,
        job=job,
        parts=parts,
        owner=owner,
        ledger=context.ledger(owner),
        turn=context.models.turn(),
    )


def _claim_last(context: Context, session: Session, lease: Lease) -> Job | None:
    """Claim a synthesis for its last attempt, or find it claimed by an earlier commit."""
    found = jobs.lock(session, lease.job_id)
    if found is None or found.lease_token == lease.token:
        return found
    max_attempts = context.settings.pipeline.max_attempts
    if not last_attempts.is_last(found.attempts, max_attempts):
        return None
    if not last_attempts.may_begin(session, found.attempts, max_attempts):
        return None
    below = found.attempts + 1
    return jobs.claim_synthesis(session, lease.job_id, lease.token, context.lease, below)


def _synthesize(context: Context, work: _Work) -> None:
    if work.job.attempts > context.settings.pipeline.max_attempts:
        _end(context, work, JobEnd(job_id=work.job.id, status=JobStatus.QUARANTINED, failure=_LOST))
    elif not any(part.status == ChunkStatus.SUCCEEDED for part in work.parts):
        _end(context, work, job_results.without_result(work.job.id, work.parts))
    else:
        _integrate(context, work)


def _integrate(context: Context, work: _Work) -> None:
    job, parts = work.job, work.parts
    answers = [chunks.answer_of(part) for part in parts if part.status == ChunkStatus.SUCCEEDED]
    text = context.stores.texts.of(job.document_id, within=context.lease)
    asking = context.asking(work.owner, work.ledger, work.turn)
    try:
        document = Question(
            model=context.models.open(job.model, asking),
            task=_task_of(job),
            source=Source(text),
            judge=work.ledger.check,
            policy=policy_of(context.settings, work.lease.require),
        )
        integrator = Integrator(document=document)
        integration = _integration(context, integrator, answers, job)
        examined = _examined(context, integrator, integration, job, parts)
    except (PausingError, ConfigurationError) as error:
        backoff.store(context, lambda s: jobs.release(s, job.id, work.lease.token))
        backoff.pause(context, job.id, error)
    except (ModelError, AwaitingBatchError) as error:
        _postpone(context, work, error)
    else:
        asked = AskedJob(
            id=job.id, document_id=job.document_id, task=integrator.task, characters=len(text)
        )
        _end(context, work, job_results.with_result(asked, parts, integration, examined))


def _task_of(job: Job) -> AnalysisTask:
    return AnalysisTask(
        analysis_type=AnalysisType(job.analysis_type),
        stage=Stage.ANALYZE,
        options=options_from(job.options),
    )


def _integration(
    context: Context, integrator: Integrator, answers: Sequence[Answer], job: Job
) -> Integration:
    """Ask the model; what it cannot give after the last postponement is merged by rule."""
    try:
        return integrator.integrate(answers)
    except ModelError as error:
        if _is_final(context, job, error):
            return integrator.merged(answers, error)
        raise


def _examined(
    context: Context,
    integrator: Integrator,
    integration: Integration,
    job: Job,
    parts: Sequence[Chunk],
) -> Examined:
    """Let the answer be examined; after the last postponement it is kept as it is."""
    first = next(part for part in parts if part.status == ChunkStatus.SUCCEEDED)
    try:
        return examine(integrator, integration, (first.start_char, first.end_char))
    except ModelError as error:
        if _is_final(context, job, error):
            return unexamined(integration.answer, integrator.task, error)
        raise


def _is_final(context: Context, job: Job, error: ModelError) -> bool:
    """Tell whether waiting was tried often enough, and not only for a turn."""
    last = job.postponements >= context.settings.pipeline.max_postponements
    return last and isinstance(error, TransientError) and not error.is_throttling


_LOST = JobFailure(
    code="worker_lost",
    message="The worker was lost again and again while it was at the synthesis.",
    hint="Look at the worker's log; `chordwise retry RUN` tries again.",
)


def _end(context: Context, work: _Work, end: JobEnd) -> None:
    """Store result, end state and the run's standing in one transaction, if the lease holds."""
    lease = work.lease
    lease.require()
    calls = work.ledger.take_ended()
    ended = SynthesisEnd(job_end=replace(end, token=lease.token), calls=calls)
    if not context.stores.chunks.end(ended, context.outage):
        raise LeaseLostError("Another worker has claimed the synthesis.")
    log.info("job.ended", job_id=str(lease.job_id), status=end.status)


def _postpone(context: Context, work: _Work, error: ChordwiseError) -> None:
    job = work.job
    delay = backoff.postponement(
        context.settings.pipeline, job.postponements, error, context.random
    )
    backoff.store(context, lambda s: jobs.postpone(s, job.id, work.lease.token, delay, error))
