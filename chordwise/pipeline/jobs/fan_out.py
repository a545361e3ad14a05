"""Fanning a document's chunks out as one chord; repeating it is harmless."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from sqlalchemy.orm import Session

from chordwise.domain import chunking
from chordwise.domain.states import JobStatus
from chordwise.domain.tasks import AnalysisTask, AnalysisType, Stage, options_of
from chordwise.errors import ConfigurationError
from chordwise.pipeline.asking.requests import text_budget
from chordwise.pipeline.jobs import backoff
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import SYNTHESIZE, slice_size, sliced
from chordwise.storage import chunks, jobs, outbox, runs
from chordwise.storage.jobs import FanOut, JobFailure


def fan_out(context: Context, job_id: uuid.UUID) -> int | None:
    """Write the job's chunks, then send those that are open; return how many were sent.

    Returns `None` where there is no such job, which means that the message is not ours.

    A job that has ended, is paused, is being synthesized, follows another, or whose run is
    cancelled is left alone; one whose model is not configured in this process is paused. What was
    sent before is not sent again.

    Raises:
        ServiceUnavailableError: Database or broker cannot be reached; recovery repeats it.
    """
    begun = backoff.store(context, lambda session: _begin(context, session, job_id))
    if not isinstance(begun, FanOut):
        return begun
    with context.leases.fanning_out(job_id):
        try:
            parts = _cut(context, begun) if begun.chunk_count is None else ()
        except ConfigurationError as error:
            backoff.pause(context, job_id, error)
            return 0
        unsent = backoff.store(context, lambda session: _prepare(session, job_id, parts))
        if unsent:
            context.messenger.start_chord(job_id, sliced(unsent, slice_size(context.settings)))
            backoff.store(context, lambda session: chunks.mark_sent(session, unsent))
        return len(unsent)


_LOST = JobFailure(
    code="worker_lost",
    message="The worker was lost again and again while it cut the document into chunks.",
    hint="Look at the worker's log; `chordwise retry RUN` tries again.",
)


def _begin(context: Context, session: Session, job_id: uuid.UUID) -> FanOut | Literal[0] | None:
    """Count before the work, so that a kill counts; after the limit the job is set aside.

    What comes on already is not counted again: it is this attempt, whose commit was not answered,
    or a message that came twice. After a kill no message is sent until the job has stood still.

    Returns 0 where there is nothing to do, and `None` where there is no such job.
    """
    pipeline = context.settings.pipeline
    patience = timedelta(seconds=min(pipeline.lease_seconds, pipeline.stalled_seconds))
    begun = jobs.begin_fan_out(session, job_id, pipeline.max_attempts, patience)
    if begun is not None:
        return begun
    job = jobs.lock(session, job_id)
    if job is None:
        return None
    if job.status == JobStatus.QUEUED and job.attempts >= pipeline.max_attempts:
        jobs.end(job, JobStatus.QUARANTINED, _LOST)
        session.flush()
        runs.settle(session, job.run_id)
    return 0


def _cut(context: Context, begun: FanOut) -> Sequence[chunking.Chunk]:
    text = context.stores.texts.of(begun.document_id, within=context.lease)
    options, kind = options_of(begun.options), AnalysisType(begun.analysis_type)
    task = AnalysisTask(analysis_type=kind, stage=Stage.ANALYZE, text="", options=options)
    budget = text_budget(
        context.models.open(begun.model), task, context.settings.pipeline.chunk_tokens
    )
    return chunking.split(text, budget)


def _prepare(
    session: Session, job_id: uuid.UUID, parts: Sequence[chunking.Chunk]
) -> Sequence[uuid.UUID]:
    """Write the chunks, unless they are written already; return those that have no message."""
    if not jobs.lock_for_fan_out(session, job_id):
        return []
    chunks.write(session, job_id, parts)
    open_chunks = jobs.start(session, job_id)
    if not open_chunks:
        outbox.put(session, SYNTHESIZE, job_id, reason="all chunks ended")
    return chunks.unsent_ids(session, job_id)
