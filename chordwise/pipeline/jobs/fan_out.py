"""Fans out the chunks of a document, as a chord if there are several slices; idempotent."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Literal

from chordwise.domain import chunking
from chordwise.domain.states import JobStatus
from chordwise.errors import ConfigurationError
from chordwise.pipeline.asking.question import text_budget
from chordwise.pipeline.jobs.job_results import task_of
from chordwise.pipeline.jobs.step import pause_jobs
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import slice_size, sliced
from chordwise.storage import jobs, runs
from chordwise.storage.fan_outs import FanOut
from chordwise.storage.jobs import JobFailure


def fan_out(
    context: Context,
    job_id: uuid.UUID,
    at_once: Callable[[Sequence[uuid.UUID]], object] | None = None,
) -> int | None:
    """Write the chunks of a job, send those that are open, and return their number.

    Chunks that fit into one slice are passed to `at_once`, if given, instead of being sent. Returns
    `None` if there is no such job, which means that the message was not sent by Chordwise.

    Nothing happens to a job that is not queued or follows another, or whose run is cancelled. A job
    is paused if its model is not configured in this process.

    Raises:
        ServiceUnavailableError: Database or broker cannot be reached; recovery repeats it.
    """
    fan_outs = context.stores.fan_outs
    begun = fan_outs.begin(job_id)
    if begun is None:
        return _quarantine(context, job_id)
    with context.leases.fanning_out(job_id):
        try:
            parts = _cut(context, begun) if begun.chunk_count is None else ()
        except ConfigurationError as error:
            pause_jobs(context, job_id, error)
            return 0
        pending = fan_outs.write(job_id, parts)
        slices = sliced(pending, slice_size(context.settings))
        if len(slices) == 1 and at_once is not None:
            at_once(pending)
        elif slices:
            context.messenger.start_chord(job_id, slices, is_nightly=begun.is_nightly)
        return len(pending)


_LOST = JobFailure(
    code="worker_lost",
    message="The worker was lost repeatedly while it split the document into chunks.",
    hint="Look at the worker's log; `chordwise continue RUN` tries again.",
)


def _quarantine(context: Context, job_id: uuid.UUID) -> Literal[0] | None:
    """Quarantine a job that has had all its attempts; `None` if there is no such job.

    An attempt is counted before the work starts, so that a killed worker counts. A job that
    progresses is not counted again: this is the same attempt after a lost commit response, or a
    duplicate message. After a kill, no message is sent before recovery finds the job stalled.
    """
    limit = context.settings.pipeline.max_attempts
    for attempt in context.database.attempts(context.lease):
        with attempt as session:
            job = jobs.lock(session, job_id)
            if job and job.status == JobStatus.QUEUED and job.attempts >= limit:
                jobs.end(job, JobStatus.QUARANTINED, _LOST)
                session.flush()
                runs.settle(session, job.run_id)
    return None if job is None else 0


def _cut(context: Context, begun: FanOut) -> Sequence[chunking.TextChunk]:
    texts = context.stores.texts
    if begun.text is not None:
        texts.add(begun.document_id, begun.text)
    text = begun.text or texts.text(begun.document_id, within=context.lease)
    model, limit = context.models.open(begun.model), context.settings.pipeline.chunk_tokens
    return chunking.split(text, *text_budget(model, task_of(begun), limit))
