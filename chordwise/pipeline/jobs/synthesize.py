"""Synthesizing a job: once all chunks have ended, exactly one result, whoever comes first."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import structlog
from sqlalchemy.orm import Session

from chordwise.domain import missing_rows, quality, self_consistency
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonValue
from chordwise.domain.states import WORKING_JOBS, ChunkStatus, JobStatus
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
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking.answers import policy_of
from chordwise.pipeline.asking.critique import Examined, examine, unexamined
from chordwise.pipeline.asking.merge import Integration, Integrator
from chordwise.pipeline.asking.questions import question_of
from chordwise.pipeline.jobs import backoff
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.runtime.context import Context, Owner
from chordwise.pipeline.runtime.leases import Lease
from chordwise.storage import budgets, chunks, jobs, last_attempts, model_calls, results, runs
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job, JobFailure
from chordwise.storage.results import Result
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A synthesis that is leased, the chunks that it joins, and the ledger of its calls."""

    lease: Lease
    job: Job
    parts: Sequence[Chunk]
    owner: Owner
    ledger: Ledger


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
    with context.leases.holding(work.lease):
        try:
            _synthesize(context, work)
        except LeaseLostError:
            context.leases.note_lost(work.lease, "answer")
        except ServiceUnavailableError:
            raise
        except Exception as error:  # a defect of ours ends the job, and visibly
            log.exception("synthesis.defect", job_id=str(work.job.id))
            what = f"A defect of Chordwise stopped the synthesis ({type(error).__name__})."
            failure = JobFailure(code="internal", message=what, hint="See the worker's log.")
            _end(context, work, JobStatus.FAILED, failure)
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
    return _Work(lease=lease, job=job, parts=parts, owner=owner, ledger=context.ledger(owner))


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
        _end(context, work, JobStatus.QUARANTINED, _LOST)
    elif not any(part.status == ChunkStatus.SUCCEEDED for part in work.parts):
        _end(context, work, *_verdict(work.parts))
    else:
        _integrate(context, work)


def _integrate(context: Context, work: _Work) -> None:
    job, parts = work.job, work.parts
    answers = [chunks.answer_of(part) for part in parts if part.status == ChunkStatus.SUCCEEDED]
    text = context.stores.texts.of(job.document_id, within=context.lease)
    try:
        integrator = Integrator(
            model=context.models.open(job.model, context.asking(work.owner, work.ledger)),
            task=question_of(job),
            text=text,
            judge=work.ledger.check,
            policy=policy_of(context.settings, work.lease.require),
        )
        integration = _integration(context, integrator, answers, job)
        examined = _examined(context, integrator, integration, job, parts)
    except (PausingError, ConfigurationError) as error:
        backoff.store(context, lambda s: jobs.release(s, job.id, work.lease.token))
        backoff.pause(context, job.id, error)
    except (ModelError, AwaitingBatchError) as error:
        _postpone(context, work, error)
    else:
        result = _result(job, text, parts, examined)
        _end(context, work, *_end_of(parts, integration, examined), result)


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


_NO_CHUNKS = JobFailure(
    code="internal",
    message="The document was cut into no chunks at all.",
    hint="This is a defect; please report it with the document's media type.",
)


def _verdict(parts: Sequence[Chunk]) -> tuple[JobStatus, JobFailure]:
    """Name the end of a job of whose chunks some or all failed: the commonest reason counts."""
    if not parts:
        return JobStatus.FAILED, _NO_CHUNKS
    failed = [part for part in parts if part.status != ChunkStatus.SUCCEEDED]
    code, count = Counter(part.error_code for part in failed).most_common(1)[0]
    example = next(part for part in failed if part.error_code == code)
    failure = JobFailure(
        code=code or "internal",
        message=f"{_how_many(len(failed), len(parts), count)}{example.error_message}",
        hint=example.hint or "",
    )
    if len(failed) < len(parts):
        return JobStatus.PARTIAL, failure
    quarantined = all(part.status == ChunkStatus.QUARANTINED for part in failed)
    return (JobStatus.QUARANTINED if quarantined else JobStatus.FAILED), failure


def _how_many(failed: int, chunks: int, alike: int) -> str:
    """Say how many chunks failed and how many of these for the reason that follows."""
    if chunks == 1:
        return ""
    so = "" if alike == failed else f", {alike} of them so"
    return f"{failed} of {chunks} chunks failed{so}: "


def _end_of(
    parts: Sequence[Chunk], integration: Integration, examined: Examined
) -> tuple[JobStatus, JobFailure | None]:
    """Name the end of a job that has a result: `partial` where anything is missing in it."""
    reasons: list[JobFailure] = []
    if any(part.status != ChunkStatus.SUCCEEDED for part in parts):
        reasons.append(_verdict(parts)[1])
    elif integration.error is not None:
        error = integration.error
        message = f"The parts were merged by rule, since the synthesis failed: {error.what}"
        reasons.append(JobFailure(code=error.code, message=message, hint=error.hint))
    if lost := missing_rows.losses(examined.answer.missing_rows):
        said = " ".join(missing_rows.sentences(lost))
        hint = missing_rows.HINT if len(parts) > 1 else missing_rows.HINT_OF_ONE_CHUNK
        failure = JobFailure(code=missing_rows.CODE, message=said, hint=hint)
        reasons.append(failure)
    if not reasons:
        return JobStatus.SUCCEEDED, None
    message = " ".join(reason.message for reason in reasons)
    return JobStatus.PARTIAL, replace(reasons[0], message=message)


def _result(job: Job, text: str, parts: Sequence[Chunk], examined: Examined) -> Result:
    task, answer = question_of(job), examined.answer
    agreement = answer.agreement
    confidence = self_consistency.tempered(answer.confidence, agreement, task.analysis_type)
    covered = [(p.start_char, p.end_char) for p in parts if p.status == ChunkStatus.SUCCEEDED]
    return Result(
        job_id=job.id,
        document_id=job.document_id,
        analysis_type=job.analysis_type,
        output=analysis_for(task.analysis_type).complete(answer.output, task.options),
        confidence=confidence,
        quality=answer.quality,
        coverage=quality.coverage(len(text), covered) * missing_rows.share(answer.missing_rows),
        agreement=agreement,
        critique=examined.critique.to_json() if examined.critique else None,
        needs_review=examined.needs_review(confidence, task.options),
        missing_rows=missing_rows.to_json(answer.missing_rows),
        failed_chunks=[_named(p) for p in parts if p.status != ChunkStatus.SUCCEEDED],
        provider=answer.provider,
        model=answer.model,
        language_model=EXTRACTIVE not in {answer.provider, *(part.provider for part in parts)},
        prompt_version=answer.prompt_version,
    )


def _named(part: Chunk) -> JsonValue:
    return {
        "position": part.position,
        "start_char": part.start_char,
        "end_char": part.end_char,
        "error_code": part.error_code,
    }


def _end(
    context: Context,
    work: _Work,
    status: JobStatus,
    failure: JobFailure | None,
    result: Result | None = None,
) -> None:
    """Store result, end state and the run's standing in one transaction, if the lease holds."""
    lease = work.lease
    lease.require()
    calls = work.ledger.take_ended()

    def write(session: Session) -> bool:
        job = jobs.lock(session, lease.job_id)
        model_calls.end_all(session, calls)
        if job is None or job.lease_token != lease.token:
            return False
        if job.status != JobStatus.SYNTHESIZING:
            return True  # an earlier commit was made, and only its answer was lost
        if result is not None:
            results.save(session, result)
        jobs.end(job, status, failure)
        session.flush()
        runs.settle(session, job.run_id)
        return True

    if not backoff.store_answer(context, write):
        raise LeaseLostError("Another worker has claimed the synthesis.")
    log.info("job.ended", job_id=str(lease.job_id), status=status)


def _postpone(context: Context, work: _Work, error: ChordwiseError) -> None:
    job = work.job
    delay = backoff.postponement(
        context.settings.pipeline, job.postponements, error, context.random
    )
    backoff.store(context, lambda s: jobs.postpone(s, job.id, work.lease.token, delay, error))
