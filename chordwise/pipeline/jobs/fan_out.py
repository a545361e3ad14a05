"""Fanning a document's chunks out as one chord; repeating it is harmless."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy.orm import Session

from chordwise.domain import chunking
from chordwise.domain.states import JobStatus
from chordwise.errors import ConfigurationError
from chordwise.pipeline.asking.questions import question_of, text_budget
from chordwise.pipeline.jobs import backoff
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import MAX_SLICE, SYNTHESIZE, sliced
from chordwise.storage import chunks, clock, documents, jobs, outbox, runs
from chordwise.storage.jobs import Job, JobFailure


def fan_out(context: Context, job_id: uuid.UUID) -> int | None:
    """Write the job's chunks, then send those that are open; return how many were sent.

    `None` says that there is no such job: somebody else has written the message. Work that is not
    to be done costs a look: no lock, no write.

    A job that has ended, is paused, is being synthesized, follows another, or whose run is
    cancelled is left alone; one whose model is not configured in this process is paused. What was
    sent before is not sent again.

    Raises:
        ServiceUnavailableError: Database or broker cannot be reached; recovery repeats it.
    """
    counted = backoff.store(context, lambda session: _count_attempt(context, session, job_id))
    if not counted:
        return 0 if counted is False else None
    with context.leases.fanning_out(job_id):
        try:
            unsent = backoff.store(context, lambda session: _prepare(context, session, job_id))
        except ConfigurationError as error:
            backoff.pause(context, job_id, error)
            return 0
        if unsent:
            context.messenger.start_chord(job_id, sliced(unsent, _slice_size(context)))
            backoff.store(context, lambda session: chunks.mark_sent(session, unsent))
        return len(unsent)


_LOST = JobFailure(
    code="worker_lost",
    message="The worker was lost again and again while it cut the document into chunks.",
    hint="Look at the worker's log; `chordwise retry RUN` tries again.",
)


def _locked(session: Session, job_id: uuid.UUID) -> Job | None:
    """Return a job that is to be fanned out, locked: it can be cancelled after the commit only."""
    job = jobs.lock(session, job_id)
    if job is None or job.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
        return None
    follows = job.reused_from is not None
    return None if follows or runs.is_cancelled(session, job.run_id) else job


def _count_attempt(context: Context, session: Session, job_id: uuid.UUID) -> bool | None:
    """Count before the work, so that a kill counts; after the limit the job is set aside.

    Returns whether there is work to do; `None` where there is no such job.
    """
    status = jobs.status_of(session, job_id)
    if status not in (JobStatus.QUEUED, JobStatus.RUNNING):
        return None if status is None else False
    job = _locked(session, job_id)
    if job is None:
        return False
    if job.status != JobStatus.QUEUED:
        return True
    if job.attempts >= context.settings.pipeline.max_attempts:
        jobs.end(session, job, JobStatus.QUARANTINED, _LOST)
        session.flush()
        runs.settle(session, job.run_id)
        return False
    job.attempts += 1
    return True


def _prepare(context: Context, session: Session, job_id: uuid.UUID) -> Sequence[uuid.UUID]:
    job = _locked(session, job_id)
    if job is None:
        return []
    if job.chunk_count is None:
        _write_chunks(context, session, job)
    now = clock.read(session)
    job.status = JobStatus.RUNNING
    job.attempts = 0
    job.started_at = job.started_at or now
    job.last_progress_at = now
    job.open_chunks = chunks.count_open(session, job_id)
    if not job.open_chunks:
        outbox.put(session, SYNTHESIZE, job_id, reason="all chunks ended")
    return chunks.unsent_ids(session, job_id)


def _slice_size(context: Context) -> int:
    """Return how many chunks go into a message: no more than one process is at at once."""
    return min(MAX_SLICE, context.settings.worker.concurrency)


def _write_chunks(context: Context, session: Session, job: Job) -> None:
    text = documents.text_of(session, job.document_id)
    model = context.models.open(job.model)
    budget = text_budget(model, question_of(job), context.settings.pipeline.chunk_tokens)
    parts = chunking.split(text, budget)
    chunks.write(session, job.id, parts)
    job.chunk_count = len(parts)
